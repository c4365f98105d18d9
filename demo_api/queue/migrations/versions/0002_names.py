"""Renames columns and tables to the code's names, and empties the final events, whose bodies are made when read."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_WARM = {True: "imports", False: "off"}


def upgrade() -> None:
    """Renames what has another name now. The last event of a run keeps no copy of how the run ended."""
    op.alter_column("runs", "told_position", new_column_name="announced_position")
    op.alter_column("runs", "alike", new_column_name="batch_key")
    op.drop_table("line")
    queue_lock = op.create_table("queue_lock", sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))
    op.bulk_insert(queue_lock, [{"id": 1}])
    op.drop_index("runs_line", "runs")
    op.create_index("runs_queue", "runs", ["status", "number"])
    runs = sa.table("runs", sa.column("number", sa.Integer), sa.column("result", sa.JSON))
    connection = op.get_bind()
    for number, text in connection.execute(sa.select(runs.c.number, sa.cast(runs.c.result, sa.Text))).all():
        result = _renamed(text)
        if result is not None:
            connection.execute(runs.update().where(runs.c.number == number).values(result=result))
    events = sa.table("events", sa.column("kind", sa.Text), sa.column("data", sa.JSON))
    connection.execute(events.update().where(events.c.kind == "done").values(data={}))


def _renamed(text: str | None) -> dict[str, Any] | None:
    """The result with ``timing.warm``; None where nothing is to be renamed. A damaged one must not stop the others."""
    try:
        result = json.loads(text or "null")
    except ValueError:
        return None
    timing = result.get("timing") if isinstance(result, dict) else None
    if not isinstance(timing, dict) or not isinstance(timing.get("held"), bool):
        return None
    timing["warm"] = _WARM[timing.pop("held")]
    return dict(result)

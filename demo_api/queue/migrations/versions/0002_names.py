"""Renames columns and tables to the code's names, and empties the final events, whose bodies are made when read."""

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
    for number, result in connection.execute(sa.select(runs.c.number, runs.c.result)).all():
        if result:
            timing = result.get("timing", {})
            if "held" in timing:
                timing["warm"] = _WARM.get(timing.pop("held"))
                connection.execute(runs.update().where(runs.c.number == number).values(result=result))
    events = sa.table("events", sa.column("kind", sa.Text), sa.column("data", sa.JSON))
    connection.execute(events.update().where(events.c.kind == "done").values(data={}))

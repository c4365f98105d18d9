"""The names that the code has."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Renames what the code calls otherwise now; the body of an event that ends a run is made when it is read."""
    op.alter_column("runs", "told_position", new_column_name="announced_position")

"""The version after this one: a copy of the package with one more migration, for two that work side by side."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import demo_api
from demo_api.queue import schema

NEXT = f"{int(schema.VERSION) + 1:04}"

_MIGRATION = f'''
import sqlalchemy as sa
from alembic import op

revision = "{NEXT}"
down_revision = "{schema.VERSION}"


def upgrade():
    op.create_table("colours", sa.Column("name", sa.Text, primary_key=True))
    op.add_column("runs", sa.Column("colour", sa.Text))
'''

_COLUMN = '    Column("pool", Text),  # the model'


def make_next_version(folder: Path) -> list[str]:
    """Makes it. Returns the command that is its ``demo-api``."""
    copy = shutil.copytree(Path(demo_api.__file__).parent, folder / "demo_api", ignore=shutil.ignore_patterns("*.pyc"))
    (copy / "queue/migrations/versions" / f"{NEXT}_colours.py").write_text(_MIGRATION)
    tables = copy / "queue/schema.py"
    text = tables.read_text()
    assert _COLUMN in text
    text = text.replace(f'VERSION = "{schema.VERSION}"', f'VERSION = "{NEXT}"')
    tables.write_text(text.replace(_COLUMN, f'    Column("colour", Text, default="blue"),\n{_COLUMN}'))
    program = folder / "demo-api.py"  # its folder is the first in which Python looks
    program.write_text('import runpy\n\nrunpy.run_module("demo_api", run_name="__main__")\n')
    return [sys.executable, str(program)]

"""Alembic's entry: migrates on the connection, and in the transaction, that ``database.py`` brings."""

from alembic import context

from demo_api.queue.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

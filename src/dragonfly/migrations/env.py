"""Alembic's way in. The connection and its transaction belong to `dragonfly.migrations.upgrade`."""

from alembic import context
from sqlalchemy import Connection

connection = context.config.attributes["connection"]
assert isinstance(connection, Connection)
context.configure(connection=connection, target_metadata=None)
context.run_migrations()

"""The schema's history: one line of revisions, run on both databases by the same code."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from dragonfly.infra.database import allow_long_statements, read, write

SCHEMA_TABLES = frozenset({"alembic_version"})
"""Tables about the schema itself."""
_LOCK = 5_713_462_001
"""PostgreSQL's name for "somebody migrates"; SQLite's write lock says the same."""


def upgrade(engine: Engine) -> str:
    """Brings the database to the newest revision, in one transaction; returns that revision.

    Safe to run from several processes at once: they queue, and the later ones find nothing to do.
    """
    with write(engine) as connection:
        allow_long_statements(connection)
        upgrade_in(connection)
    return newest_revision()


def upgrade_in(connection: Connection) -> None:
    """The same as part of a transaction that its caller opened for writing."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def newest_revision() -> str:
    """The revision that this version of the software needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None, "there is at least one migration, and one head"
    return revision


def applied_revision(engine: Engine) -> str | None:
    """The revision that the database has; None: it is empty."""
    with read(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "dragonfly:migrations")
    return config

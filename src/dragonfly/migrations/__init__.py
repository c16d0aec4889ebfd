"""The schema's history: one line of revisions, run on both databases by the same code."""

import re
from importlib import resources
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect

from dragonfly.core.lazily import Lazily
from dragonfly.infra.database import LONG_STATEMENT_TIMEOUT_S, allow_long_statements, read, write

if TYPE_CHECKING:
    from dragonfly.migrations import running
else:
    running = Lazily("dragonfly.migrations.running")

VERSION_TABLE = "alembic_version"
SCHEMA_TABLES = frozenset({VERSION_TABLE})
"""Tables about the schema itself."""
_LOCK = 5_713_462_001
"""PostgreSQL's name for "somebody migrates"; SQLite's write lock says the same."""
_REVISION = re.compile(r"^(revision|down_revision) = (?:\"(\w+)\"|None)$", re.MULTILINE)


def upgrade(engine: Engine) -> str:
    """Brings the database to the newest revision, in one transaction; returns that revision.

    Safe to run from several processes at once: they queue, and the later ones find nothing to do.
    """
    newest = newest_revision()
    if applied_revision(engine) != newest:
        with write(engine, wait_ms=LONG_STATEMENT_TIMEOUT_S * 1_000) as connection:
            allow_long_statements(connection)
            upgrade_in(connection)
    return newest


def upgrade_in(connection: Connection) -> None:
    """The same as part of a transaction that its caller opened for writing."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    running.run_to_head(connection)


def newest_revision() -> str:
    """The revision that this version of the software needs: the one that no other stands on."""
    folder = resources.files("dragonfly.migrations") / "versions"
    lines = [dict(_REVISION.findall(file.read_text())) for file in folder.iterdir() if file.name.endswith(".py")]
    stood_on = {line["down_revision"] for line in lines if line}
    heads = [line["revision"] for line in lines if line and line["revision"] not in stood_on]
    assert len(heads) == 1, "there is at least one migration, and one head"
    return str(heads[0])


def applied_revision(engine: Engine) -> str | None:
    """The revision that the database has; None: it is empty."""
    with read(engine) as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar_one_or_none()
    return None if found is None else str(found)

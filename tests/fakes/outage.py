"""A database that goes away on command: a fault between SQLAlchemy and the driver, on either database."""

import enum
import sqlite3
from typing import Any

import psycopg
from sqlalchemy import Engine, event

from dragonfly.infra.postgresql import BoundedConnection, connect_bounded

SQLITE_IOERR = 10


class Trouble(enum.Enum):
    """What goes wrong."""

    NONE = "none"
    AWAY = "away"
    """Nothing can be reached: no connection, no statement."""
    COMMIT_FAILS = "commit_fails"
    """Commits do not happen, and fail."""
    COMMIT_LOST = "commit_lost"
    """Commits happen, but their answer is lost."""


class Outage:
    """Attach it to an engine before the first use; then set `trouble`."""

    def __init__(self, engine: Engine) -> None:
        self.trouble = Trouble.NONE
        self.statements = 0
        """How many statements reached the database."""
        self.connections = 0
        if event.contains(engine, "do_connect", connect_bounded):
            event.remove(engine, "do_connect", connect_bounded)
        event.listen(engine, "do_connect", self._connect)

    def _connect(self, dialect: Any, record: Any, cargs: Any, cparams: dict[str, Any]) -> Any:
        self.check()
        self.connections += 1
        if dialect.name == "sqlite":
            connection = dialect.loaded_dbapi.connect(*cargs, **cparams, factory=_SqliteConnection)
        else:
            connection = _PostgresConnection.connect(*cargs, **cparams, cursor_factory=_PostgresCursor)
        connection.outage = self
        return connection

    def check(self) -> None:
        """Raises when nothing can be reached."""
        if self.trouble is Trouble.AWAY:
            raise self.error()

    @staticmethod
    def error() -> Exception:
        """As both drivers' classes of errors would have it: whoever asks sees a connection that broke."""
        return _Broken("the database is away")


class _Broken(sqlite3.OperationalError, psycopg.OperationalError):
    sqlite_errorcode = SQLITE_IOERR


class _Connection:
    """Commits as the trouble has it; stands before a driver's class."""

    outage: Outage

    def commit(self) -> None:
        self.outage.check()
        trouble = self.outage.trouble
        if trouble is Trouble.COMMIT_FAILS:
            super().rollback()
            raise self.outage.error()
        super().commit()
        if trouble is Trouble.COMMIT_LOST:
            raise self.outage.error()


class _Cursor:
    """Counts statements and lets none through while the database is away."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        outage = getattr(self.connection, "outage", None)
        if outage is not None:
            outage.check()
            outage.statements += 1
        return super().execute(*arguments, **options)


class _SqliteCursor(_Cursor, sqlite3.Cursor):
    pass


class _SqliteConnection(_Connection, sqlite3.Connection):
    def cursor(self, factory: type[sqlite3.Cursor] | None = None) -> Any:
        return super().cursor(factory or _SqliteCursor)


class _PostgresCursor(_Cursor, psycopg.Cursor[Any]):
    pass


class _PostgresConnection(_Connection, BoundedConnection):
    pass

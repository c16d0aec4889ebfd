"""The database: one engine for SQLite or PostgreSQL, and the two ways to use it.

`read(engine)` gives one consistent snapshot, `write(engine)` one transaction for one use case; on SQLite it takes
the write lock at its beginning, because a transaction that reads first and writes later can fail half-way.
Whatever makes the database unreachable comes out as DatabaseAway; the driver's errors, which know bound values,
do not leave this module then.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import psycopg
from sqlalchemy import URL, BigInteger, Connection, Engine, Integer, MetaData, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from dragonfly.core.errors import DragonflyError
from dragonfly.infra.postgresql import SILENCE_S_MAX, BoundedConnection, connect_bounded

P = ParamSpec("P")
T = TypeVar("T")

POOL_CONNECTIONS = 8
WAIT_FOR_CONNECTION_S = 5
BUSY_TIMEOUT_MS = 5_000
"""How long an SQLite connection waits for another process's write lock."""
BUSY_PAUSE_S = 0.01
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 10
LONG_STATEMENT_TIMEOUT_S = 3_600
"""For migrations, also behind another process's, and for the proof of the books, which read whole tables."""
SQLITE_VERSION_MIN = (3, 37, 0)
SQLITE_CACHE_KIB = 16 * 1024
SQLITE_CHECKPOINT_PAGES = 4_000
"""Of 4 KiB. The default of 1,000 makes a busy writer checkpoint, and so wait for the disk, four times as often."""
SQLITE_WAL_BYTES_KEPT = 64 * 1024 * 1024
"""A journal that grew beyond this, e.g. behind a long read, shrinks again."""
FILE_MODE = 0o600
DRIVER_ERRORS = (sqlite3.Error, psycopg.Error)
_SQLITE_ERROR = 1
_SQLITE_PRIMARY = 0xFF
_SQLITE_BUSY = 5
_SQLITE_DAMAGED = (11, 26)
"""SQLITE_CORRUPT and SQLITE_NOTADB."""
_SECURE_DELETE_ON = 1
_SYNCHRONOUS_FULL = 2
_WRITES = "dragonfly_writes"
_WAIT_MS = "dragonfly_wait_ms"

SCHEMA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of Dragonfly. Packages add theirs in `tables.py`; foreign keys between packages go by name."""

BIG = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both: SQLite's STRICT tables know INTEGER only, PostgreSQL's INTEGER has 32 bits."""


class DatabaseAway(DragonflyError):
    """The database cannot be reached, is locked, full or read-only. Our trouble, never the caller's: 503."""

    code = "store_unavailable"
    status = 503

    def __init__(self, *, is_uncertain: bool = False) -> None:
        super().__init__(
            "The gateway cannot reach its database at the moment. Retry after the seconds in Retry-After."
        )
        self.is_uncertain = is_uncertain
        """The failure hit a commit: the transaction may have happened or not."""
        self.retry_after_s = 2.0


def open_engine(url: str, *, create: bool = True) -> Engine:
    """The engine for `url`: sqlite:///file or postgresql://…; nothing is connected yet.

    An SQLite file is made when it is missing, readable by its owner only; without `create`, a missing one is a
    FileNotFoundError. ValueError for any other database.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, create=create)
    if parsed.get_backend_name() in ("postgresql", "postgres"):
        return _open_postgresql(parsed.set(drivername="postgresql+psycopg"))
    raise ValueError("the database is either SQLite or PostgreSQL")


def _open_sqlite(url: URL, *, create: bool) -> Engine:
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise ValueError(f"SQLite {sqlite3.sqlite_version} is too old: STRICT tables came with 3.37")
    if not url.database or url.database == ":memory:" or url.query:
        raise ValueError("an SQLite database is a file, named without options: sqlite:///path/to/file.db")
    path = Path(url.database)
    if not path.exists():
        if not create:
            raise FileNotFoundError(path)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, FILE_MODE))
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=POOL_CONNECTIONS,
        max_overflow=2,
        pool_timeout=WAIT_FOR_CONNECTION_S,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(dbapi: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    """Sets what money and privacy need, and reads it back: SQLite ignores what it does not know."""
    dbapi.isolation_level = None  # the driver's own BEGINs come too late; `_begin_sqlite` does it
    cursor = dbapi.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    _use_write_ahead_log(cursor)
    wanted: dict[str, tuple[object, object]] = {
        "synchronous": ("FULL", _SYNCHRONOUS_FULL),
        "foreign_keys": ("ON", 1),
        "secure_delete": ("ON", _SECURE_DELETE_ON),
        "trusted_schema": ("OFF", 0),
        "cell_size_check": ("ON", 1),
        "cache_size": (-SQLITE_CACHE_KIB, -SQLITE_CACHE_KIB),
        "wal_autocheckpoint": (SQLITE_CHECKPOINT_PAGES, SQLITE_CHECKPOINT_PAGES),
        "journal_size_limit": (SQLITE_WAL_BYTES_KEPT, SQLITE_WAL_BYTES_KEPT),
        "temp_store": ("MEMORY", 2),
    }
    for pragma, (value, expected) in wanted.items():
        cursor.execute(f"PRAGMA {pragma} = {value}").fetchall()
        (found,) = cursor.execute(f"PRAGMA {pragma}").fetchone()
        assert found == expected, f"SQLite must take {pragma} = {value}"
    cursor.close()


def _use_write_ahead_log(cursor: DBAPICursor) -> None:
    """Waits for its turn: of several connections that open a new file at once, SQLite lets one switch it and refuses
    the others without waiting, because they hold what they read of it."""
    last_s = time.monotonic() + BUSY_TIMEOUT_MS / 1_000
    while True:
        try:
            (found,) = cursor.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & _SQLITE_PRIMARY == _SQLITE_BUSY
            if not is_busy or time.monotonic() >= last_s:
                raise
            time.sleep(BUSY_PAUSE_S)
        else:
            assert found == "wal", "SQLite must take journal_mode = WAL"
            return


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if wait_ms := options.get(_WAIT_MS):
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {wait_ms}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITES) else "BEGIN")
    if wait_ms:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")


def _open_postgresql(url: URL) -> Engine:
    options = {
        "synchronous_commit": "on",
        "timezone": "UTC",
        "statement_timeout": STATEMENT_TIMEOUT_S * 1_000,
        "lock_timeout": BUSY_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": 30_000,
    }
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=POOL_CONNECTIONS,
        max_overflow=2,
        pool_timeout=WAIT_FOR_CONNECTION_S,
        pool_pre_ping=True,
        connect_args={
            "application_name": "dragonfly",
            "connect_timeout": CONNECT_TIMEOUT_S,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": STATEMENT_TIMEOUT_S * 1_000,
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        },
    )
    event.listen(engine, "do_connect", connect_bounded)
    event.listen(engine, "checkin", _be_impatient)
    return engine


def _be_impatient(dbapi: object, entry: ConnectionPoolEntry) -> None:
    if isinstance(dbapi, BoundedConnection):
        dbapi.silence_s_max = SILENCE_S_MAX


def is_away(error: BaseException | None) -> bool:
    """True when an error of a driver, or SQLAlchemy's wrapping of one, says that the database cannot serve now;
    False when the statement itself is wrong."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or is_away(error.orig)
    if isinstance(error, sqlite3.Error):
        # SQLite calls a missing table "operational" too; its primary code 1 stands for errors in the SQL.
        code = getattr(error, "sqlite_errorcode", _SQLITE_ERROR) & _SQLITE_PRIMARY
        return code in _SQLITE_DAMAGED or (isinstance(error, sqlite3.OperationalError) and code != _SQLITE_ERROR)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


@contextmanager
def reaching() -> Iterator[None]:
    """Turns every sign of a database that is away into DatabaseAway."""
    try:
        yield
    except PoolTimeout:
        raise DatabaseAway from None
    except DBAPIError as error:
        if is_away(error):
            raise DatabaseAway from None
        raise


def commit(connection: Connection) -> None:
    """Commits; a failure here leaves open whether the transaction happened, and says so."""
    try:
        with reaching():
            connection.commit()
    except DatabaseAway:
        raise DatabaseAway(is_uncertain=True) from None


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """One consistent snapshot of the database; nothing that is done here stays."""
    with reaching(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        connection.begin()
        yield connection


@contextmanager
def write(engine: Engine, *, wait_ms: int = 0) -> Iterator[Connection]:
    """One transaction: committed when the block ends, rolled back when it raises. `wait_ms`, when given, is how long
    it waits on SQLite for somebody else's to end."""
    with reaching(), engine.connect() as connection:
        connection.execution_options(**{_WRITES: True, _WAIT_MS: wait_ms})
        connection.begin()
        yield connection
        commit(connection)


def hold_for_writing(engine: Engine) -> Connection:
    """A connection for somebody who writes again and again: each transaction it begins is a writing one."""
    with reaching():
        return engine.connect().execution_options(**{_WRITES: True})


def allow_long_statements(connection: Connection) -> None:
    """Lets the statements of this transaction take an hour; for proofs and migrations."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{LONG_STATEMENT_TIMEOUT_S}s'")
        be_patient(connection)


def be_patient(connection: Connection) -> None:
    """Lets the server say nothing for an hour, until the connection goes back to the pool."""
    dbapi: object = connection.connection.dbapi_connection
    if isinstance(dbapi, BoundedConnection):
        dbapi.silence_s_max = LONG_STATEMENT_TIMEOUT_S


def allow_pauses(connection: Connection) -> None:
    """Lets this transaction wait between its statements, for somebody who reads slowly; the caller bounds it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{LONG_STATEMENT_TIMEOUT_S}s'")


def dialect_of(engine: Engine) -> Literal["sqlite", "postgresql"]:
    """Which of the two databases this is."""
    name = engine.dialect.name
    assert name in ("sqlite", "postgresql")
    return "sqlite" if name == "sqlite" else "postgresql"


class DatabaseThreads:
    """Runs blocking database work for the event loop: few threads, a bounded queue, a bounded wait."""

    def __init__(self, *, threads: int = 4, waiting_max: int = 512, wait_s: float = 10.0) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="database")
        self._waiting = 0
        self._waiting_max = waiting_max
        self._wait_s = wait_s

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(*args)` returns or raises; DatabaseAway when the queue is full or the wait too long."""
        if self._waiting >= self._waiting_max:
            raise DatabaseAway
        self._waiting += 1
        try:
            submitted: Future[T] = self._executor.submit(work, *args, **kwargs)
        except RuntimeError:
            self._waiting -= 1
            raise DatabaseAway from None  # closed: the process is stopping
        future = asyncio.wrap_future(submitted)
        future.add_done_callback(self._finished)
        # Not wait_for: work that nobody waits for any longer still occupies a thread, and still counts.
        done, _ = await asyncio.wait((future,), timeout=self._wait_s)
        if not done:
            raise DatabaseAway(is_uncertain=True)
        return future.result()

    def _finished(self, future: "asyncio.Future[T]") -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # taken note of, so that asyncio does not print its text when nobody waits

    def close(self) -> None:
        """Takes no more work; what runs ends by the database's own time-outs."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def insert_missing(connection: Connection, table: Table, row: Mapping[str, object]) -> bool:
    """Inserts `row` unless its primary key is there already; True when it was inserted."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(row).on_conflict_do_nothing()
    return connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount == 1


def insert_missing_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> set[object]:
    """As `insert_missing` for several rows of a table with one key column; the keys of those that were inserted."""
    if not rows:
        return set()
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    (key,) = table.primary_key.columns
    statement = insert(table).values(list(rows)).on_conflict_do_nothing().returning(key)
    return set(connection.execute(statement).scalars())

"""Moves an installation between SQLite and PostgreSQL: every row of every table, proven before it counts.

All of it happens in one transaction of the target, from the making of its tables to the proof of its books, so that
a target is either complete and right or still empty. The source is locked against writers meanwhile. Rows go through
in bounded batches; what they hold is compared by digests that both sides compute from what they have stored.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, Table, delete, insert, inspect, select

from dragonfly.admission.queries import WorkerBeats, beats_of_workers
from dragonfly.admission.verify import Report, verify
from dragonfly.core.errors import DragonflyError
from dragonfly.infra.database import allow_long_statements, dialect_of, read, write
from dragonfly.migrations import SCHEMA_TABLES, applied_revision, newest_revision, upgrade_in

ROWS_PER_BATCH = 2_000
LOOK_EVERY_S = 0.25
DIGEST_BITS = 256
"""Digests of rows are added up, modulo two to this power: the order of rows, which the databases see differently,
does not matter."""

Row = Sequence[object]


class CopyRefused(DragonflyError):
    """The copy cannot begin, or was not exact; the target is as it was."""

    code = "copy_refused"


class TableCopied(NamedTuple):
    """One table, the same on both sides."""

    name: str
    rows: int
    digest: str
    """Of all its rows, in hexadecimal digits."""


class Copied(NamedTuple):
    """What was moved, and the proof of the books on the new side."""

    tables: tuple[TableCopied, ...]
    report: Report


class _Content(NamedTuple):
    rows: int
    digest: int


def copy_database(
    source: Engine, target: Engine, tables: Sequence[Table], *, silence_s: float, usage_since_ns: int
) -> Copied:
    """Copies `tables`: all that there are, those that are referred to first. CopyRefused, DatabaseAway.

    A worker that shows no sign of life for `silence_s` is dead; its leases are copied, and given back by the first
    worker that serves from the target. Usage before `usage_since_ns` is not compared with the books.
    """
    _require_kinds(source, target)
    beats = _require_silence(source, silence_s)
    with write(source) as giving:
        if beats_of_workers(giving) != beats:
            raise CopyRefused("A gateway was started on the source just now. Stop it, then try again.")
        _require_all_known(giving, tables)
        return fill_empty(giving, target, tables, usage_since_ns=usage_since_ns)


def copy_rows(giving: Connection, taking: Connection, tables: Sequence[Table]) -> tuple[TableCopied, ...]:
    """Copies `tables` from a snapshot into empty ones; CopyRefused when what arrived is not what was sent."""
    allow_long_statements(giving)
    allow_long_statements(taking)
    return tuple(_copy_table(giving, taking, table) for table in tables)


def fill_empty(giving: Connection, target: Engine, tables: Sequence[Table], *, usage_since_ns: int) -> Copied:
    """Makes the schema in an empty database, copies `tables`, proves the books: one transaction. CopyRefused."""
    with write(target) as taking:
        require_empty(taking)
        upgrade_in(taking)
        copied = copy_rows(giving, taking, tables)
        report = verify(taking, usage_since_ns=usage_since_ns)
        if not report.is_clean:
            raise CopyRefused(
                "The books of the source are not right; see `dragonfly ledger verify`. Nothing was kept."
            )
    return Copied(copied, report)


def _require_kinds(source: Engine, target: Engine) -> None:
    if (dialect_of(source), dialect_of(target)) != ("sqlite", "postgresql"):
        raise CopyRefused(
            "The source must be an SQLite file and the target a PostgreSQL database. Between PostgreSQL servers,"
            " use pg_dump and pg_restore."
        )
    if applied_revision(source) != newest_revision():
        raise CopyRefused("The source has another schema than this version: run `dragonfly migrate` on it first.")


def _require_silence(source: Engine, silence_s: float) -> list[WorkerBeats]:
    """Watches those who are registered for as long as a living worker can be silent; gives their last signs."""

    def look() -> list[WorkerBeats]:
        with read(source) as connection:
            return beats_of_workers(connection)

    first = look()
    last_s = time.monotonic() + silence_s
    while first and time.monotonic() < last_s:
        time.sleep(LOOK_EVERY_S)
        if look() != first:
            raise CopyRefused("A gateway is running on the source. Stop it, then try again.")
    return first


def _require_all_known(giving: Connection, tables: Sequence[Table]) -> None:
    unknown = set(inspect(giving).get_table_names()) - {table.name for table in tables} - SCHEMA_TABLES
    if unknown:
        raise CopyRefused(f"The source has tables that are not Dragonfly's: {', '.join(sorted(unknown))}.")


def require_empty(taking: Connection) -> None:
    if inspect(taking).get_table_names():
        raise CopyRefused("The target is not empty. Make a new database, or drop what is in this one.")


def _copy_table(giving: Connection, taking: Connection, table: Table) -> TableCopied:
    if taking.execute(select(table).limit(1)).first() is not None:
        taking.execute(delete(table))  # rows that the migrations made; the source has its own
    given = _transfer(giving, taking, table)
    found = _content(_rows(taking, table))
    if found != given:
        raise CopyRefused(f"The table {table.name} did not arrive as it was sent. Nothing was kept.")
    return TableCopied(table.name, given.rows, f"{given.digest:064x}")


def _transfer(giving: Connection, taking: Connection, table: Table) -> _Content:
    if taking.dialect.name == "sqlite":
        return _insert(giving, taking, table)
    driver = cast("psycopg.Connection[object]", taking.connection.driver_connection)
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), names)
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            return _content(_rows(giving, table), copy.write_row)
    except psycopg.errors.DataError:
        raise CopyRefused(f"A row of the table {table.name} holds what PostgreSQL cannot store.") from None


def _insert(giving: Connection, taking: Connection, table: Table) -> _Content:
    """In batches; SQLite knows no other way."""
    names = [column.name for column in table.columns]
    waiting: list[dict[str, object]] = []

    def flush() -> None:
        if waiting:
            taking.execute(insert(table), waiting)
            waiting.clear()

    def write_row(row: Row) -> None:
        waiting.append(dict(zip(names, row, strict=True)))
        if len(waiting) >= ROWS_PER_BATCH:
            flush()

    found = _content(_rows(giving, table), write_row)
    flush()
    return found


def _rows(connection: Connection, table: Table) -> Iterator[Row]:
    """Every row, a batch of them in memory at a time."""
    found = connection.execute(select(table), execution_options={"stream_results": True})
    for batch in found.partitions(ROWS_PER_BATCH):
        yield from batch


def _content(rows: Iterator[Row], write_row: Callable[[Row], None] = lambda _: None) -> _Content:
    """Counts and digests the rows, and hands each on."""
    count = total = 0
    for row in rows:
        write_row(row)
        count += 1
        total += int.from_bytes(hashlib.sha256(_canonical(row)).digest())
    return _Content(count, total % (1 << DIGEST_BITS))


def _canonical(row: Row) -> bytes:
    """The row's values with their types and lengths, so that no two rows look alike."""
    parts = []
    for value in row:
        if value is None:
            kind, data = b"n", b""
        elif isinstance(value, bytes):
            kind, data = b"b", value
        elif isinstance(value, str):
            kind, data = b"s", value.encode()
        else:
            assert isinstance(value, int), "the tables hold numbers, text and bytes"
            kind, data = b"i", str(value).encode()
        parts.append(b"%b%d:%b" % (kind, len(data), data))
    return b"".join(parts)

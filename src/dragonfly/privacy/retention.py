"""Retention: rows whose lifetime has passed are deleted, by the lifetimes that the inventory gives, and their bytes
leave the files.

On SQLite secure_delete (set for every connection) overwrites what is deleted, and the journal, which still holds
earlier pages, is cut to nothing afterwards. On PostgreSQL usage rows go with the table of their day; other tables are
rewritten while they are small, and vacuumed when they are large: then `compact` rewrites them, so that not even the
gaps in their pages remember.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, Engine, Table, delete, func, select, tuple_, update
from sqlalchemy.exc import DBAPIError

from dragonfly.infra.database import be_patient, insert_missing, is_away, read, write
from dragonfly.ledger.closing import close_old_groups
from dragonfly.ledger.tables import entries, entry_groups
from dragonfly.privacy.inventory import TableEntry, all_tables, describe_table
from dragonfly.privacy.tables import privacy_runs
from dragonfly.usage.actions import RETENTION_DAYS, close_old_days, forget_old_usage
from dragonfly.usage.partitions import REST, drop_days, make_days
from dragonfly.usage.queries import day_of_request
from dragonfly.usage.tables import usage, usage_days

NS_PER_S = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_S
ROWS_PER_DELETION_MAX = 1_000
"""One transaction deletes no more, so that settlements never wait long behind it."""
CHECKPOINT_WAIT_MS = 250
"""A reader that is in the way is left alone after this; the next turn tries again."""
REWRITTEN_BYTES_MAX = 64 * 1024 * 1024
"""A PostgreSQL table up to this size is rewritten to forget; that locks it for less than a second."""
USAGE = "usage"
RETENTION = "retention"


class Expiring(NamedTuple):
    """A table whose rows end by themselves."""

    table: Table
    entry: TableEntry

    def cutoff(self, now_ns: int) -> int:
        """Rows whose `since` lies before this have lived their time; in the unit of that column."""
        lifetime_ns = self.entry.lifetime_ns
        assert lifetime_ns is not None, "only counted lifetimes get here"
        before_ns = now_ns - lifetime_ns
        return before_ns if self.entry.since.endswith("_ns") else before_ns // NS_PER_DAY


class Step(NamedTuple):
    """One thing that a run of retention does again and again until nothing is left to do."""

    tables: tuple[str, ...]
    """Whose bytes it frees; the first is told of."""
    delete_some: Callable[[Engine, int], int]
    """Deletes a bounded number of rows that have lived their time at an instant (ns); how many."""


class Run(NamedTuple):
    """What a run of retention did."""

    deleted: dict[str, int]
    """Rows by table; tables without any are left out."""
    is_compacted: bool
    """The bytes have left the files; False when a reader was in the way."""


def expiring_tables() -> tuple[Expiring, ...]:
    """Tables with a counted lifetime; those that refer to others come first."""
    described = ((table, describe_table(table)) for table in reversed(all_tables()))
    return tuple(Expiring(table, entry) for table, entry in described if entry.lifetime_ns is not None)


def retention_steps() -> tuple[Step, ...]:
    """Everything that ends by itself, in the order in which it ends."""
    steps = []
    for one in expiring_tables():
        if one.table.name == USAGE:
            steps.append(Step((USAGE,), _drop_usage_days))
            steps.append(Step((USAGE,), partial(_in_a_transaction, forget_old_usage)))
        elif one.table.name == usage_days.name:
            steps.append(Step((one.table.name,), partial(_in_a_transaction, close_old_days)))
        else:
            steps.append(Step((one.table.name,), partial(_in_a_transaction, partial(_delete_rows, one))))
    return (*steps, Step((entry_groups.name, entries.name), partial(_in_a_transaction, _close_groups)))


def _in_a_transaction(work: Callable[..., int], engine: Engine, now_ns: int) -> int:
    with write(engine) as connection:
        return work(connection, now_ns=now_ns)


def _drop_usage_days(engine: Engine, now_ns: int) -> int:
    make_days(engine, now_ns=now_ns)
    return drop_days(engine, before_ns=now_ns - RETENTION_DAYS * NS_PER_DAY)


def _delete_rows(one: Expiring, connection: Connection, *, now_ns: int) -> int:
    since = one.table.c[one.entry.since]
    keys = list(one.table.primary_key.columns)
    oldest = select(*keys).where(since < one.cutoff(now_ns)).order_by(since).limit(ROWS_PER_DELETION_MAX)
    found = [tuple(row) for row in connection.execute(oldest)]
    if found:
        connection.execute(delete(one.table).where(tuple_(*keys).in_(found)))
    return len(found)


def _close_groups(connection: Connection, *, now_ns: int) -> int:
    """The journal's groups outlive the usage rows that they charged, and no longer than to the end of their day."""
    day = (now_ns - RETENTION_DAYS * NS_PER_DAY) // NS_PER_DAY
    oldest = connection.execute(select(func.min(usage.c.request_id))).scalar()
    if oldest is not None:
        day = min(day, day_of_request(oldest))
    return close_old_groups(connection, before_ns=day * NS_PER_DAY)


def run_retention(engine: Engine, *, now_ns: int, compact: bool = False) -> Run:
    """Deletes everything that has lived its time at `now_ns`, and takes the bytes out of the files."""
    deleted: Counter[str] = Counter()
    touched: set[str] = set()
    for step in retention_steps():
        while some := step.delete_some(engine, now_ns):
            deleted[step.tables[0]] += some
            touched.update(step.tables)
    note_run(engine, now_ns=now_ns, rows=deleted.total())
    return Run(dict(deleted), erase_traces(engine, tuple(sorted(touched)), compact=compact))


def note_run(engine: Engine, *, now_ns: int, rows: int) -> None:
    """Remembers that retention ran."""
    (usage,) = [one for one in expiring_tables() if one.table.name == USAGE]
    with write(engine) as connection:
        row = {"kind": RETENTION, "ran_at_ns": 0, "rows_deleted": 0, "usage_before_ns": 0}
        insert_missing(connection, privacy_runs, row)
        before = connection.execute(select(privacy_runs.c.usage_before_ns)).scalar_one()
        values = {"ran_at_ns": now_ns, "rows_deleted": rows, "usage_before_ns": max(before, usage.cutoff(now_ns))}
        connection.execute(update(privacy_runs).where(privacy_runs.c.kind == RETENTION).values(values))


def usage_before_ns(connection: Connection) -> int:
    """Usage rows from before this instant have been deleted; 0 when retention has never run."""
    return int(connection.execute(select(privacy_runs.c.usage_before_ns)).scalar() or 0)


def erase_traces(engine: Engine, tables: tuple[str, ...], *, compact: bool = False) -> bool:
    """Takes the bytes of deleted rows out of the files; False when somebody was in the way, so try again later.

    With `compact` the whole database (SQLite) or the tables (PostgreSQL) are rewritten however large they are, which
    locks them meanwhile.
    """
    if engine.dialect.name == "sqlite":
        return _erase_on_sqlite(engine, compact=compact)
    known = {table.name for table in all_tables()}
    assert known.issuperset(tables), "names stand in the statement"
    bare = engine.execution_options(isolation_level="AUTOCOMMIT")
    is_done = True
    with bare.connect() as connection:
        connection.exec_driver_sql("SET statement_timeout = 0")
        be_patient(connection)
        connection.exec_driver_sql("SET lock_timeout = 0" if compact else f"SET lock_timeout = {CHECKPOINT_WAIT_MS}")
        for table in tables:
            name = REST if table == USAGE else table  # the other parts of it are dropped as a whole
            size = f"SELECT pg_total_relation_size('{name}')"
            is_small = connection.exec_driver_sql(size).scalar_one() <= REWRITTEN_BYTES_MAX
            try:
                connection.exec_driver_sql(f'VACUUM {"(FULL)" if compact or is_small else ""} "{name}"')
            except DBAPIError as failure:
                if not is_away(failure):
                    raise
                is_done = False
        connection.detach()  # its settings go with it
    return is_done


def _erase_on_sqlite(engine: Engine, *, compact: bool) -> bool:
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        if compact:
            cursor.execute("VACUUM")
        cursor.execute(f"PRAGMA busy_timeout = {CHECKPOINT_WAIT_MS}")
        busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        cursor.close()
    finally:
        raw.detach()  # its settings go with it
        raw.close()
    return not busy


def oldest_usage_ns(engine: Engine) -> int | None:
    """When the oldest usage row was made; None: there is none."""
    (usage,) = [table for table in all_tables() if table.name == USAGE]
    with read(engine) as connection:
        # Ids begin with their time, so that the first of the primary key is the oldest.
        oldest = select(usage.c.created_at_ns).order_by(usage.c.request_id).limit(1)
        found = connection.execute(oldest).scalar()
        return None if found is None else int(found)

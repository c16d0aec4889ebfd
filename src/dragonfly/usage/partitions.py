"""Usage rows on PostgreSQL: one table for each day of UTC, so that the bytes of a day go by dropping its table.

The day is that in the request's id, which is the primary key. Tables are made a week ahead; what falls into no day's
table, because nothing was running to make it, lies in the rest and is deleted row by row.
"""

import contextlib

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from dragonfly.infra.database import DatabaseAway, allow_long_statements, read, write
from dragonfly.usage.queries import NS_PER_DAY

DAYS_AHEAD = 7
REST = "usage_rest"
LOCK_WAIT_MS = 250
"""Settlements wait behind whoever waits for a table; after this it is left for the next turn."""
_DAY_PREFIX = "usage_day_"
_MS_PER_DAY = NS_PER_DAY // 1_000_000
_LOCK = 5_713_462_002
"""PostgreSQL's name for "somebody makes or drops tables of days"."""


def is_partition(table: str) -> bool:
    """Whether a table of the database is a part of `usage`."""
    return table == REST or table.startswith(_DAY_PREFIX)


def make_days(engine: Engine, *, now_ns: int) -> int:
    """Makes the tables of today and the days ahead that are missing; how many. Nothing to do on SQLite."""
    if engine.dialect.name != "postgresql":
        return 0
    with read(engine) as connection:
        known = _known_days(connection)
    today, made = now_ns // NS_PER_DAY, 0
    for day in sorted(set(range(today, today + DAYS_AHEAD + 1)) - known):
        # The rest may hold rows of that day already, or somebody may be in the way: then its rows go one by one.
        with contextlib.suppress(DBAPIError, DatabaseAway), write(engine) as connection:
            made += _make_day(connection, day)
    return made


def drop_days(engine: Engine, *, before_ns: int) -> int:
    """Drops the tables of days that were over at `before_ns`; how many rows they held. Nothing on SQLite.

    Whoever reads or writes there for long is not waited for: the next turn tries again.
    """
    if engine.dialect.name == "postgresql":
        with contextlib.suppress(DatabaseAway), write(engine) as connection:
            return _drop_days(connection, before_ns)
    return 0


def _drop_days(connection: Connection, before_ns: int) -> int:
    _wait_briefly(connection)
    if not connection.execute(text(f"SELECT pg_try_advisory_xact_lock({_LOCK})")).scalar_one():
        return 0
    allow_long_statements(connection)
    dropped = 0
    for day in sorted(_known_days(connection)):
        if (day + 1) * NS_PER_DAY > before_ns:
            break
        name = f"{_DAY_PREFIX}{day}"
        dropped += connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
        connection.execute(text(f"DROP TABLE {name}"))
    return dropped


def _make_day(connection: Connection, day: int) -> bool:
    _wait_briefly(connection)
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    if day in _known_days(connection):
        return False
    name = f"{_DAY_PREFIX}{day}"
    first, end = (f"gen-{at * _MS_PER_DAY:012x}" for at in (day, day + 1))
    like = "LIKE usage INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES"
    connection.execute(text(f"CREATE TABLE {name} ({like})"))
    # Attached rather than made as a part: that way settlements go on meanwhile.
    connection.execute(text(f"ALTER TABLE usage ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{end}')"))
    return True


def _known_days(connection: Connection) -> set[int]:
    parts = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage'::regclass")
    names = (str(name) for name in connection.execute(parts).scalars())
    return {int(name.removeprefix(_DAY_PREFIX)) for name in names if name.startswith(_DAY_PREFIX)}


def _wait_briefly(connection: Connection) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}"))

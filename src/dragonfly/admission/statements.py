"""The statements that settle requests: many rows each, written once per database, run on the driver's own cursor.

A statement takes all rows of a batch at once. That is not only less work: Python's lock changes hands at every
step of a statement, and on a busy event loop each hand-over back may take milliseconds.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import NamedTuple, Protocol

from dragonfly.ledger.rules import Lot
from dragonfly.usage.queries import UsageRow

ROWS_PER_STATEMENT_MAX = 128
"""A power of two: a batch is cut into powers of two, so that few texts are prepared, once each."""

Value = str | int | None
Rows = Sequence[tuple[Value, ...]]


class Cursor(Protocol):
    """What both drivers' cursors offer."""

    @property
    def rowcount(self) -> int: ...
    @property
    def connection(self) -> "PipelinedConnection": ...
    def execute(self, statement: str, parameters: Sequence[object] = ..., /) -> object: ...
    def fetchall(self) -> list[tuple[Value, ...]]: ...


class PipelinedConnection(Protocol):
    """What psycopg's connections offer beside the common ground."""

    def cursor(self) -> Cursor: ...
    def pipeline(self) -> AbstractContextManager[object]: ...


class _Shape(NamedTuple):
    """A statement whose middle is a set of rows."""

    head: str
    tail: str
    types: tuple[str, ...]
    """PostgreSQL's names of the columns' types."""


_TEXT, _BIG, _INT = "text", "bigint", "integer"

_USAGE_TYPES = {
    **dict.fromkeys(UsageRow._fields, _BIG),
    **dict.fromkeys(("request_id", "account_id", "key_id", "model", "provider", "channel_id"), _TEXT),
    **dict.fromkeys(("basis", "price_version_id", "group_id", "outcome", "finish_reason"), _TEXT),
    **dict.fromkeys(("is_streamed", "attempts", "upstream_status", "day"), _INT),
}
_DAY_COUNTERS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost_nusd")

SHAPES = {
    "usage": _Shape(
        f"INSERT INTO usage ({', '.join(_USAGE_TYPES)}) ",
        " ON CONFLICT DO NOTHING",
        tuple(_USAGE_TYPES.values()),
    ),
    "books": _Shape("INSERT INTO books (id, kind) ", " ON CONFLICT DO NOTHING", (_TEXT, _TEXT)),
    "groups": _Shape(
        "INSERT INTO entry_groups (id, kind, account_id, created_at_ns) ", "", (_TEXT, _TEXT, _TEXT, _BIG)
    ),
    "entries": _Shape("INSERT INTO entries (group_id, book_id, amount_nusd) ", "", (_TEXT, _TEXT, _BIG)),
    "wallets": _Shape(
        "UPDATE wallets SET balance_nusd = balance_nusd - given.column2, leased_nusd = leased_nusd - given.column3,"
        " charged_nusd = charged_nusd + given.column2 FROM (",
        ") AS given WHERE account_id = given.column1",
        (_TEXT, _BIG, _BIG),
    ),
    "leases": _Shape(
        "UPDATE leases SET amount_nusd = amount_nusd - given.column2 FROM (",
        ") AS given WHERE id = given.column1",
        (_TEXT, _BIG),
    ),
    "lots": _Shape(
        "UPDATE lots SET remaining_nusd = remaining_nusd - given.column2 FROM (",
        ") AS given WHERE id = given.column1",
        (_TEXT, _BIG),
    ),
    "key_spend": _Shape(
        "UPDATE key_spend SET spent_nusd = spent_nusd + given.column2, leased_nusd = leased_nusd - given.column3"
        " FROM (",
        ") AS given WHERE key_id = given.column1",
        (_TEXT, _BIG, _BIG),
    ),
    "usage_days": _Shape(
        f"INSERT INTO usage_days (key_id, day, model, provider, account_id, {', '.join(_DAY_COUNTERS)}) ",
        " ON CONFLICT (key_id, day, model, provider) DO UPDATE SET "
        + ", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in _DAY_COUNTERS),
        (_TEXT, _INT, _TEXT, _TEXT, _TEXT, *(_BIG for _ in _DAY_COUNTERS)),
    ),
}


Steps = Mapping[str, Rows]
"""Rows by a name of SHAPES, in the order in which they are written."""


class Statements(Protocol):
    """The same statements for either database. `write` says how many rows each step changed."""

    def begin(self, cursor: Cursor) -> None: ...
    def lock_wallets(self, cursor: Cursor, account_ids: Sequence[str]) -> None: ...
    def write(self, cursor: Cursor, steps: Steps) -> dict[str, int]: ...
    def find(self, cursor: Cursor, name: str, ids: Sequence[str]) -> Rows: ...


LOOKUPS = {
    "usage": ("SELECT request_id FROM usage", "request_id"),
    "leases": ("SELECT id FROM leases", "id"),
    "lots": (
        f"SELECT {', '.join(Lot._fields)} FROM (SELECT * FROM lots WHERE remaining_nusd > 0) AS open",
        "account_id",
    ),
    "available": ("SELECT account_id, balance_nusd - leased_nusd FROM wallets", "account_id"),
}
"""Statements that look rows up by a list of ids, and the column of the id."""


class SqliteStatements:
    """Rows as `VALUES (?, ?), (?, ?)`, for every power of two up to the maximum."""

    def __init__(self) -> None:
        self._texts = {name: _sqlite_texts(shape) for name, shape in SHAPES.items()}

    def begin(self, cursor: Cursor) -> None:
        """Takes the only write lock there is; waits for it up to the busy time-out."""
        cursor.execute("BEGIN IMMEDIATE")

    def lock_wallets(self, cursor: Cursor, account_ids: Sequence[str]) -> None:
        """Nothing to do: `begin` locked everything."""

    def write(self, cursor: Cursor, steps: Steps) -> dict[str, int]:
        """One step after the other."""
        return {name: self._run(cursor, self._texts[name], rows) for name, rows in steps.items()}

    def _run(self, cursor: Cursor, texts: list[str], rows: Rows) -> int:
        if len(rows) == 1:
            cursor.execute(texts[0], rows[0])
            return cursor.rowcount
        changed = start = 0
        left = len(rows)
        while left:
            exponent = min(left.bit_length(), len(texts)) - 1
            size = 1 << exponent
            part = rows[start : start + size]
            cursor.execute(texts[exponent], list(chain.from_iterable(part)))
            changed += cursor.rowcount
            start += size
            left -= size
        return changed

    def find(self, cursor: Cursor, name: str, ids: Sequence[str]) -> Rows:
        """The rows of those of `ids` that are there."""
        query, column = LOOKUPS[name]
        found: list[tuple[Value, ...]] = []
        for start in range(0, len(ids), ROWS_PER_STATEMENT_MAX):
            part = ids[start : start + ROWS_PER_STATEMENT_MAX]
            cursor.execute(f"{query} WHERE {column} IN ({', '.join('?' * len(part))})", part)
            found += cursor.fetchall()
        return found


class PostgresStatements:
    """Rows as one array per column: one text for any number of rows."""

    def __init__(self) -> None:
        self._texts = {name: _postgres_text(shape) for name, shape in SHAPES.items()}

    def begin(self, cursor: Cursor) -> None:
        """Nothing to do: the driver begins with the first statement."""

    def write(self, cursor: Cursor, steps: Steps) -> dict[str, int]:
        """All steps in one go: they are sent together, and answered together."""
        connection = cursor.connection
        cursors = {name: connection.cursor() for name, rows in steps.items() if rows}
        with connection.pipeline():
            for name, own in cursors.items():
                own.execute(self._texts[name], [list(column) for column in zip(*steps[name], strict=True)])
        return {name: cursors[name].rowcount if name in cursors else 0 for name in steps}

    def lock_wallets(self, cursor: Cursor, account_ids: Sequence[str]) -> None:
        """Takes the rows in one order everywhere, so that no two workers wait for each other."""
        cursor.execute(
            "SELECT 1 FROM wallets WHERE account_id = ANY(%s) ORDER BY account_id FOR UPDATE", [list(account_ids)]
        )

    def find(self, cursor: Cursor, name: str, ids: Sequence[str]) -> Rows:
        """The rows of those of `ids` that are there."""
        query, column = LOOKUPS[name]
        cursor.execute(f"{query} WHERE {column} = ANY(%s)", [list(ids)])
        return cursor.fetchall()


def _sqlite_texts(shape: _Shape) -> list[str]:
    row = f"({', '.join('?' * len(shape.types))})"
    sizes = [1 << exponent for exponent in range(ROWS_PER_STATEMENT_MAX.bit_length())]
    return [f"{shape.head}VALUES {', '.join([row] * size)}{shape.tail}" for size in sizes]


def _postgres_text(shape: _Shape) -> str:
    arrays = ", ".join(f"%s::{kind}[]" for kind in shape.types)
    names = ", ".join(f"column{number}" for number in range(1, len(shape.types) + 1))
    return f"{shape.head}SELECT * FROM unnest({arrays}) AS rows ({names}){shape.tail}"

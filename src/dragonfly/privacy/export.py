"""Everything that is kept about one account, as a ZIP of JSON and CSV, made from the inventory.

Each table is a pair of files; `README.txt` says what every column is for. Left out are keyed digests and hashes,
which are worth nothing to their owner and something to a thief; README.txt names them.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, LargeBinary, Table, select

from dragonfly.accounts.actions import AccountNotFound
from dragonfly.accounts.queries import account_by_id
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import allow_long_statements
from dragonfly.privacy.inventory import TableEntry
from dragonfly.privacy.ownership import owned_tables, rows_of

ROWS_MAX = 2_000_000
"""Of one table; an account with more is exported by hand."""
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The same data gives the same bytes."""
_WITHHELD = re.compile(r"(^|_)(digest|hash|salt|claim)($|_)")
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet would run as a formula."""

Cell = str | int | float | None


class ExportTooLarge(DragonflyError):
    """One table holds more rows than one file takes."""

    code = "export_too_large"


class Exported(NamedTuple):
    """One ZIP file."""

    data: bytes
    rows: dict[str, int]
    """By table, those without rows included."""


def export_account(connection: Connection, account_id: AccountId, *, now_ns: int) -> Exported:
    """Reads everything in the caller's snapshot. AccountNotFound; ExportTooLarge."""
    if account_by_id(connection, account_id) is None:
        raise AccountNotFound
    allow_long_statements(connection)
    packed = io.BytesIO()
    counts = {}
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for table, _ in owned_tables():
            names = shown_columns(table)
            rows = _read(connection, table, names, account_id)
            counts[table.name] = len(rows)
            _add(
                archive, f"{table.name}.json", json.dumps([_dated(row) for row in rows], indent=1, ensure_ascii=False)
            )
            _add(archive, f"{table.name}.csv", _csv(names, rows))
        _add(archive, "README.txt", _readme(account_id, counts, now_ns))
    return Exported(packed.getvalue(), counts)


def shown_columns(table: Table) -> tuple[str, ...]:
    """Columns that an export holds."""
    return tuple(
        column.name
        for column in table.columns
        if not isinstance(column.type, LargeBinary) and not _WITHHELD.search(column.name)
    )


def _read(connection: Connection, table: Table, names: Sequence[str], account_id: AccountId) -> list[dict[str, Cell]]:
    keys = list(table.primary_key.columns)
    wanted = select(*(table.c[name] for name in names)).where(rows_of(table, account_id)).order_by(*keys)
    rows = connection.execute(wanted.limit(ROWS_MAX + 1)).mappings().all()
    if len(rows) > ROWS_MAX:
        raise ExportTooLarge(f"{table.name} has more than {ROWS_MAX} rows of this account; export it with SQL.")
    return [dict(row) for row in rows]


def _dated(row: Mapping[str, Cell]) -> dict[str, Cell]:
    """Instants as ISO 8601, beside which nobody needs nanoseconds."""
    return {
        name.removesuffix("_ns") if isinstance(value, int) and name.endswith("_at_ns") else name: (
            datetime.fromtimestamp(value / 1e9, UTC).isoformat(timespec="milliseconds")
            if isinstance(value, int) and name.endswith("_at_ns")
            else value
        )
        for name, value in row.items()
    }


def _csv(names: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([_harmless(row[name]) for name in names] for row in rows)
    return text.getvalue()


def _harmless(value: Cell) -> Cell:
    """Text that a spreadsheet would run gets an apostrophe before it; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_RISKY) else value


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    archive.writestr(entry, text.encode())


def _readme(account_id: AccountId, counts: Mapping[str, int], now_ns: int) -> str:
    at = datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(timespec="seconds")
    parts = [f"Everything that is kept about the account {account_id}, read at {at}.\n"]
    parts.append("Prompts and answers are not among it, because they are never kept. Amounts are nano-USD.\n")
    parts += [_described(table, entry, counts[table.name]) for table, entry in owned_tables()]
    return "\n".join(parts)


def _described(table: Table, entry: TableEntry, count: int) -> str:
    shown = set(shown_columns(table))
    lines = [f"{table.name} ({count} rows): {entry.entry.purpose}. Kept: {entry.entry.lifetime}."]
    for column in entry.columns:
        name = column.name.partition(".")[2]
        lines.append(f"  {name}: {column.purpose}{'' if name in shown else ' (left out)'}")
    return "\n".join(lines) + "\n"

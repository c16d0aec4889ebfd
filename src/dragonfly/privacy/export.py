"""Everything that is kept about one account, as a ZIP of JSON and CSV, made from the inventory.

Each table is a pair of files; `README.txt` says what every column is for. Left out are keyed digests and hashes,
which are worth nothing to their owner and something to a thief; README.txt names them. The ZIP is made while it is
read, from one snapshot and in bounded memory, so that no copy of the data lies around anywhere.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import Connection, LargeBinary, Table, select

from dragonfly.accounts.actions import AccountNotFound
from dragonfly.accounts.queries import account_by_id
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import allow_long_statements, allow_pauses
from dragonfly.privacy.inventory import TableEntry
from dragonfly.privacy.ownership import owned_tables, rows_of

PIECE_BYTES = 64 * 1024
ROWS_AT_ONCE = 500
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The same data gives the same bytes."""
_WITHHELD = re.compile(r"(^|_)(digest|hash|salt|claim)($|_)")
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet would run as a formula."""

Cell = str | int | float | None


class _Sink(io.RawIOBase):
    """Where the ZIP is written: a file that cannot be sought in, emptied again and again."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(cast("bytes", data))
        self._held += view
        return len(view)

    def __len__(self) -> int:
        return len(self._held)

    def take(self) -> bytes:
        taken, self._held = bytes(self._held), bytearray()
        return taken


class Export:
    """One ZIP. Its pieces can be read once."""

    def __init__(self, connection: Connection, account_id: AccountId, *, now_ns: int) -> None:
        """Reads in the caller's snapshot. AccountNotFound."""
        if account_by_id(connection, account_id) is None:
            raise AccountNotFound
        self._connection = connection
        self._account_id = account_id
        self._now_ns = now_ns
        self.rows: dict[str, int] = {}
        """By table, those without rows included; complete when the pieces have been read."""

    def pieces(self) -> Iterator[bytes]:
        """The ZIP in pieces of about 64 KiB."""
        allow_long_statements(self._connection)
        allow_pauses(self._connection)
        sink = _Sink()
        with zipfile.ZipFile(cast("io.BytesIO", sink), "w", zipfile.ZIP_DEFLATED) as archive:
            for name, texts in self._files():
                with archive.open(_entry(name), "w", force_zip64=True) as file:
                    for text in texts:
                        file.write(text.encode())
                        if len(sink) >= PIECE_BYTES:
                            yield sink.take()
        yield sink.take()

    def _files(self) -> Iterator[tuple[str, Iterable[str]]]:
        for table, _ in owned_tables():
            yield f"{table.name}.json", self._json(table)
            yield f"{table.name}.csv", self._csv(table)
        yield "README.txt", (_readme(self._account_id, self.rows, self._now_ns),)

    def _json(self, table: Table) -> Iterator[str]:
        self.rows[table.name] = 0
        before = "["
        for row in self._read(table):
            self.rows[table.name] += 1
            yield f"{before}\n {json.dumps(_dated(row), ensure_ascii=False)}"
            before = ","
        yield "[]\n" if before == "[" else "\n]\n"

    def _csv(self, table: Table) -> Iterator[str]:
        names = shown_columns(table)
        yield _csv_line(names)
        for row in self._read(table):
            yield _csv_line([_harmless(row[name]) for name in names])

    def _read(self, table: Table) -> Iterator[Mapping[str, Cell]]:
        columns = [table.c[name] for name in shown_columns(table)]
        wanted = select(*columns).where(rows_of(table, self._account_id)).order_by(*table.primary_key.columns)
        found = self._connection.execute(wanted, execution_options={"yield_per": ROWS_AT_ONCE})
        for row in found.mappings():
            yield cast("Mapping[str, Cell]", row)


def shown_columns(table: Table) -> tuple[str, ...]:
    """Columns that an export holds."""
    return tuple(
        column.name
        for column in table.columns
        if not isinstance(column.type, LargeBinary) and not _WITHHELD.search(column.name)
    )


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


def _csv_line(cells: Sequence[Cell]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(cells)
    return text.getvalue()


def _harmless(value: Cell) -> Cell:
    """Text that a spreadsheet would run gets an apostrophe before it; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_RISKY) else value


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


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

"""The inventory: everything that Dragonfly keeps, says or sends, with purpose, category, lifetime and legal basis.

Tables carry theirs in `info`, beside their columns:

    info={"purpose": …, "category": "usage", "lifetime": "90 days", "since": "created_at_ns",
          "columns": {"model": "Which model was asked for", …}}

A column may say its purpose in its own `info` or in `purposes` instead, and in its own `info` also another category,
lifetime or basis than its table's. `since` names the column that a counted lifetime counts from: retention deletes
by it. A lifetime is "N days" (or hours, minutes), "account" (until the account is erased), "books" (with the ledger;
erasure leaves a random id without a person), "installation" (no data of people), or a short phrase.
"""

import enum
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Column, Table

import dragonfly
from dragonfly.infra.database import SCHEMA
from dragonfly.privacy.purposes import COLUMNS, COMMON

ACCOUNT = "account"
BOOKS = "books"
MODULES_OF_TABLES = ("tables", "changes", "repeats")
"""Of each package; the others are not loaded to find tables."""
_COUNTED = re.compile(r"([0-9]{1,4}) (days|hours|minutes)\b")
_NS = {"days": 86_400_000_000_000, "hours": 3_600_000_000_000, "minutes": 60_000_000_000}


class Category(enum.Enum):
    """What kind of data it is. There is no member for content: prompts and answers have no place to be."""

    ACCOUNT = "account"
    PAYMENT = "payment"
    USAGE = "usage"
    OPERATION = "operation"
    """How the machine runs; nothing about people."""


BASES = {
    Category.ACCOUNT: "contract",
    Category.PAYMENT: "legal obligation",
    Category.USAGE: "contract",
    Category.OPERATION: "none needed",
}
"""The usual legal basis of each category: Article 6(1) b, c and, where a table says so, f of the GDPR."""


class InventoryIncomplete(Exception):
    """Something is kept that nobody has accounted for; the text names it and says what to write."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that is kept."""

    name: str
    purpose: str
    category: Category
    lifetime: str
    basis: str


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One table, its columns in their order."""

    entry: Entry
    columns: tuple[Entry, ...]
    since: str
    """The column that the lifetime counts from; "" when nothing is counted."""

    @property
    def lifetime_ns(self) -> int | None:
        """How long after `since` retention deletes a row; None when something else ends it."""
        counted = _COUNTED.match(self.entry.lifetime)
        return int(counted[1]) * _NS[counted[2]] if counted and self.since else None


def all_tables() -> tuple[Table, ...]:
    """Every table of Dragonfly, those that are referred to first."""
    for package in pkgutil.iter_modules(dragonfly.__path__, "dragonfly."):
        for module in MODULES_OF_TABLES if package.ispkg else ():
            if importlib.util.find_spec(f"{package.name}.{module}"):
                importlib.import_module(f"{package.name}.{module}")
    return tuple(SCHEMA.sorted_tables)


def described_tables() -> tuple[TableEntry, ...]:
    """The inventory of the database, by name. InventoryIncomplete for a table or column without an entry."""
    return tuple(describe_table(table) for table in sorted(all_tables(), key=lambda table: table.name))


def describe_table(table: Table) -> TableEntry:
    """What one table says about itself."""
    entry = _entry(table.name, table.info, {})
    here = {**table.info.get("columns", {}), **COLUMNS.get(table.name, {})}
    unknown = set(here) - set(table.columns.keys())
    if unknown:
        raise InventoryIncomplete(
            f"{table.name}: info names columns that are not there: {', '.join(sorted(unknown))}."
        )
    columns = tuple(_column(column, {**COMMON, **here}, table) for column in table.columns)
    since = str(table.info.get("since", ""))
    if since and since not in table.columns:
        raise InventoryIncomplete(f"{table.name}: since names {since}, which is no column.")
    return TableEntry(entry, columns, since)


def _column(column: Column[object], purposes: Mapping[str, str], table: Table) -> Entry:
    own = {"purpose": purposes.get(column.name, ""), **column.info}
    return _entry(f"{table.name}.{column.name}", own, table.info)


def _entry(name: str, own: Mapping[str, object], inherited: Mapping[str, object]) -> Entry:
    """An entry out of what a thing says itself and, but for the purpose, what its table says."""
    purpose = own.get("purpose")
    category = own.get("category", inherited.get("category"))
    lifetime = own.get("lifetime", inherited.get("lifetime"))
    missing = [
        word for word, value in (("purpose", purpose), ("category", category), ("lifetime", lifetime)) if not value
    ]
    if missing:
        raise InventoryIncomplete(f"{name}: info lacks {', '.join(missing)}; see dragonfly/privacy/inventory.py.")
    try:
        kind = Category(category)
    except ValueError:
        known = ", ".join(member.value for member in Category)
        raise InventoryIncomplete(f"{name}: the category must be one of {known}; content is never kept.") from None
    basis = own.get("basis", inherited.get("basis", BASES[kind]))
    return Entry(name, str(purpose), kind, str(lifetime), str(basis))


def personal_tables() -> Iterator[tuple[Table, TableEntry]]:
    """Tables whose rows belong to an account."""
    for table in all_tables():
        described = describe_table(table)
        if described.entry.category is not Category.OPERATION:
            yield table, described

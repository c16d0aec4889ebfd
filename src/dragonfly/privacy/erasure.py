"""The end of an account: keys and sessions dead at once, everything about the person gone, amounts left under an id.

What a table's category says decides: rows of category account are deleted; payment and usage rows stay for the time
that the inventory gives, because the books must prove themselves, and lead to nobody any more. Of accounts and keys
the row stays, since the books refer to it, without anything that was in it.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, Table, and_, delete, func, select, update

from dragonfly.accounts.actions import AccountNotFound, freeze_account
from dragonfly.accounts.queries import account_by_id
from dragonfly.accounts.tables import accounts
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.changes import record_change
from dragonfly.infra.database import allow_long_statements
from dragonfly.keys.tables import keys
from dragonfly.ledger.tables import wallets
from dragonfly.privacy.inventory import ACCOUNT, Category, TableEntry
from dragonfly.privacy.obstacles import SENTENCES, obstacles
from dragonfly.privacy.ownership import EMPTIED, OWNED_BY_NOBODY, OWNER, owned_tables, rows_of

DIGEST_BYTES = 32
STAYS_WHY = {
    Category.PAYMENT: "the books must be kept and prove themselves; amounts under an id that leads to nobody",
    Category.USAGE: "proves the charges in the books; counts under an id that leads to nobody",
}


class ErasureRefused(DragonflyError):
    """Something must be settled first; the sentence says what."""

    code = "erasure_refused"


class Stays(NamedTuple):
    """Rows that are kept, and why."""

    table: str
    purpose: str
    rows: int
    why: str
    until: str
    """The lifetime that the inventory gives."""
    lifetime_ns: int | None
    """Of a row, counted from its own time; None where something else ends it."""


class Certificate(NamedTuple):
    """What an erasure did."""

    account_id: str
    erased_at_ns: int
    deleted: Mapping[str, int]
    """Rows by table."""
    emptied: Mapping[str, int]
    """Rows that stay without their values."""
    stays: tuple[Stays, ...]
    without_owner: Mapping[str, str]
    """Tables that know no account, and what they hold."""
    balance_given_up_nusd: int


def erase_account(
    connection: Connection, account_id: AccountId, *, now_ns: int, gives_up_balance: bool = False
) -> Certificate:
    """Erases in the caller's transaction; running processes refuse the keys within a second.

    AccountNotFound; ErasureRefused while a dispute is open, requests are running, or a balance is left that has not
    been paid back or given up. Doing it again finds nothing more to delete.
    """
    account = account_by_id(connection, account_id)
    if account is None:
        raise AccountNotFound
    in_the_way = obstacles(connection, account_id, gives_up_balance=gives_up_balance)
    if in_the_way:
        raise ErasureRefused(SENTENCES[in_the_way[0]])
    allow_long_statements(connection)
    freeze_account(connection, account_id, is_frozen=True, now_ns=now_ns)
    for key_id in connection.execute(select(keys.c.id).where(keys.c.account_id == account_id)).scalars():
        record_change(connection, f"key/{key_id}")
    emptied = {
        "accounts": _empty_account(connection, account_id),
        "keys": _empty_keys(connection, account_id, now_ns),
    }
    deleted, stays = {}, []
    for table, entry in reversed(owned_tables()):
        if table.name in emptied:
            continue
        if is_deleted(table, entry):
            deleted[table.name] = _delete(connection, table, account_id, account.email)
        else:
            if table.name in EMPTIED:
                values = EMPTIED[table.name]
                connection.execute(update(table).where(rows_of(table, account_id)).values(values))
            stays.append(_kept(connection, table, entry, account_id))
    balance = _balance(connection, account_id)
    return Certificate(account_id, now_ns, deleted, emptied, tuple(stays), OWNED_BY_NOBODY, balance)


def is_deleted(table: Table, entry: TableEntry) -> bool:
    """Whether an erasure deletes the rows: those about the person, and payment rows that live as long as the account.
    A table whose `info` says why it stays is kept."""
    is_about_person = entry.entry.category is Category.ACCOUNT or entry.entry.lifetime == ACCOUNT
    return is_about_person and "stays" not in table.info


def erased_tables() -> tuple[str, ...]:
    """Names of the tables in which an erasure may leave traces in the files."""
    return tuple(
        table.name
        for table, entry in owned_tables()
        if is_deleted(table, entry) or table.name in EMPTIED or "stays" in table.info
    )


def _delete(connection: Connection, table: Table, account_id: AccountId, address: str | None) -> int:
    """The account's rows, and those that name no account but the same address, such as a ticket from before."""
    count = connection.execute(delete(table).where(rows_of(table, account_id))).rowcount
    if address and OWNER in table.c and "address" in table.c:
        stray = and_(table.c[OWNER].is_(None), func.lower(table.c.address) == address.lower())
        count += connection.execute(delete(table).where(stray)).rowcount
    return count


def _kept(connection: Connection, table: Table, entry: TableEntry, account_id: AccountId) -> Stays:
    wanted = select(func.count()).select_from(table).where(rows_of(table, account_id))
    count = connection.execute(wanted).scalar_one()
    why = table.info.get("stays") or STAYS_WHY[entry.entry.category]
    return Stays(table.name, entry.entry.purpose, count, str(why), entry.entry.lifetime, entry.lifetime_ns)


def _balance(connection: Connection, account_id: AccountId) -> int:
    wanted = select(wallets.c.balance_nusd).where(wallets.c.account_id == account_id)
    return int(connection.execute(wanted).scalar_one_or_none() or 0)


def _empty_account(connection: Connection, account_id: AccountId) -> int:
    emptied = update(accounts).where(accounts.c.id == account_id)
    return connection.execute(emptied.values(name="", email=None, verified_at_ns=None)).rowcount


def _empty_keys(connection: Connection, account_id: AccountId, now_ns: int) -> int:
    """Every key is revoked, its digest replaced by one of nothing, its labels gone."""
    found = list(connection.execute(select(keys.c.id).where(keys.c.account_id == account_id)).scalars())
    values = _emptied_key(now_ns)
    for key_id in found:
        connection.execute(
            update(keys).where(keys.c.id == key_id).values({**values, "digest": os.urandom(DIGEST_BYTES)})
        )
    return len(found)


def _emptied_key(now_ns: int) -> dict[str, object]:
    absent = ("models", "routing_profile_id", "previous_digest", "previous_pepper_version", "previous_until_ns")
    return {**dict.fromkeys(absent), "hint": "", "name": "", "key_group": "", "revoked_at_ns": now_ns}

"""The end of an account: keys and sessions dead at once, everything about the person gone, amounts left under an id.

What a table's category says decides: rows of category account are deleted; payment and usage rows stay for the time
that the inventory gives, because the books must prove themselves, and lead to nobody any more. Of accounts and keys
the row stays, since the books refer to it, without anything that was in it.
"""

import hmac
import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select, update

from dragonfly.accounts.actions import AccountNotFound, freeze_account
from dragonfly.accounts.queries import account_by_id
from dragonfly.accounts.tables import accounts
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.changes import record_change
from dragonfly.keys.tables import keys
from dragonfly.ledger.tables import disputes, wallets
from dragonfly.privacy.inventory import Category
from dragonfly.privacy.ownership import OWNED_BY_NOBODY, owned_tables, rows_of

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
    rows: int
    why: str
    until: str


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
    if account_by_id(connection, account_id) is None:
        raise AccountNotFound
    balance = _settled_balance(connection, account_id, gives_up_balance=gives_up_balance)
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
        condition = rows_of(table, account_id)
        if entry.entry.category is Category.ACCOUNT:
            deleted[table.name] = connection.execute(delete(table).where(condition)).rowcount
            continue
        count = connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()
        stays.append(Stays(table.name, count, STAYS_WHY[entry.entry.category], entry.entry.lifetime))
    return Certificate(account_id, now_ns, deleted, emptied, tuple(stays), OWNED_BY_NOBODY, balance)


def _settled_balance(connection: Connection, account_id: AccountId, *, gives_up_balance: bool) -> int:
    """The balance that is given up; ErasureRefused when something is open."""
    open_ones = select(func.count()).select_from(disputes).where(disputes.c.account_id == account_id)
    if connection.execute(open_ones.where(disputes.c.state == "open")).scalar_one():
        raise ErasureRefused("A dispute about a payment of this account is open. Erase it when the bank has decided.")
    wallet = connection.execute(select(wallets).where(wallets.c.account_id == account_id)).mappings().one_or_none()
    if wallet is None:
        return 0
    if wallet["leased_nusd"]:
        raise ErasureRefused("Requests of this account are running. Freeze it, wait a minute, then erase it.")
    if wallet["balance_nusd"] and not gives_up_balance:
        raise ErasureRefused("The account has a balance. Pay it back first, or have its owner give it up.")
    return int(wallet["balance_nusd"])


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


def signed_certificate(certificate: Certificate, key: bytes) -> str:
    """The certificate as JSON, with its signature by this installation (HMAC-SHA256 over the canonical fields)."""
    fields = {**certificate._asdict(), "stays": [one._asdict() for one in certificate.stays]}
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    signature = hmac.digest(key, canonical, "sha256").hex()
    return json.dumps({"certificate": fields, "signature": signature}, indent=2, sort_keys=True)

"""Writes groups into the journal. Every write of money goes through here, or through a batch of settlements."""

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.money import NUSD_PER_USD
from dragonfly.infra.database import insert_missing
from dragonfly.ledger.rules import BookKind, Posting, account_book, check
from dragonfly.ledger.tables import books, entries, entry_groups, wallets

AMOUNT_NUSD_MAX = 1_000_000 * NUSD_PER_USD
"""Of one grant, payment, refund, dispute, fee or payout."""
BALANCE_NUSD_MAX = 1_000_000_000 * NUSD_PER_USD
KEY_LENGTH_MAX = 200
"""Of idempotency keys, references, reasons and the ids of refunds and disputes."""


class CreditInvalid(DragonflyError):
    """An amount, an idempotency key or a text out of bounds."""

    code = "credit_invalid"

    def __init__(self) -> None:
        super().__init__(
            "An amount is more than 0 and at most 1,000,000 USD, a balance at most 1,000,000,000 USD, and ids,"
            " references and idempotency keys have 1 to 200 printable characters."
        )


class IdempotencyConflict(DragonflyError):
    """The key was used for another amount."""

    code = "idempotency_conflict"
    status = 409

    def __init__(self) -> None:
        super().__init__("This idempotency key was used for another amount. Choose a new key for a new grant.")


class WalletOwnerUnknown(DragonflyError):
    code = "account_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such account. Copy the whole id (acc-…).")


def require_valid(amount_nusd: int, *keys: str) -> None:
    """CreditInvalid unless the amount and the keys are within their bounds."""
    are_keys_fine = all(0 < len(key) <= KEY_LENGTH_MAX and key.isprintable() for key in keys)
    if not (0 < amount_nusd <= AMOUNT_NUSD_MAX and are_keys_fine):
        raise CreditInvalid


def post(connection: Connection, posting: Posting, *, now_ns: int) -> bool:
    """Writes a group and its entries; False when a group with that id is there already. The books are open."""
    check(posting)
    group = {
        "id": posting.id,
        "kind": posting.kind,
        "account_id": posting.account_id,
        "created_at_ns": now_ns,
    }
    if not insert_missing(connection, entry_groups, group):
        return False
    rows = [
        {"group_id": posting.id, "book_id": entry.book_id, "amount_nusd": entry.amount_nusd}
        for entry in posting.entries
    ]
    connection.execute(insert(entries), rows)
    return True


def record(connection: Connection, posting: Posting, *, now_ns: int) -> bool:
    """The same for rare events, whose books may not be open yet: opens them."""
    for entry in posting.entries:
        kind, _, _ = entry.book_id.partition("/")
        has_owner = entry.book_id == account_book(BookKind(kind), AccountId(posting.account_id or ""))
        owner = posting.account_id if has_owner else None
        insert_missing(connection, books, {"id": entry.book_id, "kind": kind, "account_id": owner})
    return post(connection, posting, now_ns=now_ns)


def posted_nusd(connection: Connection, group_id: str, book_id: str) -> int | None:
    """What a group put into a book; None when there is no such entry."""
    wanted = select(entries.c.amount_nusd).where(entries.c.group_id == group_id, entries.c.book_id == book_id)
    return connection.execute(wanted).scalar_one_or_none()


def open_wallet(connection: Connection, account_id: AccountId) -> None:
    """Makes the wallet and its books if they are not there yet, and locks the wallet until the transaction ends.

    Whoever changes an account's money locks its wallet first: one order everywhere, so that no two wait for each
    other. WalletOwnerUnknown.
    """
    empty = {"account_id": account_id, "balance_nusd": 0, "leased_nusd": 0, "charged_nusd": 0}
    try:
        insert_missing(connection, wallets, empty)
    except IntegrityError:
        raise WalletOwnerUnknown from None
    for kind in (BookKind.PAID, BookKind.PROMO, BookKind.LEASED):
        row = {"id": account_book(kind, account_id), "kind": kind.value, "account_id": account_id}
        insert_missing(connection, books, row)
    lock_wallet(connection, account_id)


def lock_wallet(connection: Connection, account_id: AccountId) -> int:
    """Locks the wallet until the transaction ends; what it has available, 0 when there is none."""
    wanted = select(wallets.c.balance_nusd - wallets.c.leased_nusd).where(wallets.c.account_id == account_id)
    return connection.execute(wanted.with_for_update()).scalar_one_or_none() or 0


def debit(connection: Connection, account_id: AccountId, amount_nusd: int) -> None:
    """Takes from what the wallet has available, only where that covers it."""
    wanted = update(wallets).where(
        wallets.c.account_id == account_id, wallets.c.balance_nusd - wallets.c.leased_nusd >= amount_nusd
    )
    taken = connection.execute(wanted.values(balance_nusd=wallets.c.balance_nusd - amount_nusd)).rowcount
    assert taken == 1, "the wallet is locked, so it has what its lots have"


def credit(connection: Connection, account_id: AccountId, amount_nusd: int) -> None:
    """Adds to the wallet. CreditInvalid when it would be too full."""
    wanted = update(wallets).where(
        wallets.c.account_id == account_id, wallets.c.balance_nusd <= BALANCE_NUSD_MAX - amount_nusd
    )
    if not connection.execute(wanted.values(balance_nusd=wallets.c.balance_nusd + amount_nusd)).rowcount:
        raise CreditInvalid

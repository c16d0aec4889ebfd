"""What writes the books by hand's pace: credit. Requests are settled in batches by `dragonfly.admission.writer`."""

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.money import NUSD_PER_USD
from dragonfly.infra.database import insert_missing
from dragonfly.ledger.queries import Wallet, wallet_of
from dragonfly.ledger.rules import PROMO_COST_BOOK, BookKind, Posting, check, customer_book, grant
from dragonfly.ledger.tables import books, entries, entry_groups, wallets

GRANT_NUSD_MAX = 1_000_000 * NUSD_PER_USD
BALANCE_NUSD_MAX = 1_000_000_000 * NUSD_PER_USD
IDEMPOTENCY_KEY_LENGTH_MAX = 200


class CreditInvalid(DragonflyError):
    """An amount, or an idempotency key, out of bounds."""

    code = "credit_invalid"

    def __init__(self) -> None:
        super().__init__(
            "Credit is more than 0 and at most 1,000,000 USD per grant, a balance at most 1,000,000,000 USD,"
            " and the idempotency key has 1 to 200 printable characters."
        )


class IdempotencyConflict(DragonflyError):
    """The key was used for another amount."""

    code = "idempotency_conflict"

    def __init__(self) -> None:
        super().__init__("This idempotency key was used for another amount. Choose a new key for a new grant.")


class WalletOwnerUnknown(DragonflyError):
    code = "account_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such account. Copy the whole id (acc-…).")


def grant_credit(
    connection: Connection, account_id: AccountId, *, amount_nusd: int, idempotency_key: str, now_ns: int
) -> Wallet:
    """Gives credit, once per idempotency key and account; the same call again changes nothing.

    Returns the wallet as it is now. The first credit opens the wallet.
    """
    is_key_fine = 0 < len(idempotency_key) <= IDEMPOTENCY_KEY_LENGTH_MAX and idempotency_key.isprintable()
    if not (0 < amount_nusd <= GRANT_NUSD_MAX and is_key_fine):
        raise CreditInvalid
    _open_wallet(connection, account_id)
    posting = grant(f"grant/{account_id}/{idempotency_key}", account_id, amount_nusd)
    if post(connection, posting, now_ns=now_ns):
        credited = update(wallets).where(
            wallets.c.account_id == account_id, wallets.c.balance_nusd <= BALANCE_NUSD_MAX - amount_nusd
        )
        if not connection.execute(credited.values(balance_nusd=wallets.c.balance_nusd + amount_nusd)).rowcount:
            raise CreditInvalid
    elif _granted_nusd(connection, posting) != amount_nusd:
        raise IdempotencyConflict
    wallet = wallet_of(connection, account_id)
    assert wallet is not None, "it was opened above"
    return wallet


def post(connection: Connection, posting: Posting, *, now_ns: int) -> bool:
    """Writes a group and its entries; False when a group with that id is there already."""
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


def open_book(connection: Connection, kind: BookKind, book_id: str, account_id: AccountId | None = None) -> None:
    """Makes the book if it is not there yet."""
    insert_missing(connection, books, {"id": book_id, "kind": kind.value, "account_id": account_id})


def _open_wallet(connection: Connection, account_id: AccountId) -> None:
    empty = {"account_id": account_id, "balance_nusd": 0, "leased_nusd": 0, "charged_nusd": 0}
    try:
        insert_missing(connection, wallets, empty)
    except IntegrityError:
        raise WalletOwnerUnknown from None
    open_book(connection, BookKind.CUSTOMER, customer_book(account_id), account_id)
    open_book(connection, BookKind.PROMO_COST, PROMO_COST_BOOK)


def _granted_nusd(connection: Connection, posting: Posting) -> int | None:
    wanted = select(entries.c.amount_nusd).where(
        entries.c.group_id == posting.id, entries.c.book_id == posting.entries[0].book_id
    )
    return connection.execute(wanted).scalar_one_or_none()

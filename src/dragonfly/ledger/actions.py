"""Credit that comes, credit that expires, and what moves between us and Stripe. Amounts in nano-USD.

Each action runs inside a transaction that its caller opened, and is idempotent: the same call again changes nothing.
Requests are settled in batches by `dragonfly.admission.writer`; refunds and disputes have files of their own.
"""

from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from dragonfly.core.ids import AccountId
from dragonfly.ledger.journal import (
    IdempotencyConflict,
    credit,
    debit,
    lock_wallet,
    open_wallet,
    posted_nusd,
    record,
    require_valid,
)
from dragonfly.ledger.queries import Wallet, wallet_of
from dragonfly.ledger.rules import PROMO_COST_BOOK, BookKind, Posting, Source, account_book, make_posting
from dragonfly.ledger.tables import lots

EXPIRIES_PAGE_MAX = 100
"""Lots that expire in one transaction."""
_CLEARING = BookKind.STRIPE_CLEARING.value
_BANK = BookKind.BANK.value
_FEES = BookKind.FEES.value
_TAX = BookKind.TAX.value


class Extras(NamedTuple):
    """What a customer paid with a top-up beside the credit."""

    fee_nusd: int = 0
    tax_nusd: int = 0


NO_EXTRAS = Extras()


class _Credit(NamedTuple):
    """A lot to be made by a posting, and the shared book that pays it."""

    posting: Posting
    source: Source
    amount_nusd: int
    paying_book: str
    reference: str
    expires_at_ns: int | None = None


def grant_credit(
    connection: Connection,
    account_id: AccountId,
    *,
    amount_nusd: int,
    idempotency_key: str,
    now_ns: int,
    expires_at_ns: int | None = None,
    reason: str = "",
) -> Wallet:
    """Gives promotional credit, once per idempotency key and account; without an expiry it stays until it is spent.

    Returns the wallet as it is now. The first credit opens the wallet. CreditInvalid, IdempotencyConflict when the
    key was used for another amount, WalletOwnerUnknown.
    """
    require_valid(amount_nusd, idempotency_key, reason or "-")
    amounts = [(account_book(BookKind.PROMO, account_id), amount_nusd), (PROMO_COST_BOOK, -amount_nusd)]
    posting = make_posting(f"grant/{account_id}/{idempotency_key}", "grant", account_id, amounts)
    given = _Credit(posting, Source.PROMO, amount_nusd, PROMO_COST_BOOK, reason, expires_at_ns)
    return _add(connection, account_id, given, now_ns)


def top_up(
    connection: Connection,
    account_id: AccountId,
    *,
    amount_nusd: int,
    idempotency_key: str,
    reference: str,
    now_ns: int,
    extras: Extras = NO_EXTRAS,
) -> Wallet:
    """Credit that was paid through Stripe: `amount_nusd` of it, once per idempotency key and account.

    `reference` names the payment, so that refunds and disputes find its lot. `extras` is what the customer paid on
    top of the credit. Returns the wallet as it is now. Errors as grant_credit.
    """
    require_valid(amount_nusd, idempotency_key, reference)
    paid = amount_nusd + extras.fee_nusd + extras.tax_nusd
    require_valid(paid)
    assert min(extras) >= 0, "extras are paid, not given"
    amounts = [(account_book(BookKind.PAID, account_id), amount_nusd), (_CLEARING, -paid)]
    amounts += [(_FEES, extras.fee_nusd), (_TAX, extras.tax_nusd)]
    posting = make_posting(f"top_up/{account_id}/{idempotency_key}", "top_up", account_id, amounts)
    return _add(connection, account_id, _Credit(posting, Source.PAID, amount_nusd, _CLEARING, reference), now_ns)


def record_fee(connection: Connection, *, reference: str, amount_nusd: int, now_ns: int) -> None:
    """What Stripe kept for itself, e.g. of one payment or for one dispute; once per reference."""
    _move(connection, f"fee/{reference}", "fee", reference, (_FEES, _CLEARING, amount_nusd), now_ns)


def record_payout(connection: Connection, *, reference: str, amount_nusd: int, now_ns: int) -> None:
    """What Stripe paid out to our bank; once per reference."""
    _move(connection, f"payout/{reference}", "payout", reference, (_BANK, _CLEARING, amount_nusd), now_ns)


def return_tax(connection: Connection, *, reference: str, amount_nusd: int, now_ns: int) -> None:
    """Tax that went back with a refund, or with a dispute that was lost; once per reference."""
    _move(connection, f"tax_return/{reference}", "tax_return", reference, (_TAX, _CLEARING, amount_nusd), now_ns)


def expire_credit(connection: Connection, *, now_ns: int) -> int:
    """Takes back a page of promotional credit that has expired, except what workers have leased of it; how many
    lots. Call again while it is the maximum."""
    wanted = select(lots.c.id, lots.c.account_id).where(lots.c.remaining_nusd > 0, lots.c.expires_at_ns <= now_ns)
    page = connection.execute(wanted.order_by(lots.c.expires_at_ns).limit(EXPIRIES_PAGE_MAX)).all()
    # In the order in which everybody locks wallets.
    for lot_id, account_id in sorted(page, key=lambda lot: (lot.account_id, lot.id)):
        _expire(connection, AccountId(account_id), lot_id, now_ns)
    return len(page)


def _add(connection: Connection, account_id: AccountId, given: _Credit, now_ns: int) -> Wallet:
    open_wallet(connection, account_id)
    posting = given.posting
    if record(connection, posting, now_ns=now_ns):
        lot = {
            "id": posting.id,
            "account_id": account_id,
            "source": given.source.value,
            "amount_nusd": given.amount_nusd,
            "remaining_nusd": given.amount_nusd,
            "expires_at_ns": given.expires_at_ns,
            "reference": given.reference,
            "created_at_ns": now_ns,
        }
        connection.execute(insert(lots).values(lot))
        credit(connection, account_id, given.amount_nusd)
    else:
        paid = -sum(entry.amount_nusd for entry in posting.entries if entry.book_id == given.paying_book)
        if posted_nusd(connection, posting.id, given.paying_book) != -paid:
            raise IdempotencyConflict
    wallet = wallet_of(connection, account_id)
    assert wallet is not None, "it was opened above"
    return wallet


def _move(
    connection: Connection, posting_id: str, kind: str, reference: str, move: tuple[str, str, int], now_ns: int
) -> None:
    """Moves an amount that we own from one shared book (the second) to another (the first)."""
    to_book, from_book, amount_nusd = move
    require_valid(amount_nusd, reference)
    posting = make_posting(posting_id, kind, None, [(to_book, -amount_nusd), (from_book, amount_nusd)])
    is_new = record(connection, posting, now_ns=now_ns)
    if not is_new and posted_nusd(connection, posting.id, from_book) != amount_nusd:
        raise IdempotencyConflict


def _expire(connection: Connection, account_id: AccountId, lot_id: str, now_ns: int) -> None:
    lock_wallet(connection, account_id)
    is_lot = lots.c.id == lot_id
    remaining = connection.execute(select(lots.c.remaining_nusd).where(is_lot)).scalar_one()
    if not remaining:
        return  # somebody else was first
    connection.execute(update(lots).where(is_lot).values(remaining_nusd=0))
    debit(connection, account_id, remaining)
    # A lease may bring some back later, which expires then: the time makes the id another one.
    amounts = [(account_book(BookKind.PROMO, account_id), -remaining), (PROMO_COST_BOOK, remaining)]
    posting = make_posting(f"expire/{now_ns}/{lot_id}", "expire", account_id, amounts)
    is_new = record(connection, posting, now_ns=now_ns)
    assert is_new, "a lot expires once at a time"

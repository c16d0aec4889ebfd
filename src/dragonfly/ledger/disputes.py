"""Disputes: the payer's bank demands a payment back. Amounts in nano-USD.

When a dispute opens, the wallet gives what it has available, never more: the rest was spent already and becomes a
receivable. A dispute that is won gives everything back; one that is lost pays the bank and writes the rest off. Each
action runs inside a transaction that its caller opened, and is idempotent.
"""

from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.ledger.journal import (
    IdempotencyConflict,
    credit,
    debit,
    lock_wallet,
    open_wallet,
    record,
    require_valid,
)
from dragonfly.ledger.lots import Drawing, draw, give_back
from dragonfly.ledger.rules import BookKind, account_book, drawn_amounts, make_posting
from dragonfly.ledger.tables import disputes


class DisputeNotOpen(DragonflyError):
    """There is no such dispute, or it was decided the other way."""

    code = "dispute_not_open"

    def __init__(self) -> None:
        super().__init__("There is no such dispute, or it was decided otherwise. Look at its state.")


class Taken(NamedTuple):
    """What a dispute did to the wallet."""

    taken_nusd: int
    shortfall_nusd: int
    """Spent already, so owed by the customer."""


def open_dispute(
    connection: Connection,
    account_id: AccountId,
    *,
    dispute_id: str,
    amount_nusd: int,
    now_ns: int,
    reference: str = "",
) -> Taken:
    """Takes what the wallet has available: first the credit of the disputed payment (`reference`), then other paid
    credit, then promotional. CreditInvalid, IdempotencyConflict, WalletOwnerUnknown."""
    require_valid(amount_nusd, dispute_id, reference or "-")
    open_wallet(connection, account_id)
    wanted = select(disputes.c.account_id, disputes.c.amount_nusd, disputes.c.taken_nusd)
    row = connection.execute(wanted.where(disputes.c.id == dispute_id)).one_or_none()
    if row is not None:
        if row[:2] != (account_id, amount_nusd):
            raise IdempotencyConflict
        return Taken(row.taken_nusd, amount_nusd - row.taken_nusd)
    taken = min(amount_nusd, lock_wallet(connection, account_id))
    opened = {
        "id": dispute_id,
        "account_id": account_id,
        "amount_nusd": amount_nusd,
        "taken_nusd": taken,
        "state": "open",
        "created_at_ns": now_ns,
    }
    connection.execute(insert(disputes).values(opened))
    amounts = [(account_book(BookKind.DISPUTE, account_id), amount_nusd)]
    amounts.append((account_book(BookKind.RECEIVABLE, account_id), taken - amount_nusd))
    amounts += _take(connection, account_id, dispute_id, taken, reference)
    posting = make_posting(f"dispute_open/{dispute_id}", "dispute_open", account_id, amounts)
    record(connection, posting, now_ns=now_ns)
    return Taken(taken, amount_nusd - taken)


def win_dispute(connection: Connection, account_id: AccountId, *, dispute_id: str, now_ns: int) -> None:
    """The payment stands: the wallet gets back what was taken, into the same lots. DisputeNotOpen."""
    lock_wallet(connection, account_id)
    closed = _close(connection, account_id, dispute_id, "won", now_ns)
    if closed is None:
        return
    taken, shortfall = closed
    amounts = [(account_book(BookKind.DISPUTE, account_id), -taken - shortfall)]
    amounts.append((account_book(BookKind.RECEIVABLE, account_id), shortfall))
    if taken:
        parts = give_back(connection, _holder(dispute_id), taken)
        credit(connection, account_id, taken)
        amounts += [(book_id, -nusd) for book_id, nusd in drawn_amounts(account_id, parts)]
    posting = make_posting(f"dispute_won/{dispute_id}", "dispute_won", account_id, amounts)
    record(connection, posting, now_ns=now_ns)


def lose_dispute(connection: Connection, account_id: AccountId, *, dispute_id: str, now_ns: int) -> None:
    """The bank has the money: Stripe's balance pays it. What the wallet did not give at first, because it was leased
    to workers, it gives now as far as it can; the rest is written off. DisputeNotOpen."""
    available = lock_wallet(connection, account_id)
    closed = _close(connection, account_id, dispute_id, "lost", now_ns)
    if closed is None:
        return
    taken, shortfall = closed
    more = min(shortfall, available)
    amounts = [
        (account_book(BookKind.DISPUTE, account_id), -taken - shortfall),
        (BookKind.STRIPE_CLEARING.value, taken + shortfall),
        (account_book(BookKind.RECEIVABLE, account_id), shortfall),
        (BookKind.WRITE_OFF.value, more - shortfall),
        *_take(connection, account_id, dispute_id, more, ""),
    ]
    connection.execute(update(disputes).where(disputes.c.id == dispute_id).values(taken_nusd=taken + more))
    posting = make_posting(f"dispute_lost/{dispute_id}", "dispute_lost", account_id, amounts)
    record(connection, posting, now_ns=now_ns)


def _take(
    connection: Connection, account_id: AccountId, dispute_id: str, amount_nusd: int, reference: str
) -> list[tuple[str, int]]:
    """Takes from the wallet and its lots; what leaves which book."""
    if not amount_nusd:
        return []
    parts = draw(connection, account_id, _holder(dispute_id), amount_nusd, Drawing.DISPUTE, reference)
    debit(connection, account_id, amount_nusd)
    return drawn_amounts(account_id, parts)


def _close(connection: Connection, account_id: AccountId, dispute_id: str, state: str, now_ns: int) -> Taken | None:
    """Decides an open dispute, once; None when it was decided so already."""
    is_dispute = (disputes.c.id == dispute_id) & (disputes.c.account_id == account_id)
    decided = update(disputes).where(is_dispute, disputes.c.state == "open")
    changed = connection.execute(decided.values(state=state, closed_at_ns=now_ns)).rowcount
    wanted = select(disputes.c.amount_nusd, disputes.c.taken_nusd, disputes.c.state).where(is_dispute)
    row = connection.execute(wanted).one_or_none()
    if row is None or row.state != state:
        raise DisputeNotOpen
    return Taken(row.taken_nusd, row.amount_nusd - row.taken_nusd) if changed else None


def _holder(dispute_id: str) -> str:
    return f"dispute/{dispute_id}"

"""Refunds: unused paid credit goes back to the payer. Amounts in nano-USD.

First the money is held, so that nobody can spend it; then Stripe is asked; then the refund is completed or cancelled.
Each action runs inside a transaction that its caller opened, and is idempotent.
"""

from sqlalchemy import Connection, insert, select, update

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.ledger.journal import (
    IdempotencyConflict,
    credit,
    debit,
    lock_wallet,
    record,
    require_valid,
)
from dragonfly.ledger.lots import Drawing, draw, give_back, refundable_nusd
from dragonfly.ledger.rules import BookKind, account_book, drawn_amounts, make_posting
from dragonfly.ledger.tables import refunds


class RefundExceedsUnused(DragonflyError):
    """There is not so much unused paid credit; some may be in the hands of workers for a moment."""

    code = "refund_exceeds_unused"

    def __init__(self, refundable_nusd: int) -> None:
        super().__init__(
            "A refund is at most the paid credit that is unused. Ask for less, or try again when no request runs."
        )
        self.refundable_nusd = refundable_nusd


class RefundNotPending(DragonflyError):
    """There is no such refund, or it ended the other way."""

    code = "refund_not_pending"

    def __init__(self) -> None:
        super().__init__("There is no such refund, or it has ended otherwise. Look at its state.")


def hold_refund(
    connection: Connection,
    account_id: AccountId,
    *,
    refund_id: str,
    amount_nusd: int,
    now_ns: int,
    reference: str = "",
) -> None:
    """Takes unused paid credit out of the wallet: that of one payment when `reference` names it, else the newest.

    CreditInvalid, RefundExceedsUnused, IdempotencyConflict when the id was used for another amount or account.
    """
    require_valid(amount_nusd, refund_id, reference or "-")
    lock_wallet(connection, account_id)
    known = select(refunds.c.account_id, refunds.c.amount_nusd).where(refunds.c.id == refund_id)
    row = connection.execute(known).one_or_none()
    if row is not None:
        if row != (account_id, amount_nusd):
            raise IdempotencyConflict
        return
    refundable = refundable_nusd(connection, account_id, reference)
    if refundable < amount_nusd:
        raise RefundExceedsUnused(refundable)
    pending = {
        "id": refund_id,
        "account_id": account_id,
        "amount_nusd": amount_nusd,
        "state": "pending",
        "created_at_ns": now_ns,
    }
    connection.execute(insert(refunds).values(pending))
    parts = draw(connection, account_id, _holder(refund_id), amount_nusd, Drawing.REFUND, reference)
    debit(connection, account_id, amount_nusd)
    amounts = [*drawn_amounts(account_id, parts), (account_book(BookKind.REFUND_PENDING, account_id), amount_nusd)]
    posting = make_posting(f"refund_hold/{refund_id}", "refund_hold", account_id, amounts)
    record(connection, posting, now_ns=now_ns)


def complete_refund(connection: Connection, account_id: AccountId, *, refund_id: str, now_ns: int) -> None:
    """Stripe has sent the money. RefundNotPending when it was cancelled, or never held."""
    lock_wallet(connection, account_id)
    amount = _close(connection, account_id, refund_id, "completed", now_ns)
    if amount:
        pending = account_book(BookKind.REFUND_PENDING, account_id)
        amounts = [(pending, -amount), (BookKind.STRIPE_CLEARING.value, amount)]
        posting = make_posting(f"refund_complete/{refund_id}", "refund_complete", account_id, amounts)
        record(connection, posting, now_ns=now_ns)


def cancel_refund(connection: Connection, account_id: AccountId, *, refund_id: str, now_ns: int) -> None:
    """The money does not go; the credit comes back to the lots that it was taken from. RefundNotPending when it was
    completed, or never held."""
    lock_wallet(connection, account_id)
    amount = _close(connection, account_id, refund_id, "cancelled", now_ns)
    if amount:
        parts = give_back(connection, _holder(refund_id), amount)
        credit(connection, account_id, amount)
        returned = [(book_id, -nusd) for book_id, nusd in drawn_amounts(account_id, parts)]
        amounts = [(account_book(BookKind.REFUND_PENDING, account_id), -amount), *returned]
        posting = make_posting(f"refund_cancel/{refund_id}", "refund_cancel", account_id, amounts)
        record(connection, posting, now_ns=now_ns)


def _close(connection: Connection, account_id: AccountId, refund_id: str, state: str, now_ns: int) -> int:
    """Ends a pending refund, once; its amount, or 0 when it has ended so already."""
    is_refund = (refunds.c.id == refund_id) & (refunds.c.account_id == account_id)
    closed = update(refunds).where(is_refund, refunds.c.state == "pending")
    closed = closed.values(state=state, closed_at_ns=now_ns)
    if connection.execute(closed).rowcount:
        return int(connection.execute(select(refunds.c.amount_nusd).where(is_refund)).scalar_one())
    if connection.execute(select(refunds.c.state).where(is_refund)).scalar_one_or_none() != state:
        raise RefundNotPending
    return 0


def _holder(refund_id: str) -> str:
    return f"refund/{refund_id}"

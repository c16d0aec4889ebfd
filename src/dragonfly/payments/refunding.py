"""Refunds that a customer asks for and an operator decides: unused paid credit, to where it came from."""

from sqlalchemy import Connection, insert, update

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import read, write
from dragonfly.ledger.lots import refundable_nusd
from dragonfly.ledger.refunds import cancel_refund, hold_refund
from dragonfly.payments.news import REFUND_ENDED
from dragonfly.payments.orders import StripeAway, StripeRefused
from dragonfly.payments.queries import (
    Refund,
    refund_by_id,
    refunds_in,
    refunds_of_topup,
    topup_by_id,
    topup_of_account,
)
from dragonfly.payments.rules import NUSD_PER_CENT, parse_cents, total_share_cents
from dragonfly.payments.settling import lock_topup
from dragonfly.payments.tables import payment_refunds
from dragonfly.payments.topups import Cashier, TopupNotFound

REASONS = ("not_needed", "mistake", "quality", "other")
RESUME_AFTER_NS = 60 * 10**9


class RefundNotPossible(DragonflyError):
    """There is nothing unused of this payment, or a refund of it is open already."""

    code = "refund_not_possible"
    status = 409

    def __init__(self) -> None:
        super().__init__(
            "Nothing of this payment can be refunded: it is not paid, used up, or a refund of it is open. Promotional"
            " credit is never paid out."
        )


class RefundNotFound(DragonflyError):
    """There is no such refund, or it was decided already."""

    code = "refund_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such open refund request. List them and look at their states.")


def request_refund(
    connection: Connection,
    ids: IdSource,
    account_id: AccountId,
    *,
    topup_id: str,
    amount: str | None,
    reason: str,
    now_ns: int,
) -> Refund:
    """A request for an operator: for `amount` dollars of credit, else for all that is unused of the payment.

    TopupNotFound, RefundNotPossible.
    """
    assert reason in REASONS, "the API knows the reasons"
    if topup_of_account(connection, account_id, topup_id) is None:
        raise TopupNotFound
    topup = lock_topup(connection, topup_id)
    unused_nusd = refundable_nusd(connection, account_id, topup_id) if topup.state == "paid" else 0
    wanted_nusd = unused_nusd if amount is None else (parse_cents(amount) or 0) * NUSD_PER_CENT
    is_open = any(one.state in ("requested", "approved") for one in refunds_of_topup(connection, topup_id))
    if is_open or not 0 < wanted_nusd <= unused_nusd:
        raise RefundNotPossible
    assert topup.credit_nusd is not None, "a paid top-up has credit"
    assert topup.total_cents is not None, "a paid top-up has a total"
    row = {
        "id": ids.new("ref-", now_ns),
        "topup_id": topup_id,
        "account_id": account_id,
        "source": "request",
        "state": "requested",
        "amount_cents": max(1, total_share_cents(wanted_nusd, topup.credit_nusd, topup.total_cents)),
        "credit_nusd": wanted_nusd,
        "reason": reason,
        "created_at_ns": now_ns,
        "tried_at_ns": now_ns,
    }
    connection.execute(insert(payment_refunds).values(row))
    refund = refund_by_id(connection, str(row["id"]))
    assert refund is not None, "it was inserted above"
    return refund


def decline_refund(connection: Connection, refund_id: str, *, decided_by: AccountId, now_ns: int) -> Refund:
    """An operator says no. RefundNotFound."""
    values = {"state": "declined", "decided_by": decided_by, "decided_at_ns": now_ns, "ended_at_ns": now_ns}
    return _decide(connection, refund_id, values)


def approve_refund(
    connection: Connection, refund_id: str, *, amount: str | None, decided_by: AccountId, now_ns: int
) -> Refund:
    """An operator says yes, perhaps to a part: the credit leaves the wallet, so that nobody spends it meanwhile.

    `send_refund` then asks Stripe. RefundNotFound, RefundNotPossible, and the ledger's RefundExceedsUnused.
    """
    refund = refund_by_id(connection, refund_id)
    if refund is None:
        raise RefundNotFound
    topup = lock_topup(connection, refund.topup_id)
    credit_nusd = refund.credit_nusd if amount is None else (parse_cents(amount) or 0) * NUSD_PER_CENT
    if not 0 < credit_nusd <= refund.credit_nusd:
        raise RefundNotPossible
    assert topup.credit_nusd is not None, "a paid top-up has credit"
    assert topup.total_cents is not None, "a paid top-up has a total"
    cents = total_share_cents(credit_nusd, topup.credit_nusd, topup.total_cents)
    if not cents:
        raise RefundNotPossible
    values = {"state": "approved", "decided_by": decided_by, "decided_at_ns": now_ns}
    decided = _decide(connection, refund_id, {**values, "credit_nusd": credit_nusd, "amount_cents": cents})
    hold_refund(
        connection,
        refund.account_id,
        refund_id=refund_id,
        amount_nusd=credit_nusd,
        reference=refund.topup_id,
        now_ns=now_ns,
    )
    return decided


def send_refund(cashier: Cashier, refund: Refund) -> None:
    """Asks Stripe for an approved refund and applies what came of it. StripeAway: `resume_refunds` asks again."""
    with read(cashier.engine) as connection:
        topup = topup_by_id(connection, refund.topup_id)
    assert topup is not None, "a refund has a top-up"
    assert topup.intent_id is not None, "a paid top-up has an intent"
    try:
        cashier.calls.create_refund(refund.id, topup.intent_id, refund.amount_cents, refund.reason)
    except StripeRefused as refused:
        if refused.reason in ("key_refused", "idempotency_error"):
            raise StripeAway from None  # our own setting is wrong; an operator puts it right
        _undo(cashier, refund, refused.reason)
    cashier.settle(topup)


def resume_refunds(cashier: Cashier) -> int:
    """Sends approved refunds that Stripe was perhaps not asked for, e.g. because the process died."""
    now_ns = cashier.clock.now_ns()
    with read(cashier.engine) as connection:
        approved = refunds_in(connection, "approved")
    late = [one for one in approved if now_ns - (one.decided_at_ns or 0) >= RESUME_AFTER_NS]
    for refund in late:
        send_refund(cashier, refund)
    return len(late)


def _undo(cashier: Cashier, refund: Refund, reason: str) -> None:
    """Stripe does not do it: the credit comes back."""
    now_ns = cashier.clock.now_ns()
    with write(cashier.engine) as connection:
        lock_topup(connection, refund.topup_id)
        mine = update(payment_refunds).where(payment_refunds.c.id == refund.id, payment_refunds.c.state == "approved")
        values = {"state": "refused", "failure": reason[:60], "ended_at_ns": now_ns}
        if not connection.execute(mine.values(values)).rowcount:
            return
        cancel_refund(connection, refund.account_id, refund_id=refund.id, now_ns=now_ns)
    cashier.tell([(REFUND_ENDED, {"refund": refund.id, "state": "refused"})])


def _decide(connection: Connection, refund_id: str, values: dict[str, object]) -> Refund:
    is_open = (payment_refunds.c.id == refund_id) & (payment_refunds.c.state == "requested")
    if not connection.execute(update(payment_refunds).where(is_open).values(values)).rowcount:
        raise RefundNotFound
    refund = refund_by_id(connection, refund_id)
    assert refund is not None, "it was changed above"
    return refund

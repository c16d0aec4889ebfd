"""What webhooks missed: asks Stripe for everything of late and repairs our side. Nothing is changed at Stripe."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sqlalchemy import select

from dragonfly.core.errors import DragonflyError
from dragonfly.infra.database import DatabaseAway, read, write
from dragonfly.ledger.actions import record_payout
from dragonfly.payments.news import RECONCILED
from dragonfly.payments.orders import ObjectMissing, StripeAway
from dragonfly.payments.queries import (
    Topup,
    dispute_by_id,
    topup_by_id,
    topup_of_intent,
    unsettled_topups,
)
from dragonfly.payments.rules import NUSD_PER_CENT, fate_of
from dragonfly.payments.seen import DisputeSeen, RefundSeen, WarningSeen
from dragonfly.payments.tables import fraud_warnings, payment_refunds
from dragonfly.payments.topups import Cashier
from dragonfly.payments.warnings import answer_warning

PAYMENTS_BACK_S = 3 * 86_400
REFUNDS_BACK_S = 35 * 86_400
DISPUTES_BACK_S = 200 * 86_400
"""A dispute may be decided months after it was opened."""
QUIET_NS = 10 * 60 * 10**9
"""A payment that was asked about within this time is left alone."""
UNSETTLED_MAX = 100
_REFUND_STATES = {"succeeded": "succeeded", "failed": "failed", "canceled": "failed"}


class Reconciled(NamedTuple):
    """What a run did."""

    looked_at: int
    repaired: int


def reconcile(cashier: Cashier) -> Reconciled:
    """Repairs everything that differs from Stripe. StripeAway: what was repaired until then stays."""
    now_s = cashier.clock.now_ns() // 10**9
    steps: tuple[Callable[[], Iterator[bool]], ...] = (
        lambda: _unsettled(cashier),
        lambda: _payments(cashier, now_s - PAYMENTS_BACK_S),
        lambda: _refunds(cashier, now_s - REFUNDS_BACK_S),
        lambda: _disputes(cashier, now_s - DISPUTES_BACK_S),
        lambda: _warnings(cashier, now_s - REFUNDS_BACK_S),
        lambda: _payouts(cashier, now_s - PAYMENTS_BACK_S),
    )
    results = [is_repaired for step in steps for is_repaired in step()]
    done = Reconciled(len(results), sum(results))
    cashier.tell([(RECONCILED, {"looked_at": done.looked_at, "repaired": done.repaired})])
    return done


def _unsettled(cashier: Cashier) -> Iterator[bool]:
    """Pages that were perhaps paid, and rows whose page was perhaps never made."""
    before_ns = cashier.clock.now_ns() - QUIET_NS
    with read(cashier.engine) as connection:
        waiting = unsettled_topups(connection, checked_before_ns=before_ns, limit=UNSETTLED_MAX)
    for topup in waiting:
        if topup.session_id is not None or topup.intent_id is not None:
            yield _settle(cashier, topup)
        elif topup.kind == "checkout":
            cashier.resume(topup)
            yield True


def _payments(cashier: Cashier, since_s: int) -> Iterator[bool]:
    """Payments that succeeded and are not credited here."""
    for intent in cashier.calls.intents_since(since_s):
        if intent.status != "succeeded" or not intent.topup_id:
            yield False
            continue
        with read(cashier.engine) as connection:
            topup = topup_by_id(connection, intent.topup_id)
        is_missing = topup is not None and topup.state not in ("paid", "mismatch")
        yield topup is not None and is_missing and _settle_intent(cashier, topup, intent.id)


def _refunds(cashier: Cashier, since_s: int) -> Iterator[bool]:
    for refund in cashier.calls.refunds_since(since_s):
        topup = _topup_of(cashier, refund)
        if topup is None or _is_refund_known(cashier, refund):
            yield False
        else:
            yield _settle(cashier, topup, counts=True)


def _disputes(cashier: Cashier, since_s: int) -> Iterator[bool]:
    for dispute in cashier.calls.disputes_since(since_s):
        topup = _topup_of(cashier, dispute)
        with read(cashier.engine) as connection:
            known = dispute_by_id(connection, dispute.id)
        if topup is None or (known is not None and known.state == fate_of(dispute.status).value):
            yield False
        else:
            yield _settle(cashier, topup, counts=True)


def _warnings(cashier: Cashier, since_s: int) -> Iterator[bool]:
    for warning in cashier.calls.warnings_since(since_s):
        topup = _topup_of(cashier, warning)
        with read(cashier.engine) as connection:
            wanted = select(fraud_warnings.c.id).where(fraud_warnings.c.id == warning.id)
            is_known = connection.execute(wanted).scalar_one_or_none() is not None
        if topup is None or is_known:
            yield False
            continue
        answer_warning(cashier, topup, warning)
        yield True


def _payouts(cashier: Cashier, since_s: int) -> Iterator[bool]:
    """What Stripe sent to the bank; there is no payment to ask about, so the books take it from the list."""
    for movement in cashier.calls.movements_since(since_s):
        if movement.kind == "payout" and movement.amount_cents < 0:
            with write(cashier.engine) as connection:
                record_payout(
                    connection,
                    reference=movement.id,
                    amount_nusd=-movement.amount_cents * NUSD_PER_CENT,
                    now_ns=cashier.clock.now_ns(),
                )
        yield False


def _topup_of(cashier: Cashier, seen: RefundSeen | DisputeSeen | WarningSeen) -> Topup | None:
    with read(cashier.engine) as connection:
        return topup_of_intent(connection, seen.intent_id) if seen.intent_id else None


def _is_refund_known(cashier: Cashier, refund: RefundSeen) -> bool:
    with read(cashier.engine) as connection:
        wanted = select(payment_refunds.c.state).where(payment_refunds.c.stripe_refund_id == refund.id)
        state = connection.execute(wanted).scalar_one_or_none()
    return state is not None and state == _REFUND_STATES.get(refund.status, "pending")


def _settle_intent(cashier: Cashier, topup: Topup, intent_id: str) -> bool:
    try:
        return cashier.settle(topup, intent_id=intent_id)
    except ObjectMissing:
        return False


def _settle(cashier: Cashier, topup: Topup, *, counts: bool = False) -> bool:
    """One payment; trouble with it does not keep the others from being looked at."""
    try:
        return cashier.settle(topup) or counts
    except (StripeAway, DatabaseAway):
        raise
    except DragonflyError:
        return False

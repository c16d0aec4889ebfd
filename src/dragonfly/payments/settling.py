"""Brings our rows and the books to what Stripe says of one payment.

Events are only a reason to look: what counts is the payment as Stripe has it now, and it is applied in one order
(credit, then refunds and disputes by their age). So events may come late, twice, in any order or not at all, and the
books end the same.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select, update

from dragonfly.core.ids import IdSource
from dragonfly.ledger.actions import Extras, record_fee, top_up
from dragonfly.mail.kinds import MailKind
from dragonfly.payments.alerts import Alert, alert_operator
from dragonfly.payments.clawbacks import apply_dispute, apply_refund
from dragonfly.payments.news import TOPUP_MISMATCH, TOPUP_PAID, PaymentMail, Telling, queue_payment_mail
from dragonfly.payments.queries import Topup, customer_of, topup_by_id
from dragonfly.payments.rules import CURRENCY, NUSD_PER_CENT, Shares, shares_of
from dragonfly.payments.seen import ChargeSeen, DisputeSeen, IntentSeen, RefundSeen, SessionSeen
from dragonfly.payments.tables import auto_recharges, topups
from dragonfly.payments.terms import PaymentTerms

if TYPE_CHECKING:
    from dragonfly.payments.stripe_calls import StripeCalls

UNPAID = ("created", "open", "processing", "failed", "expired", "mismatch")
WAITING = ("created", "open", "processing")


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that Stripe says of one top-up now."""

    session: SessionSeen | None = None
    intent: IntentSeen | None = None
    refunds: tuple[RefundSeen, ...] = ()
    disputes: tuple[DisputeSeen, ...] = ()

    @property
    def charge(self) -> ChargeSeen | None:
        return self.intent.charge if self.intent is not None else None

    @property
    def is_paid(self) -> bool:
        intent = self.intent
        return (
            intent is not None
            and intent.status == "succeeded"
            and intent.charge is not None
            and intent.charge.is_paid
        )


def look_up(calls: "StripeCalls", topup: Topup, *, session_id: str = "", intent_id: str = "") -> Seen:
    """Asks Stripe; no transaction is open meanwhile. The ids are what an event named, if our row lacks them.

    StripeAway, ObjectMissing.
    """
    session = None
    wanted_session = topup.session_id or session_id
    if wanted_session and (topup.state != "paid" or topup.intent_id is None):
        session = calls.session(wanted_session)
    wanted_intent = topup.intent_id or intent_id or (session.intent_id if session is not None else "")
    if not wanted_intent:
        return Seen(session)
    intent = calls.intent(wanted_intent)
    charge = intent.charge
    refunds = tuple(calls.refunds_of(intent.id)) if charge is not None and charge.is_paid else ()
    disputes = tuple(calls.disputes_of(intent.id)) if charge is not None and charge.is_disputed else ()
    return Seen(session, intent, refunds, disputes)


def apply_seen(
    connection: Connection, ids: IdSource, terms: PaymentTerms, topup_id: str, seen: Seen, *, now_ns: int
) -> list[Telling]:
    """Applies what was seen, in the caller's transaction. Applying it again, or something older, changes nothing."""
    topup = lock_topup(connection, topup_id)
    _link(connection, topup, seen, now_ns)
    if topup.state != "paid":
        problem = problem_of(connection, terms, topup, seen)
        if problem:
            return _refuse(connection, ids, terms, topup, problem, now_ns)
        if not seen.is_paid:
            _follow(connection, topup, seen)
            return []
    told = _credit(connection, ids, terms, topup, seen, now_ns)
    topup = lock_topup(connection, topup_id)
    if topup.state != "paid":
        return told
    changes: list[RefundSeen | DisputeSeen] = [*seen.refunds, *seen.disputes]
    for change in sorted(changes, key=lambda change: (change.created_s, change.id)):
        if isinstance(change, RefundSeen):
            told += apply_refund(connection, ids, topup, change, now_ns=now_ns)
        else:
            told += apply_dispute(connection, ids, terms, topup, change, now_ns=now_ns)
    return told


def lock_topup(connection: Connection, topup_id: str) -> Topup:
    """The top-up, which nobody else changes until this transaction ends."""
    connection.execute(select(topups.c.id).where(topups.c.id == topup_id).with_for_update())
    topup = topup_by_id(connection, topup_id)
    assert topup is not None, "top-ups are never deleted"
    return topup


def problem_of(connection: Connection, terms: PaymentTerms, topup: Topup, seen: Seen) -> str:
    """Why what Stripe shows is not this top-up; empty when it is."""
    session, intent = seen.session, seen.intent
    customer_id = customer_of(connection, topup.account_id)
    if session is not None:
        if session.topup_id != topup.id or session.account_id != topup.account_id:
            return "wrong_account"
        if customer_id is not None and session.customer_id != customer_id:
            return "wrong_customer"
        if session.livemode is not terms.livemode:
            return "wrong_mode"
        if session.currency != CURRENCY:
            return "wrong_currency"
        if session.subtotal_cents != topup.amount_cents:
            return "wrong_amount"
        if session.is_free:
            return "nothing_paid"  # we give no discounts, so somebody else did
    if intent is not None:
        if intent.topup_id != topup.id or intent.account_id != topup.account_id:
            return "wrong_account"
        if customer_id is not None and intent.customer_id != customer_id:
            return "wrong_customer"
        if intent.livemode is not terms.livemode:
            return "wrong_mode"
        if intent.currency != CURRENCY:
            return "wrong_currency"
        if intent.amount_cents != _total_cents(topup, session):
            return "wrong_amount"
        if seen.is_paid and (intent.received_cents != intent.amount_cents or _shares(terms, topup, seen) is None):
            return "wrong_amount"
    return ""


def _total_cents(topup: Topup, session: SessionSeen | None) -> int:
    return topup.amount_cents if session is None else session.total_cents


def _shares(terms: PaymentTerms, topup: Topup, seen: Seen) -> Shares | None:
    """Credit and tax. The tax setting may have changed since the page was made: what Stripe computed tells which."""
    session = seen.session
    if session is None or not session.tax_cents:
        return shares_of(topup.amount_cents, 0, _total_cents(topup, session), "off")
    kind = "inclusive" if session.total_cents == session.subtotal_cents else "exclusive"
    return shares_of(topup.amount_cents, session.tax_cents, session.total_cents, kind)


def _link(connection: Connection, topup: Topup, seen: Seen, now_ns: int) -> None:
    """Remembers Stripe's ids and when it was asked."""
    values: dict[str, object] = {"checked_at_ns": max(now_ns, topup.checked_at_ns)}
    if seen.session is not None:
        values |= {
            "session_id": seen.session.id,
            "session_url": seen.session.url or None,
            "expires_at_ns": seen.session.expires_s * 10**9,
        }
    if seen.intent is not None and seen.intent.topup_id == topup.id:
        values["intent_id"] = seen.intent.id
    if seen.charge is not None and seen.charge.is_paid:
        charge = seen.charge
        values |= {
            "charge_id": charge.id,
            "receipt_url": charge.receipt_url or None,
            "method": charge.method or None,
            "country": charge.country or None,
        }
    connection.execute(update(topups).where(topups.c.id == topup.id).values(values))


def _refuse(
    connection: Connection, ids: IdSource, terms: PaymentTerms, topup: Topup, problem: str, now_ns: int
) -> list[Telling]:
    """A payment that is not what was asked for is not credited; an operator must look."""
    changed = update(topups).where(topups.c.id == topup.id, topups.c.state.in_(UNPAID), topups.c.state != "mismatch")
    if not connection.execute(changed.values(state="mismatch", failure=problem)).rowcount:
        return []
    values = {"topup": topup.id, "reason": problem}
    alert_operator(connection, ids, terms, Alert.PAYMENT_DIFFERS, key=topup.id, values=values, now_ns=now_ns)
    return [(TOPUP_MISMATCH, {"topup": topup.id, "reason": problem})]


def _follow(connection: Connection, topup: Topup, seen: Seen) -> None:
    """The state of a top-up that is not paid."""
    state, failure = _unpaid_state(topup, seen)
    changed = update(topups).where(topups.c.id == topup.id, topups.c.state.in_(WAITING))
    connection.execute(changed.values(state=state, failure=failure))


def _unpaid_state(topup: Topup, seen: Seen) -> tuple[str, str | None]:
    session, intent = seen.session, seen.intent
    failure = (intent.decline_code or intent.error or None) if intent is not None else None
    if session is not None:
        if session.status == "expired":
            return "expired", failure
        if session.status == "open":
            return "open", failure
        is_over = intent is not None and intent.status in ("requires_payment_method", "canceled")
        return ("failed" if is_over else "processing"), failure
    if intent is not None and intent.status in ("requires_payment_method", "requires_action", "canceled"):
        return "failed", failure
    return ("processing" if intent is not None else topup.state), failure


def _credit(
    connection: Connection, ids: IdSource, terms: PaymentTerms, topup: Topup, seen: Seen, now_ns: int
) -> list[Telling]:
    """Credits a paid top-up, once; and books what Stripe kept, whenever that becomes known."""
    charge = seen.charge
    told: list[Telling] = []
    if topup.state != "paid":
        shares = _shares(terms, topup, seen)
        assert shares is not None, "a payment that does not fit was refused before"
        credit_nusd = shares.credit_cents * NUSD_PER_CENT
        paid = {
            "state": "paid",
            "failure": None,
            "credit_nusd": credit_nusd,
            "tax_cents": shares.tax_cents,
            "total_cents": shares.credit_cents + shares.tax_cents,
            "paid_at_ns": now_ns,
        }
        connection.execute(update(topups).where(topups.c.id == topup.id).values(paid))
        top_up(
            connection,
            topup.account_id,
            amount_nusd=credit_nusd,
            idempotency_key=topup.id,
            reference=topup.id,
            now_ns=now_ns,
            extras=Extras(tax_nusd=shares.tax_cents * NUSD_PER_CENT),
        )
        cents = shares.credit_cents + shares.tax_cents
        mail = PaymentMail(
            MailKind.RECEIPT, topup.id, topup.account_id, topup.language, cents, {"reference": topup.id}
        )
        queue_payment_mail(connection, ids, mail, now_ns=now_ns)
        _keep_card(connection, topup, seen, now_ns)
        told.append((TOPUP_PAID, {"topup": topup.id, "account": topup.account_id, "credit_nusd": credit_nusd}))
    if charge is not None and charge.fee is not None and charge.fee.cents > 0:
        fee_nusd = charge.fee.cents * NUSD_PER_CENT
        record_fee(connection, reference=charge.fee.movement_id, amount_nusd=fee_nusd, now_ns=now_ns)
    return told


def _keep_card(connection: Connection, topup: Topup, seen: Seen, now_ns: int) -> None:
    """A card that the customer agreed to save is the one for automatic top-ups; a payment that went through ends
    their pause."""
    intent, charge = seen.intent, seen.charge
    assert intent is not None, "a paid top-up has an intent"
    mine = auto_recharges.c.account_id == topup.account_id
    if topup.kind == "recharge":
        connection.execute(update(auto_recharges).where(mine).values(soft_declines=0))
    elif intent.saves_card and charge is not None and charge.card is not None:
        saved = {"method_id": intent.method_id, "card_label": charge.card.label, "updated_at_ns": now_ns}
        connection.execute(update(auto_recharges).where(mine).values(soft_declines=0, **saved))
        resumed = update(auto_recharges).where(mine, auto_recharges.c.state == "paused")
        connection.execute(resumed.values(state="on", pause_reason=None))

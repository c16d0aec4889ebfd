"""What happens to money at the simulated Stripe: payments, refunds, disputes, warnings, and the events they cause."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dragonfly.core.clock import Clock
from dragonfly.payments.simulated.cards import Card, is_declined
from dragonfly.payments.simulated.faults import declined, invalid, missing
from dragonfly.payments.simulated.shapes import Shapes
from dragonfly.payments.simulated.state import (
    Charge,
    Dispute,
    Intent,
    Json,
    Movement,
    PaymentMethod,
    Refund,
    Session,
    State,
    Told,
    Warned,
)

FEE_BASIS_POINTS = 290
FEE_FIXED_CENTS = 30
DISPUTE_FEE_CENTS = 1_500
EVIDENCE_DUE_S = 9 * 86_400
SLOW_REFUNDS = ("alipay", "wechat_pay")
UNDECIDED = ("needs_response", "under_review")


@dataclass(slots=True)
class Till:
    """The state and what changes it. `tell` gets every event in the order in which things happen."""

    state: State
    shapes: Shapes
    clock: Clock
    seed: str
    tell: Callable[[Told], None]
    page_url: Callable[[str], str]
    """The address of a page of ours, such as a receipt."""

    def new_id(self, prefix: str) -> str:
        return self.state.new_id(prefix, self.seed)

    def now_s(self) -> int:
        return self.clock.now_ns() // 10**9

    def event(self, kind: str, shown: Json, previous: Json | None = None) -> None:
        told = Told(self.new_id("evt"), self.now_s(), kind, shown, previous)
        self.tell(self.state.events.put(told))

    # Payments

    def pay_session(self, session: Session, card: Card | None, kind: str, *, confirmed: bool) -> str:
        """Somebody presses "Pay". Gives "paid", "declined" or "confirm": 3-D Secure is asked for."""
        if session.status != "open":
            raise invalid("This Checkout Session is no longer open.")
        if card is not None and card.asks_on_session and not confirmed:
            return "confirm"
        intent = self._session_intent(session)
        method = self._new_method(card, kind, session.customer if session.setup_future_usage else None)
        saves = session.card_setup if kind == "card" else None
        intent.setup_future_usage = session.setup_future_usage or saves
        if intent.setup_future_usage:
            method.customer = session.customer
        if not self._charge(intent, method, off_session=False):
            return "declined"
        session.status, session.payment_status = "complete", "paid"
        self.event("checkout.session.completed", self.shapes.session(session))
        return "paid"

    def pay_session_later(self, session: Session, kind: str) -> None:
        """Completed, but the money is still on its way: `settle_session` ends it."""
        intent = self._session_intent(session)
        method = self._new_method(None, kind, None)
        intent.method, intent.status = method.id, "processing"
        session.status = "complete"
        self.event("checkout.session.completed", self.shapes.session(session))

    def settle_session(self, session: Session, *, succeeds: bool) -> None:
        """The money of a slow payment came, or did not."""
        intent = self.intent(session.intent or "")
        method = self.state.methods.get(intent.method or "")
        assert method is not None, "a payment on its way has a method"
        if succeeds:
            self._charge(intent, method, off_session=False)
            session.payment_status = "paid"
            self.event("checkout.session.async_payment_succeeded", self.shapes.session(session))
        else:
            intent.status = "requires_payment_method"
            self.event("checkout.session.async_payment_failed", self.shapes.session(session))

    def expire_session(self, session: Session) -> None:
        session.status = "expired"
        self.event("checkout.session.expired", self.shapes.session(session))

    def confirm_off_session(self, intent: Intent, method: PaymentMethod) -> None:
        """Charges a saved card without the customer. StripeFault 402 when that is refused."""
        card = method.card
        if card is not None and card.asks_off_session:
            self._refuse(intent, method, "authentication_required", "authentication_required")
        elif not self._charge(intent, method, off_session=True):
            assert card is not None, "only cards are declined"
            raise declined(card.error_code, card.decline_code, self.shapes.intent(intent))
        if intent.status != "succeeded":
            raise declined("authentication_required", "authentication_required", self.shapes.intent(intent))

    def _session_intent(self, session: Session) -> Intent:
        if session.intent is None:
            intent = Intent(
                self.new_id("pi"),
                self.now_s(),
                session.total_cents,
                session.currency,
                session.customer,
                dict(session.intent_metadata),
                session.methods,
            )
            session.intent = self.state.intents.put(intent).id
        return self.intent(session.intent)

    def _new_method(self, card: Card | None, kind: str, customer: str | None) -> PaymentMethod:
        return self.state.methods.put(PaymentMethod(self.new_id("pm"), self.now_s(), kind, card, customer))

    def _charge(self, intent: Intent, method: PaymentMethod, *, off_session: bool) -> bool:
        card = method.card
        if card is not None and is_declined(card, off_session=off_session):
            self._refuse(intent, method, card.error_code, card.decline_code)
            return False
        charge = self._new_charge(intent, method, "succeeded")
        charge.receipt_url = self.page_url(f"receipts/{charge.id}")
        fee_cents = charge.amount_cents * FEE_BASIS_POINTS // 10_000 + FEE_FIXED_CENTS
        charge.balance = self._move(charge.id, charge.amount_cents, fee_cents, "charge", "charge").id
        intent.status, intent.received_cents, intent.error = "succeeded", intent.amount_cents, None
        intent.charge, intent.method = charge.id, method.id
        self.event("payment_intent.succeeded", self.shapes.intent(intent))
        self.event("charge.succeeded", self.shapes.charge(charge))
        if card is not None and card.is_disputed:
            self.open_dispute(charge, reason="fraudulent")
        if card is not None and card.has_warning:
            self.warn(charge)
        return True

    def _refuse(self, intent: Intent, method: PaymentMethod, code: str, decline_code: str) -> None:
        charge = self._new_charge(intent, method, "failed")
        charge.failure_code, charge.decline_code = code, decline_code
        intent.charge, intent.status, intent.method = charge.id, "requires_payment_method", None
        intent.error = {
            "type": "card_error",
            "code": code,
            "decline_code": decline_code,
            "message": "Your card was declined.",
            "charge": charge.id,
        }
        self.event("payment_intent.payment_failed", self.shapes.intent(intent))

    def _new_charge(self, intent: Intent, method: PaymentMethod, status: str) -> Charge:
        return self.state.charges.put(
            Charge(
                self.new_id("ch"),
                self.now_s(),
                intent.id,
                intent.amount_cents,
                intent.currency,
                intent.customer,
                method.id,
                dict(intent.metadata),
                status,
            )
        )

    # Refunds

    def refund(
        self, charge: Charge, amount_cents: int | None, reason: str | None, metadata: Mapping[str, str]
    ) -> Refund:
        """Money back to where it came from. The wallets' refunds stay pending until `finish_refund`."""
        left = charge.amount_cents - charge.refunded_cents
        wanted = left if amount_cents is None else amount_cents
        if charge.status != "succeeded" or left == 0:
            raise invalid("Charge has already been refunded.", code="charge_already_refunded")
        if charge.is_disputed:
            raise invalid("This charge has been charged back.", code="charge_disputed")
        if not 0 < wanted <= left:
            raise invalid("Refund amount is greater than unrefunded amount on charge.", "amount")
        method = self.state.methods.get(charge.method)
        status = "pending" if method is not None and method.kind in SLOW_REFUNDS else "succeeded"
        refund = Refund(
            self.new_id("re"),
            self.now_s(),
            charge.id,
            charge.intent,
            wanted,
            charge.currency,
            status,
            reason,
            dict(metadata),
        )
        self.state.refunds.put(refund)
        refund.balance = self._move(refund.id, -wanted, 0, "refund", "refund").id
        charge.refunded_cents += wanted
        for warning in self.state.warnings:
            if warning.charge == charge.id and charge.refunded_cents == charge.amount_cents:
                warning.is_actionable = False
        self.event("refund.created", self.shapes.refund(refund))
        self.event("charge.refunded", self.shapes.charge(charge))
        return refund

    def finish_refund(self, refund: Refund, *, succeeds: bool) -> None:
        """A refund on its way arrived; or failed, even after it was said to have succeeded."""
        charge = self.charge(refund.charge)
        refund.status = "succeeded" if succeeds else "failed"
        if not succeeds:
            refund.failure_reason = "expired_or_canceled_card"
            refund.failure_balance = self._move(refund.id, refund.amount_cents, 0, "refund_failure", "refund").id
            charge.refunded_cents -= refund.amount_cents
        self.event("refund.updated", self.shapes.refund(refund))
        if not succeeds:
            self.event("refund.failed", self.shapes.refund(refund))

    # Disputes and warnings

    def open_dispute(self, charge: Charge, *, reason: str, amount_cents: int | None = None) -> Dispute:
        """The cardholder goes to the bank: amount and fee leave the balance at once."""
        dispute = Dispute(
            self.new_id("du"),
            self.now_s(),
            charge.id,
            charge.intent,
            amount_cents or charge.amount_cents - charge.refunded_cents,
            charge.currency,
            reason,
            "needs_response",
            self.now_s() + EVIDENCE_DUE_S,
        )
        self.state.disputes.put(dispute)
        charge.is_disputed = True
        self.event("charge.dispute.created", self.shapes.dispute(dispute))
        moved = self._move(dispute.id, -dispute.amount_cents, DISPUTE_FEE_CENTS, "adjustment", "dispute")
        dispute.balances.append(moved.id)
        self.event("charge.dispute.funds_withdrawn", self.shapes.dispute(dispute))
        return dispute

    def answer_dispute(self, dispute: Dispute, evidence: Mapping[str, str], *, submits: bool) -> None:
        """Evidence arrives; once submitted the bank looks at it."""
        if dispute.status not in UNDECIDED:
            raise invalid("This dispute is already closed.")
        dispute.evidence.update(evidence)
        if submits:
            dispute.is_submitted, dispute.status = True, "under_review"
        self.event("charge.dispute.updated", self.shapes.dispute(dispute))

    def close_dispute(self, dispute: Dispute, *, is_won: bool) -> None:
        """The bank decides."""
        if dispute.status not in UNDECIDED:
            raise invalid("This dispute is already closed.")
        dispute.status = "won" if is_won else "lost"
        if is_won:
            moved = self._move(dispute.id, dispute.amount_cents, 0, "adjustment", "dispute_reversal")
            dispute.balances.append(moved.id)
        self.event("charge.dispute.closed", self.shapes.dispute(dispute))
        if is_won:
            self.event("charge.dispute.funds_reinstated", self.shapes.dispute(dispute))

    def warn(self, charge: Charge) -> Warned:
        """The card network suspects fraud."""
        warning = Warned(self.new_id("issfr"), self.now_s(), charge.id, charge.intent, "unauthorized_use_of_card")
        self.state.warnings.put(warning)
        self.event("radar.early_fraud_warning.created", self.shapes.warning(warning))
        return warning

    def detach(self, method: PaymentMethod) -> None:
        previous: Json = {"customer": method.customer}
        method.customer = None
        self.event("payment_method.detached", self.shapes.method(method), previous)

    # Look-ups

    def intent(self, intent_id: str) -> Intent:
        found = self.state.intents.get(intent_id)
        if found is None:
            raise missing("payment_intent", intent_id, "intent")
        return found

    def charge(self, charge_id: str) -> Charge:
        found = self.state.charges.get(charge_id)
        if found is None:
            raise missing("charge", charge_id)
        return found

    def _move(self, source: str, amount_cents: int, fee_cents: int, kind: str, category: str) -> Movement:
        movement = Movement(self.new_id("txn"), self.now_s(), amount_cents, fee_cents, "usd", kind, category, source)
        return self.state.movements.put(movement)

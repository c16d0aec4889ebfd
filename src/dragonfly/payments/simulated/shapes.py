"""The JSON of each object, as Stripe's API reference and its OpenAPI description give it for version 2026-10-28."""

from dragonfly.payments.simulated.cards import Card
from dragonfly.payments.simulated.state import (
    Charge,
    Customer,
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

API_VERSION = "2026-10-28.endive"
NO_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


class Shapes:
    """Makes the JSON of records; `livemode` is the same for all."""

    def __init__(self, state: State, *, livemode: bool) -> None:
        self._state = state
        self._livemode = livemode

    def customer(self, one: Customer) -> Json:
        return {
            **self._common("customer", one.id, one.created_s),
            "address": None,
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "description": None,
            "email": one.email,
            "invoice_prefix": one.id[-8:].upper(),
            "metadata": dict(one.metadata),
            "name": one.name,
            "phone": None,
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
            "test_clock": None,
        }

    def method(self, one: PaymentMethod) -> Json:
        details: Json = card_shape(one.card) if one.card else {}
        return {
            **self._common("payment_method", one.id, one.created_s),
            "allow_redisplay": "limited",
            "billing_details": {"address": dict(NO_ADDRESS), "email": None, "name": None, "phone": None},
            one.kind: details,
            "customer": one.customer,
            "metadata": {},
            "type": one.kind,
        }

    def session(self, one: Session) -> Json:
        return {
            **self._common("checkout.session", one.id, one.created_s),
            **self._session_money(one),
            **self._session_settings(one),
            "customer": one.customer,
            "customer_details": {"address": {**NO_ADDRESS, "country": one.country}, "email": None, "name": None}
            if one.status == "complete"
            else None,
            "payment_intent": one.intent,
            "payment_status": one.payment_status,
            "status": one.status,
            "url": one.url if one.status == "open" else None,
            "metadata": dict(one.metadata),
            "client_reference_id": one.reference,
            "success_url": one.success_url,
            "cancel_url": one.cancel_url,
            "expires_at": one.expires_s,
        }

    def _session_money(self, one: Session) -> Json:
        return {
            "currency": one.currency,
            "amount_subtotal": one.subtotal_cents,
            "amount_total": one.total_cents,
            "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": one.tax_cents},
            "automatic_tax": {
                "enabled": one.is_taxed,
                "liability": {"type": "self"} if one.is_taxed else None,
                "provider": "stripe" if one.is_taxed else None,
                "status": "complete" if one.is_taxed else None,
            },
        }

    def _session_settings(self, one: Session) -> Json:
        return {
            "adaptive_pricing": {"enabled": False},
            "billing_address_collection": "required" if one.is_taxed else None,
            "custom_fields": [],
            "custom_text": dict.fromkeys(
                ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")
            ),
            "customer_creation": None,
            "invoice": None,
            "locale": one.locale,
            "mode": "payment",
            "origin_context": None,
            "payment_link": None,
            "payment_method_collection": "if_required",
            "payment_method_types": list(one.methods),
            "redirect_on_completion": None,
            "setup_intent": None,
            "shipping_options": [],
            "submit_type": None,
            "subscription": None,
            "ui_mode": "hosted_page",
        }

    def intent(self, one: Intent) -> Json:
        return {
            **self._common("payment_intent", one.id, one.created_s),
            "amount": one.amount_cents,
            "amount_capturable": 0,
            "amount_received": one.received_cents,
            "application": None,
            "cancellation_reason": None,
            "capture_method": "automatic_async",
            "client_secret": f"{one.id}_secret_simulated",
            "confirmation_method": "automatic",
            "currency": one.currency,
            "customer": one.customer,
            "description": one.description,
            "last_payment_error": one.error,
            "latest_charge": one.charge,
            "metadata": dict(one.metadata),
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": one.method,
            "payment_method_types": list(one.methods),
            "payment_record": None,
            "processing": None,
            "review": None,
            "setup_future_usage": one.setup_future_usage,
            "source": None,
            "status": one.status,
        }

    def charge(self, one: Charge) -> Json:
        is_good = one.status == "succeeded"
        return {
            **self._common("charge", one.id, one.created_s),
            "amount": one.amount_cents,
            "amount_captured": one.amount_cents if is_good else 0,
            "amount_refunded": one.refunded_cents,
            "application": None,
            "application_fee": None,
            "balance_transaction": one.balance,
            "billing_details": {
                "address": {**NO_ADDRESS, "country": one.country},
                "email": None,
                "name": None,
                "phone": None,
                "tax_id": None,
            },
            "captured": is_good,
            "currency": one.currency,
            "customer": one.customer,
            "disputed": one.is_disputed,
            "failure_balance_transaction": None,
            "failure_code": one.failure_code,
            "failure_message": "Your card was declined." if one.failure_code else None,
            "metadata": dict(one.metadata),
            "on_behalf_of": None,
            "outcome": self._outcome(one),
            "paid": is_good,
            "payment_intent": one.intent,
            "payment_method": one.method,
            "payment_method_details": self._charged_with(one),
            "receipt_url": one.receipt_url or None,
            "refunded": is_good and one.refunded_cents == one.amount_cents,
            "review": None,
            "source": None,
            "source_transfer": None,
            "status": one.status,
        }

    def _outcome(self, one: Charge) -> Json:
        is_good = one.status == "succeeded"
        return {
            "advice_code": None,
            "network_advice_code": None,
            "network_decline_code": None,
            "network_status": "approved_by_network" if is_good else "declined_by_network",
            "reason": one.decline_code,
            "risk_level": "normal",
            "seller_message": "Payment complete." if is_good else "The bank declined the payment.",
            "type": "authorized" if is_good else "issuer_declined",
        }

    def _charged_with(self, one: Charge) -> Json:
        method = self._state.methods.get(one.method)
        assert method is not None, "a charge has a payment method"
        return {"type": method.kind, method.kind: card_shape(method.card) if method.card else {}}

    def refund(self, one: Refund) -> Json:
        shape: Json = {
            **self._common("refund", one.id, one.created_s),
            "amount": one.amount_cents,
            "balance_transaction": one.balance,
            "charge": one.charge,
            "currency": one.currency,
            "customer": None,
            "metadata": dict(one.metadata),
            "payment_intent": one.intent,
            "payment_method": None,
            "pending_reason": "processing" if one.status == "pending" else None,
            "reason": one.reason,
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": one.status,
            "transfer_reversal": None,
        }
        del shape["livemode"]
        if one.failure_reason:
            shape |= {"failure_reason": one.failure_reason, "failure_balance_transaction": one.failure_balance}
        return shape

    def dispute(self, one: Dispute) -> Json:
        return {
            **self._common("dispute", one.id, one.created_s),
            "amount": one.amount_cents,
            "balance_transactions": [self.movement(found) for found in map(self._movement, one.balances)],
            "charge": one.charge,
            "currency": one.currency,
            "enhanced_eligibility_types": [],
            "evidence": {"enhanced_evidence": {}, **one.evidence},
            "evidence_details": {
                "due_by": one.due_s,
                "enhanced_eligibility": {},
                "has_evidence": bool(one.evidence),
                "past_due": False,
                "submission_count": int(one.is_submitted),
                "submission_method": "manual" if one.is_submitted else "not_submitted",
            },
            "is_charge_refundable": False,
            "metadata": {},
            "payment_intent": one.intent,
            "reason": one.reason,
            "status": one.status,
        }

    def warning(self, one: Warned) -> Json:
        return {
            **self._common("radar.early_fraud_warning", one.id, one.created_s),
            "actionable": one.is_actionable,
            "charge": one.charge,
            "fraud_type": one.fraud_type,
            "payment_intent": one.intent,
        }

    def movement(self, one: Movement) -> Json:
        fee = {
            "amount": one.fee_cents,
            "application": None,
            "currency": one.currency,
            "description": "Stripe processing fees",
            "type": "stripe_fee",
        }
        shape: Json = {
            **self._common("balance_transaction", one.id, one.created_s),
            "amount": one.amount_cents,
            "available_on": one.created_s + 172_800,
            "balance_type": "payments",
            "currency": one.currency,
            "description": None,
            "exchange_rate": None,
            "fee": one.fee_cents,
            "fee_details": [fee] if one.fee_cents else [],
            "net": one.amount_cents - one.fee_cents,
            "reporting_category": one.category,
            "source": one.source,
            "status": "pending",
            "type": one.kind,
        }
        del shape["livemode"]
        return shape

    def event(self, one: Told) -> Json:
        data: Json = {"object": one.object}
        if one.previous is not None:
            data["previous_attributes"] = one.previous
        return {
            **self._common("event", one.id, one.created_s),
            "api_version": API_VERSION,
            "data": data,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": one.kind,
        }

    def by_id(self, object_id: str) -> Json | None:
        """The JSON of any object that may stand where an id stands."""
        state = self._state
        if found := state.charges.get(object_id):
            return self.charge(found)
        if movement := state.movements.get(object_id):
            return self.movement(movement)
        if intent := state.intents.get(object_id):
            return self.intent(intent)
        if customer := state.customers.get(object_id):
            return self.customer(customer)
        if method := state.methods.get(object_id):
            return self.method(method)
        return None

    def _movement(self, movement_id: str) -> Movement:
        found = self._state.movements.get(movement_id)
        assert found is not None, "balance transactions are never removed"
        return found

    def _common(self, kind: str, object_id: str, created_s: int) -> Json:
        return {"id": object_id, "object": kind, "created": created_s, "livemode": self._livemode}


def card_shape(card: Card) -> Json:
    """What Stripe tells about a card: never its number."""
    return {
        "brand": card.brand,
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
        "country": "US",
        "exp_month": 12,
        "exp_year": 2034,
        "fingerprint": f"simulated{card.last4}",
        "funding": "credit",
        "last4": card.last4,
        "wallet": None,
    }

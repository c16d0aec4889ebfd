"""Everything that is asked of Stripe, through its SDK, with our own values in and out. Amounts in cents.

Calls block: run them in `StripeThreads`. Each is bounded in time and retried a few times; creates carry an
idempotency key, so that a retry never pays twice.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar, cast

import stripe
from stripe.params import PaymentIntentCreateParams, RefundCreateParams
from stripe.params.checkout import SessionCreateParams

from dragonfly.core.secrets import Secret
from dragonfly.payments.orders import (
    CardRefused,
    ChargeOrder,
    CheckoutOrder,
    ObjectMissing,
    StripeAway,
    StripeRefused,
)
from dragonfly.payments.seen import (
    DisputeSeen,
    IntentSeen,
    MovementSeen,
    RefundSeen,
    SessionSeen,
    WarningSeen,
    read_dispute,
    read_intent,
    read_movement,
    read_refund,
    read_session,
    read_warning,
)

API_VERSION = "2026-10-28.endive"
CALL_S_MAX = 15.0
RETRIES_MAX = 2
PAGE = 100
PAGES_MAX = 200
L = TypeVar("L", bound=stripe.StripeObject)
_CHARGE = "latest_charge.balance_transaction"


class StripeCalls:
    """One account at Stripe."""

    def __init__(self, key: Secret, *, api_base: str = "", http: stripe.HTTPClient | None = None) -> None:
        stripe.enable_telemetry = False  # timings of our requests are nobody's business
        addresses: dict[str, str] = {"api": api_base} if api_base else {}
        self._client = stripe.StripeClient(
            key.reveal(),
            stripe_version=API_VERSION,
            base_addresses=cast(stripe._base_address.BaseAddresses, addresses),
            max_network_retries=RETRIES_MAX,
            http_client=http or stripe.RequestsClient(timeout=CALL_S_MAX),
        )

    def account_id(self) -> str:
        """Whose key it is: acct_…"""
        with _reaching():
            return self._client.v1.accounts.retrieve_current().id

    def create_customer(self, account_id: str, email: str | None) -> str:
        """Stripe's customer for an account; the same one however often it is asked within a day."""
        with _reaching():
            return self._client.v1.customers.create(
                {"metadata": {"account": account_id}, **({"email": email} if email else {})},
                {"idempotency_key": f"customer/{account_id}"},
            ).id

    def create_checkout(self, order: CheckoutOrder) -> SessionSeen:
        """A payment page for exactly this amount; the same one for the same top-up."""
        with _reaching():
            made = self._client.v1.checkout.sessions.create(
                checkout_params(order), {"idempotency_key": f"checkout/{order.topup_id}"}
            )
        return read_session(made.to_dict())

    def session(self, session_id: str) -> SessionSeen:
        with _reaching():
            return read_session(self._client.v1.checkout.sessions.retrieve(session_id).to_dict())

    def expire_session(self, session_id: str) -> None:
        """Closes a payment page; one that is paid or closed stays as it is."""
        try:
            with _reaching():
                self._client.v1.checkout.sessions.expire(session_id)
        except StripeRefused:
            return

    def intent(self, intent_id: str) -> IntentSeen:
        with _reaching():
            found = self._client.v1.payment_intents.retrieve(intent_id, {"expand": [_CHARGE]})
        return read_intent(found.to_dict())

    def charge_saved_card(self, order: ChargeOrder) -> str:
        """Charges now or raises CardRefused; the id of the payment. The same top-up is charged once."""
        with _reaching():
            return self._client.v1.payment_intents.create(
                recharge_params(order), {"idempotency_key": f"recharge/{order.topup_id}"}
            ).id

    def create_refund(self, refund_id: str, intent_id: str, cents: int, reason: str) -> RefundSeen:
        """Sends money back to where it came from, once for a refund of ours."""
        with _reaching():
            made = self._client.v1.refunds.create(
                refund_params(refund_id, intent_id, cents, reason), {"idempotency_key": f"refund/{refund_id}"}
            )
        return read_refund(made.to_dict())

    def refunds_of(self, intent_id: str) -> list[RefundSeen]:
        with _reaching():
            page = self._client.v1.refunds.list({"payment_intent": intent_id, "limit": PAGE})
            return [read_refund(one.to_dict()) for one in page.data]

    def disputes_of(self, intent_id: str) -> list[DisputeSeen]:
        with _reaching():
            page = self._client.v1.disputes.list({"payment_intent": intent_id, "limit": PAGE})
            return [read_dispute(one.to_dict()) for one in page.data]

    def warning(self, warning_id: str) -> WarningSeen:
        with _reaching():
            return read_warning(self._client.v1.radar.early_fraud_warnings.retrieve(warning_id).to_dict())

    # Lists, for the reconciler. `since_s` is when the objects were made.

    def intents_since(self, since_s: int) -> Iterator[IntentSeen]:
        with _reaching():
            listed = self._client.v1.payment_intents.list({"created": {"gte": since_s}, "limit": PAGE})
            for one in _bounded(listed):
                yield read_intent(one)

    def sessions_since(self, since_s: int) -> Iterator[SessionSeen]:
        with _reaching():
            listed = self._client.v1.checkout.sessions.list({"created": {"gte": since_s}, "limit": PAGE})
            for one in _bounded(listed):
                yield read_session(one)

    def refunds_since(self, since_s: int) -> Iterator[RefundSeen]:
        with _reaching():
            for one in _bounded(self._client.v1.refunds.list({"created": {"gte": since_s}, "limit": PAGE})):
                yield read_refund(one)

    def disputes_since(self, since_s: int) -> Iterator[DisputeSeen]:
        with _reaching():
            for one in _bounded(self._client.v1.disputes.list({"created": {"gte": since_s}, "limit": PAGE})):
                yield read_dispute(one)

    def warnings_since(self, since_s: int) -> Iterator[WarningSeen]:
        with _reaching():
            listed = self._client.v1.radar.early_fraud_warnings.list({"created": {"gte": since_s}, "limit": PAGE})
            for one in _bounded(listed):
                yield read_warning(one)

    def movements_since(self, since_s: int) -> Iterator[MovementSeen]:
        with _reaching():
            listed = self._client.v1.balance_transactions.list({"created": {"gte": since_s}, "limit": PAGE})
            for one in _bounded(listed):
                yield read_movement(one)


def checkout_params(order: CheckoutOrder) -> SessionCreateParams:
    """The parameters of a payment page. The price is inline and computed here; quantity is always one."""
    metadata = {"topup": order.topup_id, "account": order.account_id}
    price: dict[str, object] = {
        "currency": "usd",
        "unit_amount": order.cents,
        "product_data": {"name": "Dragonfly API credit"},
    }
    params: dict[str, object] = {
        "mode": "payment",
        "customer": order.customer_id,
        "client_reference_id": order.topup_id,
        "metadata": metadata,
        "payment_intent_data": {"metadata": metadata},
        "line_items": [{"quantity": 1, "price_data": price}],
        "allowed_payment_method_types": list(order.methods),
        "adaptive_pricing": {"enabled": False},
        "locale": "zh" if order.language.lower().startswith("zh") else "en",
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
        "expires_at": order.expires_s,
    }
    options: dict[str, object] = {}
    if order.saves_card and "card" in order.methods:
        options["card"] = {"setup_future_usage": "off_session"}
    if "wechat_pay" in order.methods:
        options["wechat_pay"] = {"client": "web"}
    if options:
        params["payment_method_options"] = options
    if order.tax != "off":
        price["tax_behavior"] = order.tax
        params |= {
            "automatic_tax": {"enabled": True},
            "billing_address_collection": "required",
            "customer_update": {"address": "auto", "name": "auto"},
            "tax_id_collection": {"enabled": True},
        }
    return cast(SessionCreateParams, params)


def recharge_params(order: ChargeOrder) -> PaymentIntentCreateParams:
    """The parameters of an automatic payment: now or not at all."""
    return {
        "amount": order.cents,
        "currency": "usd",
        "customer": order.customer_id,
        "payment_method": order.method_id,
        "off_session": True,
        "confirm": True,
        "error_on_requires_action": True,
        "description": "Dragonfly API credit",
        "metadata": {"topup": order.topup_id, "account": order.account_id},
    }


def refund_params(refund_id: str, intent_id: str, cents: int, reason: str) -> RefundCreateParams:
    """The parameters of a refund."""
    word = "fraudulent" if reason == "fraud_warning" else "requested_by_customer"
    params = {"payment_intent": intent_id, "amount": cents, "reason": word, "metadata": {"refund": refund_id}}
    return cast(RefundCreateParams, params)


@contextmanager
def _reaching() -> Iterator[None]:
    """The SDK's errors as ours. Their words are dropped: they may quote what was sent."""
    try:
        yield
    except stripe.CardError as failure:
        intent = getattr(failure.error, "payment_intent", None)
        decline_code = getattr(failure.error, "decline_code", None)
        intent_id = "" if intent is None else str(intent["id"])
        raise CardRefused(failure.code or "card_declined", decline_code or "", intent_id) from None
    except stripe.IdempotencyError:
        raise StripeRefused("idempotency_error") from None
    except stripe.InvalidRequestError as failure:
        if failure.code == "resource_missing":
            raise ObjectMissing from None
        raise StripeRefused(failure.code or "invalid_request") from None
    except (stripe.AuthenticationError, stripe.PermissionError):
        raise StripeRefused("key_refused") from None
    except stripe.StripeError:
        raise StripeAway from None


def _bounded(listed: stripe.ListObject[L]) -> Iterator[Mapping[str, object]]:
    for number, one in enumerate(listed.auto_paging_iter()):
        if number >= PAGE * PAGES_MAX:
            return
        yield one.to_dict()

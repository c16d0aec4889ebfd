"""What is ordered at Stripe, and how it can fail; the calls themselves: `stripe_calls`. Amounts in cents."""

from dataclasses import dataclass

from dragonfly.core.errors import DragonflyError


class StripeAway(DragonflyError):
    """Stripe cannot be reached, is overloaded or failed. Trying again is safe."""

    code = "payments_unavailable"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The payment provider does not answer at the moment. Try again in a minute; nothing is lost."
        )
        self.retry_after_s = 30.0


class StripeRefused(DragonflyError):
    """Stripe does not carry a request out; `reason` is its code, one word."""

    code = "payment_refused"
    status = 400

    def __init__(self, reason: str) -> None:
        super().__init__("The payment provider refused this. Check the payment's state, or contact support.")
        self.reason = reason


class CardRefused(DragonflyError):
    """A saved card was not charged."""

    code = "card_refused"
    status = 402

    def __init__(self, reason: str, decline_code: str, intent_id: str) -> None:
        super().__init__("The card was declined. Use another card, or ask the bank that issued it.")
        self.reason = reason
        self.decline_code = decline_code
        self.intent_id = intent_id


class ObjectMissing(DragonflyError):
    """Stripe knows no such object."""

    code = "payment_unknown"
    status = 404

    def __init__(self) -> None:
        super().__init__("The payment provider knows no such payment. Check the id.")


@dataclass(frozen=True, slots=True)
class CheckoutOrder:
    """A payment page to be made."""

    topup_id: str
    account_id: str
    customer_id: str
    cents: int
    tax: str
    """"off", "exclusive" or "inclusive"."""
    methods: tuple[str, ...]
    saves_card: bool
    language: str
    success_url: str
    cancel_url: str
    expires_s: int


@dataclass(frozen=True, slots=True)
class ChargeOrder:
    """A saved card to be charged without its owner."""

    topup_id: str
    account_id: str
    customer_id: str
    method_id: str
    cents: int

"""What Stripe shows, as our own values: only the fields that are needed, checked for their type. Amounts in cents."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Shown = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """A Checkout Session as Stripe has it now."""

    id: str
    status: str
    is_paid: bool
    is_free: bool
    """Nothing had to be paid, e.g. after a discount."""
    topup_id: str
    account_id: str
    customer_id: str
    currency: str
    livemode: bool
    subtotal_cents: int
    tax_cents: int
    total_cents: int
    url: str
    expires_s: int
    intent_id: str


@dataclass(frozen=True, slots=True)
class CardSeen:
    """What may be shown of a card."""

    brand: str
    last4: str

    @property
    def label(self) -> str:
        return f"{self.brand} {self.last4}"


class FeeSeen(NamedTuple):
    """What Stripe kept with one movement of the balance."""

    movement_id: str
    cents: int


@dataclass(frozen=True, slots=True)
class ChargeSeen:
    """A charge as Stripe has it now."""

    id: str
    is_paid: bool
    receipt_url: str
    method: str
    country: str
    fee: FeeSeen | None
    """None: not known yet."""
    refunded_cents: int
    is_disputed: bool
    card: CardSeen | None


@dataclass(frozen=True, slots=True)
class IntentSeen:
    """A PaymentIntent as Stripe has it now."""

    id: str
    status: str
    topup_id: str
    account_id: str
    customer_id: str
    currency: str
    livemode: bool
    amount_cents: int
    received_cents: int
    created_s: int
    method_id: str
    saves_card: bool
    error: str
    decline_code: str
    charge: ChargeSeen | None


@dataclass(frozen=True, slots=True)
class RefundSeen:
    """A refund as Stripe has it now."""

    id: str
    intent_id: str
    amount_cents: int
    currency: str
    status: str
    reason: str
    own_id: str
    """Our id of it; empty for one made in the dashboard."""
    failure: str
    created_s: int


@dataclass(frozen=True, slots=True)
class DisputeSeen:
    """A dispute as Stripe has it now."""

    id: str
    intent_id: str
    amount_cents: int
    currency: str
    status: str
    reason: str
    fees: tuple[FeeSeen, ...]
    due_s: int
    created_s: int


class WarningSeen(NamedTuple):
    """An early fraud warning as Stripe has it now."""

    id: str
    intent_id: str
    kind: str
    is_actionable: bool
    created_s: int


class MovementSeen(NamedTuple):
    """A movement of the balance at Stripe."""

    id: str
    kind: str
    category: str
    source: str
    amount_cents: int
    fee_cents: int
    created_s: int


def read_session(shown: Shown) -> SessionSeen:
    metadata = _inner(shown, "metadata")
    return SessionSeen(
        id=_word(shown, "id"),
        status=_word(shown, "status"),
        is_paid=shown.get("payment_status") == "paid",
        is_free=shown.get("payment_status") == "no_payment_required",
        topup_id=_word(metadata, "topup"),
        account_id=_word(metadata, "account"),
        customer_id=_id(shown, "customer"),
        currency=_word(shown, "currency"),
        livemode=shown.get("livemode") is True,
        subtotal_cents=_number(shown, "amount_subtotal"),
        tax_cents=_number(_inner(shown, "total_details"), "amount_tax"),
        total_cents=_number(shown, "amount_total"),
        url=_word(shown, "url"),
        expires_s=_number(shown, "expires_at"),
        intent_id=_id(shown, "payment_intent"),
    )


def read_intent(shown: Shown) -> IntentSeen:
    metadata, error = _inner(shown, "metadata"), _inner(shown, "last_payment_error")
    charge = _inner(shown, "latest_charge")
    return IntentSeen(
        id=_word(shown, "id"),
        status=_word(shown, "status"),
        topup_id=_word(metadata, "topup"),
        account_id=_word(metadata, "account"),
        customer_id=_id(shown, "customer"),
        currency=_word(shown, "currency"),
        livemode=shown.get("livemode") is True,
        amount_cents=_number(shown, "amount"),
        received_cents=_number(shown, "amount_received"),
        created_s=_number(shown, "created"),
        method_id=_id(shown, "payment_method"),
        saves_card=shown.get("setup_future_usage") == "off_session",
        error=_word(error, "code"),
        decline_code=_word(error, "decline_code"),
        charge=_charge(charge) if charge else None,
    )


def _charge(shown: Shown) -> ChargeSeen:
    details, balance = _inner(shown, "payment_method_details"), _inner(shown, "balance_transaction")
    card = _inner(details, "card")
    return ChargeSeen(
        id=_word(shown, "id"),
        is_paid=shown.get("paid") is True and shown.get("status") == "succeeded",
        receipt_url=_word(shown, "receipt_url"),
        method=_word(details, "type"),
        country=_word(_inner(_inner(shown, "billing_details"), "address"), "country"),
        fee=_fee(balance) if balance else None,
        refunded_cents=_number(shown, "amount_refunded"),
        is_disputed=shown.get("disputed") is True,
        card=CardSeen(_word(card, "brand"), _word(card, "last4")) if card else None,
    )


def read_refund(shown: Shown) -> RefundSeen:
    return RefundSeen(
        id=_word(shown, "id"),
        intent_id=_id(shown, "payment_intent"),
        amount_cents=_number(shown, "amount"),
        currency=_word(shown, "currency"),
        status=_word(shown, "status"),
        reason=_word(shown, "reason"),
        own_id=_word(_inner(shown, "metadata"), "refund"),
        failure=_word(shown, "failure_reason"),
        created_s=_number(shown, "created"),
    )


def read_dispute(shown: Shown) -> DisputeSeen:
    moved = shown.get("balance_transactions")
    fees = tuple(_fee(one) for one in moved if isinstance(one, Mapping)) if isinstance(moved, list) else ()
    return DisputeSeen(
        id=_word(shown, "id"),
        intent_id=_id(shown, "payment_intent"),
        amount_cents=_number(shown, "amount"),
        currency=_word(shown, "currency"),
        status=_word(shown, "status"),
        reason=_word(shown, "reason"),
        fees=fees,
        due_s=_number(_inner(shown, "evidence_details"), "due_by"),
        created_s=_number(shown, "created"),
    )


def read_warning(shown: Shown) -> WarningSeen:
    return WarningSeen(
        _word(shown, "id"),
        _id(shown, "payment_intent"),
        _word(shown, "fraud_type"),
        shown.get("actionable") is True,
        _number(shown, "created"),
    )


def read_movement(shown: Shown) -> MovementSeen:
    return MovementSeen(
        _word(shown, "id"),
        _word(shown, "type"),
        _word(shown, "reporting_category"),
        _word(shown, "source"),
        _number(shown, "amount"),
        _number(shown, "fee"),
        _number(shown, "created"),
    )


def _fee(shown: Shown) -> FeeSeen:
    return FeeSeen(_word(shown, "id"), _number(shown, "fee"))


def _word(shown: Shown, name: str) -> str:
    value = shown.get(name)
    return value if isinstance(value, str) else ""


def _number(shown: Shown, name: str) -> int:
    value = shown.get(name)
    return value if isinstance(value, int) else 0


def _inner(shown: Shown, name: str) -> Shown:
    value = shown.get(name)
    return value if isinstance(value, Mapping) else {}


def _id(shown: Shown, name: str) -> str:
    """The id of a related object, expanded or not."""
    value = shown.get(name)
    return _word(value, "id") if isinstance(value, Mapping) else value if isinstance(value, str) else ""

"""Decisions about payments without any I/O: limits, shares of tax, what a state of Stripe's means, pauses."""

import enum
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from dragonfly.core.errors import DragonflyError
from dragonfly.core.money import NUSD_PER_USD, divide_half_up

CENTS_PER_USD = 100
NUSD_PER_CENT = NUSD_PER_USD // CENTS_PER_USD
CURRENCY = "usd"
HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * HOUR_NS
RECHARGE_EVERY_NS = HOUR_NS
SOFT_DECLINES_MAX = 2
DISPUTE_RATE_WARNING_PER_MILLE = 3
DISPUTE_RATE_ALARM_PER_MILLE = 5
TRUST_STEP_DAYS = 30
"""After each of these without a dispute, a customer may top up more at once."""
METHODS = ("card", "link", "alipay", "wechat_pay")
EVENT_TRIES_MAX = 30
"""Over about a day."""
_RETRY_S_FIRST, _RETRY_S_MAX = 5, 3_600
_AMOUNT = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,2})?", re.ASCII)

# Stripe's page "Decline codes": reasons that a later attempt does not change. Everything else may pass.
HARD_DECLINES = frozenset(
    (
        "card_not_supported", "do_not_honor", "do_not_try_again", "expired_card", "fraudulent", "incorrect_number",
        "invalid_account", "lost_card", "merchant_blacklist", "new_account_information_available", "no_action_taken",
        "not_permitted", "pickup_card", "restricted_card", "revocation_of_all_authorizations",
        "revocation_of_authorization", "security_violation", "stolen_card", "stop_payment_order", "testmode_decline",
        "transaction_not_allowed",
    )
)  # fmt: skip


class AmountInvalid(DragonflyError):
    """An amount that cannot be topped up now."""

    code = "topup_amount_invalid"
    status = 400

    def __init__(self, cents_min: int, cents_max: int) -> None:
        super().__init__(
            f"A top-up is {cents_text(cents_min)} to {cents_text(cents_max)} USD for this account at the moment, with"
            " at most two decimals. The limit grows with time and with what was paid."
        )


class TopupLimits(NamedTuple):
    """What an operator allows, in cents."""

    cents_min: int
    first_cents_max: int
    cents_max: int
    checkouts_per_hour: int
    """Per account, and three times as many per network address."""
    declines_per_day: int


class Standing(NamedTuple):
    """What is known of an account when it wants to pay."""

    settled_cents: int
    """Paid in and neither refunded nor disputed."""
    first_paid_at_ns: int | None
    checkouts_hour: int
    address_checkouts_hour: int
    declines_day: int
    is_frozen: bool


class Shares(NamedTuple):
    """How what was charged divides, in cents."""

    credit_cents: int
    tax_cents: int


class Fate(enum.Enum):
    """What a state of a Stripe dispute means for the books."""

    INQUIRY = "inquiry"
    OPEN = "open"
    WON = "won"
    LOST = "lost"
    CLOSED = "closed"


class WarningResponse(enum.Enum):
    """What is done about an early fraud warning."""

    REFUND = "refund"
    REVIEW = "review"
    NONE = "none"


_FATES = {
    "warning_needs_response": Fate.INQUIRY,
    "warning_under_review": Fate.INQUIRY,
    "warning_closed": Fate.CLOSED,
    "prevented": Fate.CLOSED,
    "won": Fate.WON,
    "lost": Fate.LOST,
}


def parse_cents(text: str) -> int | None:
    """Dollars with at most two decimals as cents: "12.5" -> 1250; None for anything else."""
    return int(Decimal(text) * CENTS_PER_USD) if _AMOUNT.fullmatch(text) else None


def cents_text(cents: int) -> str:
    """1250 -> "12.50"."""
    return f"{cents // CENTS_PER_USD}.{cents % CENTS_PER_USD:02d}"


def topup_cents_max(limits: TopupLimits, standing: Standing, now_ns: int) -> int:
    """The most this account may pay at once: the first time little; then as much again as it has settled, and more
    for every month since its first payment."""
    if standing.first_paid_at_ns is None:
        return min(limits.first_cents_max, limits.cents_max)
    months = (now_ns - standing.first_paid_at_ns) // (TRUST_STEP_DAYS * DAY_NS)
    grown = limits.first_cents_max * (1 + months) + 2 * standing.settled_cents
    return min(limits.cents_max, grown)


def shares_of(amount_cents: int, tax_cents: int, total_cents: int, tax: str) -> Shares | None:
    """Credit and tax in a payment of `total_cents`; None when the payment does not fit what was asked for."""
    if tax == "off" and (tax_cents or total_cents != amount_cents):
        return None
    if tax == "exclusive" and total_cents != amount_cents + tax_cents:
        return None
    if tax == "inclusive" and (total_cents != amount_cents or tax_cents >= total_cents):
        return None
    return Shares(total_cents - tax_cents, tax_cents)


def credit_share_nusd(part_cents: int, credit_nusd: int, total_cents: int) -> int:
    """The credit in a part of a payment, in proportion; half up."""
    return min(credit_nusd, divide_half_up(part_cents * credit_nusd, total_cents))


def total_share_cents(part_nusd: int, credit_nusd: int, total_cents: int) -> int:
    """What goes back for a part of the credit, tax in proportion; half up."""
    return min(total_cents, divide_half_up(part_nusd * total_cents, credit_nusd))


def fate_of(status: str) -> Fate:
    """What Stripe's word for the state of a dispute means; a word that is not known yet counts as open."""
    return _FATES.get(status, Fate.OPEN)


def is_hard_decline(code: str, decline_code: str) -> bool:
    """True when trying the same card again is pointless, or forbidden by the card networks."""
    return code in HARD_DECLINES or decline_code in HARD_DECLINES


def warning_response(*, is_actionable: bool, remaining_nusd: int, credit_nusd: int) -> WarningResponse:
    """Only a full refund removes the exposure: so what is all there goes back, the rest is for a person to decide."""
    if not is_actionable:
        return WarningResponse.NONE
    return WarningResponse.REFUND if remaining_nusd == credit_nusd else WarningResponse.REVIEW


def retry_after_s(tries: int) -> int:
    """5, 10, 20 … seconds, at most an hour."""
    return min(_RETRY_S_MAX, _RETRY_S_FIRST << min(tries, 20))


def month_of(now_ns: int) -> tuple[int, int]:
    """The month in UTC as its first nanosecond and the first one after it."""
    now = datetime.fromtimestamp(now_ns // 10**9, UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0)
    following = (first + timedelta(days=32)).replace(day=1)
    return int(first.timestamp()) * 10**9, int(following.timestamp()) * 10**9

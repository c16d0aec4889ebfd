"""The bodies and answers of /api/wallet. Amounts leave as decimal text in dollars, moments as RFC 3339."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from dragonfly.api.shapes import Strict
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.money import usd_text
from dragonfly.ledger.queries import Credit, StoredLot
from dragonfly.payments.queries import Billing, Refund, Topup
from dragonfly.payments.recharge import Recharge
from dragonfly.payments.rules import cents_text

DollarText = Annotated[
    str, Field(pattern=r"^[0-9]{1,7}(\.[0-9]{1,2})?$", max_length=10, examples=["20.00"], description="USD")
]
TopupState = Literal["created", "open", "processing", "paid", "failed", "expired", "mismatch"]
RefundState = Literal["requested", "declined", "approved", "pending", "succeeded", "failed", "refused"]


class CardPayments(BaseModel):
    """Whether one can pay here, and how much."""

    enabled: bool
    message: str
    methods: list[str]
    tax: Literal["off", "exclusive", "inclusive"]
    minimum: str | None
    maximum: str | None
    simulated: Annotated[bool, Field(description="No money moves: this is a demo.")]


class WalletShown(BaseModel):
    """What the account has. 1 credit is 0.01 USD, a unit for display only."""

    balance: Annotated[str, Field(description="Settled money.")]
    held: Annotated[str, Field(description="The part that running requests hold.")]
    available: str
    used: Annotated[str, Field(description="Everything ever charged.")]
    frozen: Annotated[bool, Field(description="Stopped because of a dispute, a fraud warning or by an operator.")]
    card_payments: CardPayments


class LotShown(BaseModel):
    """Credit of one origin. Promotional credit is spent first, what expires soonest before the rest."""

    id: str
    source: Literal["paid", "promo"]
    amount: str
    remaining: str
    expires_at: Annotated[str | None, Field(description="Paid credit never expires.")]
    created_at: str


class TransactionShown(BaseModel):
    """One event other than usage that changed the balance."""

    id: str
    kind: str
    amount: Annotated[str, Field(description="Negative: it left the wallet.")]
    created_at: str


class TopupWanted(Strict):
    """A payment to be made at Stripe's page."""

    amount: DollarText
    language: Annotated[str, Field(max_length=20)] = "en"
    save_card: Annotated[bool, Field(description="Keep the card at Stripe for automatic top-ups.")] = False


class TopupShown(BaseModel):
    """A top-up. Open `url` to pay while the state is `open`."""

    id: str
    kind: Literal["checkout", "recharge"]
    state: TopupState
    amount: str
    tax: str
    total: str | None
    credit: str | None
    url: Annotated[str | None, Field(description="Stripe's payment page.")]
    method: str | None
    failure: str | None
    stripe_receipt_url: str | None
    created_at: str
    paid_at: str | None
    expires_at: str | None


class RefundWanted(Strict):
    """A request to support. Without an amount: all that is unused of the payment."""

    topup: Annotated[str, Field(max_length=80)]
    amount: DollarText | None = None
    reason: Literal["not_needed", "mistake", "quality", "other"]


class RefundShown(BaseModel):
    """A refund, to the payment method that was used."""

    id: str
    topup: str
    state: RefundState
    amount: Annotated[str, Field(description="What goes back, tax included.")]
    credit: str
    reason: str
    failure: str | None
    created_at: str
    ended_at: str | None


class RechargeWanted(Strict):
    """An agreement to automatic top-ups: below `threshold` pay `amount`, at most `monthly_cap` in a month (UTC)."""

    threshold: DollarText
    amount: DollarText
    monthly_cap: DollarText


class RechargeShown(BaseModel):
    """Automatic top-ups of the account."""

    state: Literal["off", "on", "paused"]
    pause_reason: Annotated[
        str | None,
        Field(description="card_needed, card_removed, declined, refused, tax_added or authentication_required."),
    ]
    threshold: str | None
    amount: str | None
    monthly_cap: str | None
    card: Annotated[str | None, Field(description="Brand and last four digits.")]
    last_attempt_at: str | None


class BillingShown(Strict):
    """What stands on receipts."""

    name: Annotated[str, Field(max_length=200)] = ""
    company: Annotated[str, Field(max_length=200)] = ""
    address: Annotated[str, Field(max_length=500)] = ""
    country: Annotated[str, Field(pattern=r"^([A-Z]{2})?$")] = ""
    tax_id: Annotated[str, Field(max_length=50)] = ""


class ReceiptShown(BaseModel):
    """A receipt, as data; `…/receipt.html` is the same to print."""

    topup: str
    paid_at: str
    credit: str
    tax: str
    total: str
    method: str | None
    country: str | None
    net: Annotated[str, Field(description="The total without tax, in dollars and cents.")]
    refunded: str
    kept: Annotated[str, Field(description="The total without what was refunded.")]
    stripe_receipt_url: str | None
    billing: BillingShown


class ReceiptLink(BaseModel):
    """A page that needs no session: whoever has the link reads the receipt, for a quarter of an hour."""

    url: str
    expires_at: str


class CodeWanted(Strict):
    """A promotional code."""

    code: Annotated[str, Field(min_length=4, max_length=60)]


class CodeRedeemed(BaseModel):
    """What the code gave."""

    amount: str
    expires_at: str | None


def topup_shown(topup: Topup) -> TopupShown:
    is_open = topup.state == "open"
    return TopupShown.model_validate(
        {
            "id": topup.id,
            "kind": topup.kind,
            "state": topup.state,
            "amount": cents_text(topup.amount_cents),
            "tax": cents_text(topup.tax_cents),
            "total": None if topup.total_cents is None else cents_text(topup.total_cents),
            "credit": None if topup.credit_nusd is None else usd_text(topup.credit_nusd),
            "url": topup.session_url if is_open else None,
            "method": topup.method,
            "failure": topup.failure,
            "stripe_receipt_url": topup.receipt_url,
            "created_at": moment_text(topup.created_at_ns),
            "paid_at": _moment(topup.paid_at_ns),
            "expires_at": _moment(topup.expires_at_ns) if is_open else None,
        }
    )


def refund_shown(refund: Refund) -> RefundShown:
    return RefundShown.model_validate(
        {
            "id": refund.id,
            "topup": refund.topup_id,
            "state": refund.state,
            "amount": cents_text(refund.amount_cents),
            "credit": usd_text(refund.credit_nusd),
            "reason": refund.reason,
            "failure": refund.failure,
            "created_at": moment_text(refund.created_at_ns),
            "ended_at": _moment(refund.ended_at_ns),
        }
    )


def recharge_shown(recharge: Recharge | None) -> RechargeShown:
    if recharge is None or recharge.state == "off":
        nothing = dict.fromkeys(("pause_reason", "threshold", "amount", "monthly_cap", "card", "last_attempt_at"))
        return RechargeShown.model_validate({"state": "off", **nothing})
    return RechargeShown.model_validate(
        {
            "state": recharge.state,
            "pause_reason": recharge.pause_reason,
            "threshold": usd_text(recharge.threshold_nusd),
            "amount": cents_text(recharge.amount_cents),
            "monthly_cap": cents_text(recharge.monthly_cap_cents),
            "card": recharge.card_label,
            "last_attempt_at": _moment(recharge.attempted_at_ns),
        }
    )


def lot_shown(lot: StoredLot) -> LotShown:
    return LotShown.model_validate(
        {
            "id": lot.id,
            "source": lot.source,
            "amount": usd_text(lot.amount_nusd),
            "remaining": usd_text(lot.remaining_nusd),
            "expires_at": _moment(lot.expires_at_ns),
            "created_at": moment_text(lot.created_at_ns),
        }
    )


def transaction_shown(credit: Credit) -> TransactionShown:
    return TransactionShown(
        id=credit.group_id,
        kind=credit.kind,
        amount=usd_text(credit.amount_nusd),
        created_at=moment_text(credit.created_at_ns),
    )


def billing_shown(billing: Billing) -> BillingShown:
    return BillingShown(**billing._asdict())


def receipt_shown(topup: Topup, refunds: list[Refund], billing: Billing) -> ReceiptShown:
    assert topup.paid_at_ns is not None, "a receipt is for a paid top-up"
    back_cents = sum(one.amount_cents for one in refunds if one.state in ("pending", "succeeded"))
    return ReceiptShown(
        topup=topup.id,
        paid_at=moment_text(topup.paid_at_ns),
        credit=usd_text(topup.credit_nusd or 0),
        tax=cents_text(topup.tax_cents),
        total=cents_text(topup.total_cents or 0),
        method=topup.method,
        country=topup.country,
        net=cents_text((topup.total_cents or 0) - topup.tax_cents),
        refunded=cents_text(back_cents),
        kept=cents_text((topup.total_cents or 0) - back_cents),
        stripe_receipt_url=topup.receipt_url,
        billing=billing_shown(billing),
    )


def _moment(at_ns: int | None) -> str | None:
    return None if at_ns is None else moment_text(at_ns)

"""The bodies and answers of /api/admin/payments. Amounts leave as decimal text in dollars, moments as RFC 3339."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from dragonfly.api.shapes import Moment, Strict, Usd
from dragonfly.api.wallet_shapes import DollarText, RefundShown, TopupShown, refund_shown, topup_shown
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.money import usd_text
from dragonfly.payments.promo import CODES_AT_ONCE_MAX, PromoCode
from dragonfly.payments.queries import Dispute, FraudWarning, Refund, StoredEvent, Topup
from dragonfly.payments.report import Margin, Report
from dragonfly.payments.rules import cents_text


class TopupFound(TopupShown):
    """A payment with whose it is and Stripe's ids."""

    account: str
    session_id: str | None
    intent_id: str | None
    charge_id: str | None
    country: str | None


class RefundFound(RefundShown):
    """A refund with whose it is."""

    account: str
    source: Literal["request", "dashboard", "warning"]
    stripe_refund_id: str | None


class RefundDecision(Strict):
    """Yes, perhaps to a part; or no."""

    approve: bool
    amount: DollarText | None = None


class DisputeFound(BaseModel):
    """A dispute with what the bank can be shown."""

    id: str
    topup: str
    account: str
    state: Literal["inquiry", "open", "won", "lost", "closed"]
    amount: str
    credit: str
    reason: str
    evidence: dict[str, object]
    evidence_due_at: str | None
    opened_at: str
    closed_at: str | None


class WarningFound(BaseModel):
    """An early fraud warning."""

    id: str
    topup: str
    account: str
    kind: str
    response: Literal["refund", "review", "none"]
    created_at: str


class DisputesShown(BaseModel):
    """Disputes, warnings, and their share of the payments by card of 30 days."""

    data: list[DisputeFound]
    next_cursor: str | None
    warnings: list[WarningFound]
    disputes_30_days: int
    payments_30_days: int


class EventFound(BaseModel):
    """What Stripe told, reduced to the needed fields."""

    id: str
    type: str
    object_id: str
    state: Literal["new", "done", "refused", "dead"]
    reason: str | None
    account: str | None
    tries: int
    happened_at: str
    received_at: str
    handled_at: str | None


class EventsShown(BaseModel):
    """Events of a state, and requests to the webhook that were refused within 30 days."""

    data: list[EventFound]
    refused_requests: dict[str, int]


class CodesWanted(Strict):
    """A batch of codes."""

    count: Annotated[int, Field(ge=1, le=CODES_AT_ONCE_MAX)]
    amount: Usd
    uses: Annotated[int, Field(ge=1, le=1_000_000, description="Of each code, over all accounts.")] = 1
    per_account: Annotated[int, Field(ge=1, le=1_000, description="Codes of the batch for one account.")] = 1
    expires_at: Moment | None = None
    credit_days: Annotated[int, Field(ge=1, le=3_650)] | None = None
    note: Annotated[str, Field(max_length=200)] = ""


class CodesMade(BaseModel):
    """The codes, shown this once."""

    codes: list[str] | None


class CodeFound(BaseModel):
    """A code without its text."""

    id: str
    batch: str
    hint: str
    amount: str
    uses_max: int
    uses: int
    per_account: int
    expires_at: str | None
    credit_days: int | None
    note: str
    revoked_at: str | None


class GrantWanted(Strict):
    """Promotional credit by hand."""

    account: Annotated[str, Field(max_length=80)]
    amount: Usd
    reason: Annotated[str, Field(min_length=3, max_length=150)]
    expires_at: Moment | None = None
    key: Annotated[str, Field(min_length=1, max_length=100, description="The same key grants once.")]


class LineShown(BaseModel):
    """One kind of movement: Stripe's balance against our books."""

    kind: str
    stripe: str
    books: str
    difference: str


class DifferenceShown(BaseModel):
    """A payment that only one side has, or with another amount."""

    intent_id: str
    topup: str
    stripe: str
    books: str


class Comparison(BaseModel):
    """Stripe against the ledger."""

    lines: list[LineShown]
    differences: list[DifferenceShown]


class MarginShown(BaseModel):
    """What a model earned and cost."""

    model: str
    requests: int
    revenue: str
    upstream: str
    absorbed: Annotated[str, Field(description="The part of the upstream cost that no customer paid.")]
    margin: str


def topup_found(one: Topup) -> TopupFound:
    return TopupFound(
        **topup_shown(one).model_dump(),
        account=one.account_id,
        session_id=one.session_id,
        intent_id=one.intent_id,
        charge_id=one.charge_id,
        country=one.country,
    )


def refund_found(one: Refund) -> RefundFound:
    return RefundFound.model_validate(
        refund_shown(one).model_dump()
        | {"account": one.account_id, "source": one.source, "stripe_refund_id": one.stripe_refund_id}
    )


def comparison_shown(found: Report) -> Comparison:
    lines = [
        LineShown(
            kind=line.kind,
            stripe=usd_text(line.stripe_nusd),
            books=usd_text(line.books_nusd),
            difference=usd_text(line.difference_nusd),
        )
        for line in found.lines
    ]
    differences = [
        DifferenceShown(
            intent_id=one.intent_id,
            topup=one.topup_id,
            stripe=usd_text(one.stripe_nusd),
            books=usd_text(one.books_nusd),
        )
        for one in found.differences
    ]
    return Comparison(lines=lines, differences=differences)


def dispute_found(one: Dispute) -> DisputeFound:
    return DisputeFound.model_validate(
        {
            "id": one.id,
            "topup": one.topup_id,
            "account": one.account_id,
            "state": one.state,
            "amount": cents_text(one.amount_cents),
            "credit": usd_text(one.credit_nusd),
            "reason": one.reason,
            "evidence": json.loads(one.evidence),
            "evidence_due_at": _moment(one.due_at_ns),
            "opened_at": moment_text(one.opened_at_ns),
            "closed_at": _moment(one.closed_at_ns),
        }
    )


def warning_found(one: FraudWarning) -> WarningFound:
    return WarningFound.model_validate(
        {
            "id": one.id,
            "topup": one.topup_id,
            "account": one.account_id,
            "kind": one.kind,
            "response": one.response,
            "created_at": moment_text(one.created_at_ns),
        }
    )


def event_found(one: StoredEvent) -> EventFound:
    return EventFound.model_validate(
        {
            "id": one.event_id,
            "type": one.type,
            "object_id": one.object_id,
            "state": one.state,
            "reason": one.reason,
            "account": one.account_id,
            "tries": one.tries,
            "happened_at": moment_text(one.happened_at_ns),
            "received_at": moment_text(one.received_at_ns),
            "handled_at": _moment(one.handled_at_ns),
        }
    )


def code_found(one: PromoCode) -> CodeFound:
    return CodeFound(
        id=one.id,
        batch=one.batch_id,
        hint=one.hint,
        amount=usd_text(one.amount_nusd),
        uses_max=one.uses_max,
        uses=one.uses,
        per_account=one.per_account_max,
        expires_at=_moment(one.expires_at_ns),
        credit_days=one.credit_days,
        note=one.note,
        revoked_at=_moment(one.revoked_at_ns),
    )


def margin_shown(one: Margin) -> MarginShown:
    return MarginShown(
        model=one.model,
        requests=one.requests,
        revenue=usd_text(one.revenue_nusd),
        upstream=usd_text(one.upstream_nusd),
        absorbed=usd_text(one.absorbed_nusd),
        margin=usd_text(one.margin_nusd),
    )


def _moment(at_ns: int | None) -> str | None:
    return None if at_ns is None else moment_text(at_ns)

"""/api/admin/payments: what operators see and decide about money."""

import json
import os
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from dragonfly.api.principal import Principal, operator
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import (
    PAGE_DEFAULT,
    Cursor,
    Day,
    Limit,
    Moment,
    Page,
    Strict,
    Usd,
    cursor_position,
    day_number,
    page_of,
)
from dragonfly.api.wallet import PaymentDesk
from dragonfly.api.wallet_shapes import DollarText, RefundShown, RefundState, TopupShown, refund_shown, topup_shown
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.money import usd_text
from dragonfly.ledger.actions import grant_credit
from dragonfly.payments.clawbacks import unfreeze_for
from dragonfly.payments.events import resend_event
from dragonfly.payments.orders import StripeAway
from dragonfly.payments.promo import (
    CODE_LENGTH,
    CODES_AT_ONCE_MAX,
    PromoCode,
    PromoWish,
    codes_page,
    make_codes,
    revoke_batch,
)
from dragonfly.payments.queries import (
    Dispute,
    FraudWarning,
    StoredEvent,
    dispute_rate,
    disputes_page,
    events_in,
    refunds_in,
    refusals_since,
    search_topups,
    warnings_page,
)
from dragonfly.payments.reconciling import reconcile
from dragonfly.payments.refunding import approve_refund, decline_refund, send_refund
from dragonfly.payments.report import Margin, compare, margins
from dragonfly.payments.rules import DAY_NS, cents_text

Operator = Annotated[Principal, Depends(operator)]
Name = Annotated[str, Path(min_length=1, max_length=120)]
DAY_S = 86_400


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


class EventNotFound(DragonflyError):
    """There is no dead or refused event with this id."""

    code = "event_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no event with this id that was given up or refused.")


def payment_admin_routes(payments: PaymentDesk) -> APIRouter:
    """For operators with a second factor."""
    routes = APIRouter(prefix="/api/admin/payments", tags=["payments for operators"])
    _search(routes, payments)
    _refunds(routes, payments)
    _trouble(routes, payments)
    _credit(routes, payments)
    _reports(routes, payments)
    return routes


def _search(routes: APIRouter, payments: PaymentDesk) -> None:
    @routes.get("/topups", operation_id="search_topups", summary="Find payments by any id")
    async def search(
        _: Operator,
        q: Annotated[str, Query(max_length=200, description="An id of ours or Stripe's; empty: the newest.")] = "",
        limit: Limit = PAGE_DEFAULT,
        cursor: Cursor = None,
    ) -> Page[TopupFound]:
        position = cursor_position("admin_topups", cursor, int, str)
        before = None if position is None else (int(position[0]), str(position[1]))

        def find(connection: Connection) -> Page[TopupFound]:
            found = search_topups(connection, q, before=before, limit=limit + 1)
            page, following = page_of(found, limit, "admin_topups", lambda one: (one.created_at_ns, one.id))
            shown = [
                TopupFound(
                    **topup_shown(one).model_dump(),
                    account=one.account_id,
                    session_id=one.session_id,
                    intent_id=one.intent_id,
                    charge_id=one.charge_id,
                    country=one.country,
                )
                for one in page
            ]
            return Page(data=shown, next_cursor=following)

        return await payments.desk.read(find)


def _refunds(routes: APIRouter, payments: PaymentDesk) -> None:
    desk = payments.desk

    @routes.get("/refunds", operation_id="list_refunds_by_state", summary="Refunds of a state, the oldest first")
    async def list_refunds(
        _: Operator, state: RefundState = "requested", limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
    ) -> Page[RefundFound]:
        position = cursor_position("admin_refunds", cursor, str)
        after = "" if position is None else str(position[0])

        def find(connection: Connection) -> Page[RefundFound]:
            found = refunds_in(connection, state, after=after, limit=limit + 1)
            page, following = page_of(found, limit, "admin_refunds", lambda one: (one.id,))
            shown = [
                RefundFound.model_validate(
                    refund_shown(one).model_dump()
                    | {
                        "account": one.account_id,
                        "source": one.source,
                        "stripe_refund_id": one.stripe_refund_id,
                    }
                )
                for one in page
            ]
            return Page(data=shown, next_cursor=following)

        return await desk.read(find)

    @routes.post("/refunds/{refund_id}", operation_id="decide_refund", summary="Approve or decline a refund request")
    async def decide(principal: Operator, refund_id: Name, decision: RefundDecision) -> RefundShown:
        """An approved refund is sent to Stripe at once; if Stripe does not answer, again within minutes."""
        cashier, now_ns = payments.open(), desk.clock.now_ns()
        decided_by = principal.account_id
        if not decision.approve:
            declined = await desk.write(
                lambda connection: decline_refund(connection, refund_id, decided_by=decided_by, now_ns=now_ns)
            )
            return refund_shown(declined)
        approved = await desk.write(
            lambda connection: approve_refund(
                connection, refund_id, amount=decision.amount, decided_by=decided_by, now_ns=now_ns
            )
        )
        try:
            await payments.threads.run(send_refund, cashier, approved)
        except StripeAway:
            pass  # the job that resumes refunds asks again
        return refund_shown(approved)


def _trouble(routes: APIRouter, payments: PaymentDesk) -> None:
    desk = payments.desk

    @routes.get("/disputes", operation_id="list_disputes", summary="Disputes with evidence, and fraud warnings")
    async def list_disputes(_: Operator, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> DisputesShown:
        position = cursor_position("disputes", cursor, int, str)
        before = None if position is None else (int(position[0]), str(position[1]))
        since_ns = desk.clock.now_ns() - 30 * DAY_NS

        def find(connection: Connection) -> DisputesShown:
            found = disputes_page(connection, before=before, limit=limit + 1)
            page, following = page_of(found, limit, "disputes", lambda one: (one.opened_at_ns, one.id))
            rate = dispute_rate(connection, since_ns=since_ns)
            return DisputesShown(
                data=[_dispute_found(one) for one in page],
                next_cursor=following,
                warnings=[_warning_found(one) for one in warnings_page(connection, limit=limit)],
                disputes_30_days=rate.disputes,
                payments_30_days=rate.payments,
            )

        return await desk.read(find)

    @routes.post(
        "/accounts/{account_id}/unfreeze/{cause}",
        status_code=204,
        operation_id="lift_payment_freeze",
        summary="Lift a freeze that a dispute or warning caused",
    )
    async def unfreeze(_: Operator, account_id: Name, cause: Name) -> None:
        now_ns = desk.clock.now_ns()
        await desk.write(lambda connection: unfreeze_for(connection, AccountId(account_id), cause, now_ns=now_ns))

    @routes.get("/events", operation_id="list_payment_events", summary="What Stripe told, by state")
    async def list_events(
        _: Operator, state: Literal["new", "done", "refused", "dead"] = "dead", limit: Limit = PAGE_DEFAULT
    ) -> EventsShown:
        first_day = desk.clock.now_ns() // DAY_NS - 30

        def find(connection: Connection) -> EventsShown:
            found = events_in(connection, state, limit=limit)
            refusals = refusals_since(connection, first_day=first_day)
            return EventsShown(data=[_event_found(one) for one in found], refused_requests=refusals)

        return await desk.read(find)

    @routes.post(
        "/events/{event_id}/resend", status_code=204, operation_id="resend_event", summary="Look at an event again"
    )
    async def resend(_: Operator, event_id: Name) -> None:
        now_ns = desk.clock.now_ns()
        if not await desk.write(lambda connection: resend_event(connection, event_id, now_ns=now_ns)):
            raise EventNotFound


def _credit(routes: APIRouter, payments: PaymentDesk) -> None:
    desk = payments.desk

    @routes.post(
        "/codes", status_code=201, operation_id="make_codes", summary="Make codes", openapi_extra=kept("codes")
    )
    async def make(principal: Operator, wanted: CodesWanted) -> CodesMade:
        wish = PromoWish(
            count=wanted.count,
            amount_nusd=wanted.amount,
            uses_max=wanted.uses,
            per_account_max=wanted.per_account,
            expires_at_ns=wanted.expires_at,
            credit_days=wanted.credit_days,
            note=wanted.note,
        )
        random = os.urandom(CODE_LENGTH * wanted.count)
        codes = await desk.write(
            lambda connection: make_codes(
                connection,
                desk.ids,
                wish,
                random=random,
                created_by=principal.account_id,
                now_ns=desk.clock.now_ns(),
            )
        )
        return CodesMade(codes=codes)

    @routes.get("/codes", operation_id="list_codes", summary="Codes and how often they were used")
    async def list_codes(
        _: Operator,
        batch: Annotated[str, Query(max_length=80)] = "",
        limit: Limit = PAGE_DEFAULT,
        cursor: Cursor = None,
    ) -> Page[CodeFound]:
        position = cursor_position("codes", cursor, str)
        after = "" if position is None else str(position[0])

        def find(connection: Connection) -> Page[CodeFound]:
            found = codes_page(connection, batch_id=batch, after=after, limit=limit + 1)
            page, following = page_of(found, limit, "codes", lambda one: (one.id,))
            return Page(data=[_code_found(one) for one in page], next_cursor=following)

        return await desk.read(find)

    @routes.delete("/codes/{batch_id}", status_code=204, operation_id="revoke_codes", summary="Withdraw a batch")
    async def revoke(_: Operator, batch_id: Name) -> None:
        now_ns = desk.clock.now_ns()
        await desk.write(lambda connection: revoke_batch(connection, batch_id, now_ns=now_ns))

    @routes.post("/grants", status_code=204, operation_id="grant_credit", summary="Give credit, with a reason")
    async def grant(principal: Operator, wanted: GrantWanted) -> None:
        now_ns = desk.clock.now_ns()
        await desk.write(
            lambda connection: grant_credit(
                connection,
                AccountId(wanted.account),
                amount_nusd=wanted.amount,
                idempotency_key=f"operator/{wanted.key}",
                expires_at_ns=wanted.expires_at,
                reason=f"{wanted.reason} ({principal.account_id[-6:]})",
                now_ns=now_ns,
            )
        )


def _reports(routes: APIRouter, payments: PaymentDesk) -> None:
    @routes.get("/comparison", operation_id="compare_with_stripe", summary="Stripe's balance against the ledger")
    async def comparison(_: Operator, first: Day, last: Day) -> Comparison:
        cashier = payments.open()
        since_s, until_s = day_number(first) * DAY_S, (day_number(last) + 1) * DAY_S
        found = await payments.threads.run(compare, cashier, since_s=since_s, until_s=until_s)
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

    @routes.post("/repair", status_code=204, operation_id="repair_payments", summary="Ask Stripe for what was missed")
    async def repair(_: Operator) -> None:
        await payments.threads.run(reconcile, payments.open())

    @routes.get("/margins", operation_id="list_margins", summary="Revenue and upstream cost per model")
    async def list_margins(_: Operator, first: Day, last: Day) -> list[MarginShown]:
        """At most the last 90 days, as long as usage rows live."""
        since_ns, until_ns = day_number(first) * DAY_NS, (day_number(last) + 1) * DAY_NS
        found = await payments.desk.read(lambda connection: margins(connection, since_ns=since_ns, until_ns=until_ns))
        return [_margin_shown(one) for one in found]


def _dispute_found(one: Dispute) -> DisputeFound:
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


def _warning_found(one: FraudWarning) -> WarningFound:
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


def _event_found(one: StoredEvent) -> EventFound:
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


def _code_found(one: PromoCode) -> CodeFound:
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


def _margin_shown(one: Margin) -> MarginShown:
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

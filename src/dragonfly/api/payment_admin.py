"""/api/admin/payments: what operators see and decide about money."""

import os
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy import Connection

from dragonfly.api.payment_admin_shapes import (
    CodeFound,
    CodesMade,
    CodesWanted,
    Comparison,
    DisputesShown,
    EventsShown,
    GrantWanted,
    MarginShown,
    RefundDecision,
    RefundFound,
    TopupFound,
    code_found,
    comparison_shown,
    dispute_found,
    event_found,
    margin_shown,
    refund_found,
    topup_found,
    warning_found,
)
from dragonfly.api.principal import Principal, operator
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import (
    PAGE_DEFAULT,
    Cursor,
    Day,
    Limit,
    Page,
    cursor_position,
    day_number,
    page_of,
)
from dragonfly.api.wallet import PaymentDesk
from dragonfly.api.wallet_shapes import RefundShown, RefundState, refund_shown
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.ledger.actions import grant_credit
from dragonfly.payments.clawbacks import unfreeze_for
from dragonfly.payments.events import resend_event
from dragonfly.payments.orders import StripeAway
from dragonfly.payments.promo import (
    CODE_LENGTH,
    PromoWish,
    codes_page,
    make_codes,
    revoke_batch,
)
from dragonfly.payments.queries import (
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
from dragonfly.payments.report import compare, margins
from dragonfly.payments.rules import DAY_NS

Operator = Annotated[Principal, Depends(operator)]
Name = Annotated[str, Path(min_length=1, max_length=120)]
DAY_S = 86_400


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
            return Page(data=[topup_found(one) for one in page], next_cursor=following)

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
            return Page(data=[refund_found(one) for one in page], next_cursor=following)

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
                data=[dispute_found(one) for one in page],
                next_cursor=following,
                warnings=[warning_found(one) for one in warnings_page(connection, limit=limit)],
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
            return EventsShown(data=[event_found(one) for one in found], refused_requests=refusals)

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
            return Page(data=[code_found(one) for one in page], next_cursor=following)

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
        return comparison_shown(found)

    @routes.post("/repair", status_code=204, operation_id="repair_payments", summary="Ask Stripe for what was missed")
    async def repair(_: Operator) -> None:
        await payments.threads.run(reconcile, payments.open())

    @routes.get("/margins", operation_id="list_margins", summary="Revenue and upstream cost per model")
    async def list_margins(_: Operator, first: Day, last: Day) -> list[MarginShown]:
        """At most the last 90 days, as long as usage rows live."""
        since_ns, until_ns = day_number(first) * DAY_NS, (day_number(last) + 1) * DAY_NS
        found = await payments.desk.read(lambda connection: margins(connection, since_ns=since_ns, until_ns=until_ns))
        return [margin_shown(one) for one in found]

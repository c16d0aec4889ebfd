"""/api/admin/data-requests: the review queue. Reading a request and each decision leave a row in the log."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field
from sqlalchemy import Connection

from dragonfly.api.data_requests import DataRequestShown, data_request_shown
from dragonfly.api.desk import Desk
from dragonfly.api.operating import Because, Case, Operator, Reason
from dragonfly.api.principal import Forbidden
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, Strict, cursor_position, page_of
from dragonfly.core.ids import AccountId
from dragonfly.operations.rules import AuditAction
from dragonfly.rights.actions import (
    DataRequestNotFound,
    RightsTools,
    approve,
    cancel,
    give_up_balance,
    note,
    open_request,
    refuse,
)
from dragonfly.rights.queries import DataRequest, request_by_id, requests_page
from dragonfly.rights.rules import NOTE_LENGTH_MAX, REASON_LENGTH_MAX, Origin, RequestKind, State

NOTED = "noted"
REFUSED = "the person was told the reason"
RequestPath = Annotated[str, Path(min_length=1, max_length=64, description="drq-…")]
AccountName = Annotated[str, Field(min_length=1, max_length=64, description="acc-…")]


class AdminDataRequestShown(DataRequestShown):
    """A request as operators see it."""

    account_id: Annotated[str | None, Field(description="null: from a stranger's ticket.")]
    ticket_id: str | None
    is_overdue: bool
    note: str | None
    reviewed_by: str | None
    certificate: Annotated[str | None, Field(description="JSON, signed by this installation.")]


class RequestWanted(Strict):
    """Somebody asked by letter, say."""

    account_id: AccountName
    kind: Literal["export", "deletion"]
    gives_up_balance: bool = False
    reason: Reason


class Approval(Strict):
    """Why, and for a stranger's request whose data it is about."""

    reason: Reason
    account_id: AccountName | None = None


class Refusal(Strict):
    """What the person is told."""

    reason: Annotated[str, Field(min_length=3, max_length=REASON_LENGTH_MAX, description="The person reads it.")]


class NoteWanted(Strict):
    """For other operators."""

    text: Annotated[str, Field(min_length=1, max_length=NOTE_LENGTH_MAX)]


class ReviewDesk:
    """The use cases of operators, each in one transaction with its row in the log."""

    def __init__(self, desk: Desk, tools: RightsTools) -> None:
        self._desk = desk
        self._tools = tools

    def shown(self, request: DataRequest) -> AdminDataRequestShown:
        return AdminDataRequestShown(
            **data_request_shown(request).model_dump(),
            account_id=request.account_id,
            ticket_id=request.ticket_id,
            is_overdue=request.is_overdue(self._desk.clock.now_ns()),
            note=request.note,
            reviewed_by=request.reviewed_by,
            certificate=request.certificate,
        )

    async def open(self, principal: Operator, wanted: RequestWanted) -> AdminDataRequestShown:
        def work(connection: Connection) -> AdminDataRequestShown:
            case = Case(connection, self._desk, principal)
            request = open_request(
                connection,
                self._tools,
                account_id=AccountId(wanted.account_id),
                kind=RequestKind(wanted.kind),
                origin=Origin.OPERATOR,
                ticket_id=None,
                gives_up_balance=wanted.gives_up_balance,
                now_ns=case.now_ns,
            )
            case.record(AuditAction.DATA_REQUEST_OPEN, request.id, wanted.reason)
            return self.shown(request)

        return await self._desk.write(work)

    async def read(self, principal: Operator, request_id: str) -> AdminDataRequestShown:
        def work(connection: Connection) -> AdminDataRequestShown:
            request = _existing(connection, request_id)
            Case(connection, self._desk, principal).record(AuditAction.DATA_REQUEST_READ, request.id)
            return self.shown(request)

        return await self._desk.write(work)

    async def approve(self, principal: Operator, request_id: str, wanted: Approval) -> AdminDataRequestShown:
        named = None if wanted.account_id is None else AccountId(wanted.account_id)

        def work(connection: Connection) -> AdminDataRequestShown:
            case, before = self._case(connection, principal, request_id)
            if principal.account_id in (before.account_id, named):
                raise Forbidden
            after = approve(
                connection,
                self._tools,
                request_id,
                reviewed_by=principal.account_id,
                account_id=named,
                now_ns=case.now_ns,
            )
            return self._recorded(case, before, after, AuditAction.DATA_REQUEST_APPROVE, wanted.reason)

        return await self._desk.write(work)

    async def refuse(self, principal: Operator, request_id: str, wanted: Refusal) -> AdminDataRequestShown:
        def work(connection: Connection) -> AdminDataRequestShown:
            case, before = self._case(connection, principal, request_id)
            after = refuse(
                connection,
                self._tools,
                request_id,
                reason=wanted.reason,
                reviewed_by=principal.account_id,
                now_ns=case.now_ns,
            )
            return self._recorded(case, before, after, AuditAction.DATA_REQUEST_REFUSE, REFUSED)

        return await self._desk.write(work)

    async def cancel(self, principal: Operator, request_id: str, because: Because) -> AdminDataRequestShown:
        def work(connection: Connection) -> AdminDataRequestShown:
            case, before = self._case(connection, principal, request_id)
            after = cancel(connection, self._tools, request_id, now_ns=case.now_ns)
            return self._recorded(case, before, after, AuditAction.DATA_REQUEST_CANCEL, because.reason)

        return await self._desk.write(work)

    async def give_up(self, principal: Operator, request_id: str, because: Because) -> AdminDataRequestShown:
        def work(connection: Connection) -> AdminDataRequestShown:
            case, before = self._case(connection, principal, request_id)
            after = give_up_balance(connection, request_id)
            return self._recorded(case, before, after, AuditAction.DATA_REQUEST_FORFEIT, because.reason)

        return await self._desk.write(work)

    async def note(self, principal: Operator, request_id: str, text: str) -> AdminDataRequestShown:
        def work(connection: Connection) -> AdminDataRequestShown:
            case, before = self._case(connection, principal, request_id)
            after = note(connection, request_id, text)
            return self._recorded(case, before, after, AuditAction.DATA_REQUEST_NOTE, NOTED)

        return await self._desk.write(work)

    def _case(self, connection: Connection, principal: Operator, request_id: str) -> tuple[Case, DataRequest]:
        return Case(connection, self._desk, principal), _existing(connection, request_id)

    def _recorded(
        self, case: Case, before: DataRequest, after: DataRequest, action: AuditAction, reason: str
    ) -> AdminDataRequestShown:
        """A decision that changed nothing, because somebody else had just made it, leaves no row."""
        if after != before:
            case.record(action, after.id, reason)
        return self.shown(after)


InState = Annotated[State | None, Query(alias="state", description="Only requests in this state.")]
Kind = Annotated[RequestKind | None, Query(description="Only requests of this kind.")]
Overdue = Annotated[bool, Query(description="Only those that should have been answered.")]


def admin_data_request_routes(desk: Desk, tools: RightsTools) -> APIRouter:
    """The operator role and a second factor are needed for each."""
    routes = APIRouter(prefix="/api/admin/data-requests", tags=["operators"])
    review = ReviewDesk(desk, tools)
    _reads(routes, desk, review)
    _decisions(routes, review)
    return routes


def _reads(routes: APIRouter, desk: Desk, review: ReviewDesk) -> None:
    @routes.get("", operation_id="admin_list_data_requests", summary="List requests about data")
    async def requests(
        _: Operator,
        state: InState = None,
        kind: Kind = None,
        overdue: Overdue = False,
        limit: Limit = PAGE_DEFAULT,
        cursor: Cursor = None,
    ) -> Page[AdminDataRequestShown]:
        """What is due first."""
        position = cursor_position("admin_data_requests", cursor, int, str)
        after = None if position is None else (int(position[0]), str(position[1]))
        overdue_at_ns = desk.clock.now_ns() if overdue else None

        def find(connection: Connection) -> Page[AdminDataRequestShown]:
            found = requests_page(
                connection, state=state, kind=kind, overdue_at_ns=overdue_at_ns, after=after, limit=limit + 1
            )
            page, following = page_of(found, limit, "admin_data_requests", lambda one: (one.due_at_ns, one.id))
            return Page(data=[review.shown(one) for one in page], next_cursor=following)

        return await desk.read(find)

    @routes.get("/{request_id}", operation_id="admin_read_data_request", summary="One request about data")
    async def request(principal: Operator, request_id: RequestPath) -> AdminDataRequestShown:
        """With what operators noted, and the certificate of a deletion that was done."""
        return await review.read(principal, request_id)


def _decisions(routes: APIRouter, review: ReviewDesk) -> None:
    @routes.post(
        "",
        status_code=201,
        operation_id="admin_open_data_request",
        summary="Write down a request about data",
        openapi_extra=kept(),
    )
    async def open_one(principal: Operator, wanted: RequestWanted) -> AdminDataRequestShown:
        """For what came by letter, say, from somebody who proved to be the account's owner."""
        return await review.open(principal, wanted)

    @routes.post(
        "/{request_id}/approve",
        operation_id="admin_approve_data_request",
        summary="Approve a request about data",
        openapi_extra=kept(),
    )
    async def approve_one(principal: Operator, request_id: RequestPath, wanted: Approval) -> AdminDataRequestShown:
        """A copy can be fetched from now on; a deletion stops keys and sessions and waits for its day."""
        return await review.approve(principal, request_id, wanted)

    @routes.post(
        "/{request_id}/refuse",
        operation_id="admin_refuse_data_request",
        summary="Refuse a request about data",
        openapi_extra=kept(),
    )
    async def refuse_one(principal: Operator, request_id: RequestPath, wanted: Refusal) -> AdminDataRequestShown:
        """The person reads the reason."""
        return await review.refuse(principal, request_id, wanted)

    @routes.post(
        "/{request_id}/cancel",
        operation_id="admin_cancel_data_request",
        summary="Cancel a request about data for somebody",
        openapi_extra=kept(),
    )
    async def cancel_one(principal: Operator, request_id: RequestPath, because: Because) -> AdminDataRequestShown:
        """After an approved deletion the keys work again."""
        return await review.cancel(principal, request_id, because)

    @routes.post(
        "/{request_id}/give-up-balance",
        operation_id="admin_give_up_balance",
        summary="Note that the balance is given up",
        openapi_extra=kept(),
    )
    async def give_up(principal: Operator, request_id: RequestPath, because: Because) -> AdminDataRequestShown:
        """The owner said so after asking."""
        return await review.give_up(principal, request_id, because)

    @routes.post(
        "/{request_id}/note",
        operation_id="admin_note_data_request",
        summary="Note something on a request about data",
        openapi_extra=kept(),
    )
    async def note_one(principal: Operator, request_id: RequestPath, wanted: NoteWanted) -> AdminDataRequestShown:
        """The person never sees it. It replaces what was noted before."""
        return await review.note(principal, request_id, wanted.text)


def _existing(connection: Connection, request_id: str) -> DataRequest:
    request = request_by_id(connection, request_id)
    if request is None:
        raise DataRequestNotFound
    return request

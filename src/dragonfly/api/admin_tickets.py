"""/api/admin/tickets: what operators read and answer. Reading a ticket and each answer leave a row in the log."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import Connection

from dragonfly.api.desk import Desk
from dragonfly.api.operating import Because, Case, Operator
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, cursor_position, page_of
from dragonfly.api.support import (
    MessageShown,
    MessageWanted,
    TicketPath,
    TicketShown,
    messages_shown,
    ticket_shown,
)
from dragonfly.operations.rules import AuditAction
from dragonfly.support.actions import TicketNotFound, close_ticket, reply
from dragonfly.support.queries import Ticket, messages_of, ticket_by_id, tickets_page
from dragonfly.support.rules import RequestState, TicketKind, TicketState

ANSWERED = "answered by mail"
State = Annotated[TicketState | None, Query(description="Only tickets in this state.")]
Kind = Annotated[TicketKind | None, Query(description="Only tickets of this kind.")]
Review = Annotated[RequestState | None, Query(description="Only requests about data that are this far.")]


class AdminTicketShown(TicketShown):
    """A ticket as operators see it."""

    account_id: str | None
    address: str
    language: str


class AdminTicketInDetail(AdminTicketShown):
    """With all that was written in it, the oldest first."""

    messages: list[MessageShown]


def _shown(ticket: Ticket) -> AdminTicketShown:
    whose = {"account_id": ticket.account_id, "address": ticket.address, "language": ticket.language}
    return AdminTicketShown(**ticket_shown(ticket).model_dump(), **whose)


def _in_detail(connection: Connection, ticket_id: str) -> AdminTicketInDetail:
    ticket = ticket_by_id(connection, ticket_id)
    if ticket is None:
        raise TicketNotFound
    messages = messages_shown(messages_of(connection, ticket_id))
    return AdminTicketInDetail(**_shown(ticket).model_dump(), messages=messages)


def admin_ticket_routes(desk: Desk) -> APIRouter:
    """The operator role and a second factor are needed for each."""
    routes = APIRouter(prefix="/api/admin/tickets", tags=["operators"])

    @routes.get("", operation_id="admin_list_tickets", summary="List tickets")
    async def tickets(
        principal: Operator,
        state: State = None,
        kind: Kind = None,
        request_state: Review = None,
        limit: Limit = PAGE_DEFAULT,
        cursor: Cursor = None,
    ) -> Page[AdminTicketShown]:
        """The newest first, without what was written."""
        position = cursor_position("admin_tickets", cursor, str)
        before = None if position is None else str(position[0])

        def find(connection: Connection) -> Page[AdminTicketShown]:
            found = tickets_page(
                connection, state=state, kind=kind, request_state=request_state, before=before, limit=limit + 1
            )
            page, next_cursor = page_of(found, limit, "admin_tickets", lambda ticket: (ticket.id,))
            return Page(data=[_shown(ticket) for ticket in page], next_cursor=next_cursor)

        return await desk.read(find)

    @routes.get("/{ticket_id}", operation_id="admin_read_ticket", summary="Read a ticket")
    async def ticket(principal: Operator, ticket_id: TicketPath) -> AdminTicketInDetail:
        """With all that was written in it; leaves a row in the log."""

        def look(connection: Connection) -> AdminTicketInDetail:
            found = _in_detail(connection, ticket_id)
            Case(connection, desk, principal).record(AuditAction.TICKET_READ, ticket_id)
            return found

        return await desk.write(look)

    @routes.post(
        "/{ticket_id}/replies",
        operation_id="admin_reply_to_ticket",
        status_code=201,
        summary="Answer a ticket",
        openapi_extra=kept(),
    )
    async def answer(principal: Operator, ticket_id: TicketPath, wanted: MessageWanted) -> AdminTicketInDetail:
        """The answer also goes out by mail."""

        def write(connection: Connection) -> AdminTicketInDetail:
            case = Case(connection, desk, principal)
            reply(connection, desk.ids, ticket_id, wanted.text, now_ns=case.now_ns)
            case.record(AuditAction.TICKET_REPLY, ticket_id, ANSWERED)
            return _in_detail(connection, ticket_id)

        return await desk.write(write)

    @routes.post(
        "/{ticket_id}/close", operation_id="admin_close_ticket", summary="Close a ticket", openapi_extra=kept()
    )
    async def close(principal: Operator, ticket_id: TicketPath, because: Because) -> AdminTicketInDetail:
        """A request about data is closed by its review, not here."""

        def end(connection: Connection) -> AdminTicketInDetail:
            case = Case(connection, desk, principal)
            close_ticket(connection, ticket_id, now_ns=case.now_ns)
            case.record(AuditAction.TICKET_CLOSE, ticket_id, because.reason)
            return _in_detail(connection, ticket_id)

        return await desk.write(end)

    return routes

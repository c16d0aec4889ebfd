"""/api/support: asking for help, with an account and without one. Request ids instead of what was said."""

from collections.abc import Sequence
from typing import Annotated, Literal, Unpack

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.requests import Request

from dragonfly.accounts.letters import recipient_of
from dragonfly.accounts.throttles import Rate
from dragonfly.api.desk import Desk
from dragonfly.api.identity import Done, Identity
from dragonfly.api.principal import Principal, customer
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, Strict, cursor_position, page_of
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.mail.rules import ADDRESS_LENGTH_MAX
from dragonfly.rights.actions import RightsTools, cancel, open_request
from dragonfly.rights.queries import request_of_ticket
from dragonfly.rights.rules import Origin, RequestKind
from dragonfly.support.actions import (
    TicketNotFound,
    TicketOrder,
    TooManyTickets,
    add_message,
    close_ticket,
    open_ticket,
)
from dragonfly.support.queries import Ticket, TicketMessage, messages_of, ticket_of_account, tickets_of_account
from dragonfly.support.rules import (
    DATA_REQUESTS,
    REQUEST_IDS_MAX,
    TEXT_LENGTH_MAX,
    RequestState,
    TicketKind,
    TicketState,
)

STRANGERS = Rate("support", 5, 3_600)
"""Tickets of one network without an account."""

Customer = Annotated[Principal, Depends(customer)]
TicketPath = Annotated[str, Path(min_length=1, max_length=64, description="tkt-…")]
Words = Annotated[
    str,
    Field(
        min_length=1,
        max_length=TEXT_LENGTH_MAX,
        description="Lines of printable characters. Never paste prompts, answers or keys.",
    ),
]
RequestIds = Annotated[
    list[Annotated[str, Field(max_length=64)]],
    Field(max_length=REQUEST_IDS_MAX, description="Of the header x-request-id of the answers in question."),
]


class AddressMissing(DragonflyError):
    """An account that an operator made for a program: nobody could be answered."""

    code = "address_missing"
    status = 409

    def __init__(self) -> None:
        super().__init__("This account has no mail address. Use the form for people without an account.")


class TicketWanted(Strict):
    """What the matter is."""

    kind: Literal["question", "payment", "data_export", "deletion", "abuse"]
    text: Words
    request_ids: RequestIds = Field(default_factory=list)


class StrangersTicket(TicketWanted):
    """As above, from somebody who is not signed in."""

    address: Annotated[str, Field(max_length=ADDRESS_LENGTH_MAX, description="Where the answer goes.")]
    language: Literal["en", "zh"] = "en"
    website: Annotated[str, Field(max_length=200, description="Leave it empty: only programs fill it in.")] = ""


class MessageWanted(Strict):
    """One more thing to say."""

    text: Words


class TicketShown(BaseModel):
    """One ticket. `request_state` tells how far a request about data is."""

    id: str
    kind: TicketKind
    state: TicketState
    request_state: RequestState | None
    request_ids: list[str]
    created_at: str
    updated_at: str


class MessageShown(BaseModel):
    """One thing that was written."""

    author: Literal["customer", "operator"]
    text: str
    created_at: str


class TicketInDetail(TicketShown):
    """A ticket with all that was written in it, the oldest first."""

    messages: list[MessageShown]


def ticket_shown(ticket: Ticket) -> TicketShown:
    """As its owner sees it in a list."""
    return TicketShown(
        id=ticket.id,
        kind=ticket.kind,
        state=ticket.state,
        request_state=ticket.request_state,
        request_ids=list(ticket.request_ids),
        created_at=moment_text(ticket.created_at_ns),
        updated_at=moment_text(ticket.updated_at_ns),
    )


def messages_shown(messages: Sequence[TicketMessage]) -> list[MessageShown]:
    """What was written, as both sides see it."""
    return [
        MessageShown(author=one.author.value, text=one.note, created_at=moment_text(one.created_at_ns))
        for one in messages
    ]


def stranger_routes(desk: Desk, identity: Identity, rights: RightsTools) -> APIRouter:
    """The form for people without an account. Its answer tells nothing, whatever becomes of it."""
    routes = APIRouter(tags=["support"])

    @routes.post("/api/support", status_code=202, summary="Write to support without an account")
    async def write_to_support(request: Request, wanted: StrangersTicket) -> Done:
        """Opens a ticket; the answer comes by mail."""
        await identity.anonymous(identity.moderate(request), STRANGERS)
        if wanted.website:
            return Done()
        now_ns = desk.clock.now_ns()

        def open_one(connection: Connection) -> None:
            _open(
                connection,
                rights,
                account_id=None,
                address=wanted.address,
                language=wanted.language,
                kind=TicketKind(wanted.kind),
                text=wanted.text,
                request_ids=wanted.request_ids,
                now_ns=now_ns,
            )

        try:
            await desk.write(open_one)
        except TooManyTickets:
            return Done()  # who asks learns nothing about an address that others wrote from
        return Done()

    return routes


class SupportDesk:
    """The use cases of one's own tickets, each in one transaction."""

    def __init__(self, desk: Desk, rights: RightsTools) -> None:
        self._desk = desk
        self._rights = rights

    async def page(self, account_id: AccountId, *, limit: int, cursor: str | None) -> Page[TicketShown]:
        position = cursor_position("tickets", cursor, str)
        before = None if position is None else str(position[0])

        def find(connection: Connection) -> Page[TicketShown]:
            found = tickets_of_account(connection, account_id, before=before, limit=limit + 1)
            tickets, next_cursor = page_of(found, limit, "tickets", lambda ticket: (ticket.id,))
            return Page(data=[ticket_shown(ticket) for ticket in tickets], next_cursor=next_cursor)

        return await self._desk.read(find)

    async def one(self, account_id: AccountId, ticket_id: str) -> TicketInDetail:
        return await self._desk.read(lambda connection: _in_detail(connection, account_id, ticket_id))

    async def open(self, account_id: AccountId, wanted: TicketWanted) -> TicketInDetail:
        now_ns = self._desk.clock.now_ns()

        def open_one(connection: Connection) -> TicketInDetail:
            recipient = recipient_of(connection, account_id)
            if recipient is None:
                raise AddressMissing
            ticket_id = _open(
                connection,
                self._rights,
                account_id=account_id,
                address=recipient.address,
                language=recipient.language,
                kind=TicketKind(wanted.kind),
                text=wanted.text,
                request_ids=wanted.request_ids,
                now_ns=now_ns,
            )
            return _in_detail(connection, account_id, ticket_id)

        return await self._desk.write(open_one)

    async def write(self, account_id: AccountId, ticket_id: str, text: str) -> TicketInDetail:
        now_ns = self._desk.clock.now_ns()

        def write(connection: Connection) -> TicketInDetail:
            add_message(connection, self._desk.ids, ticket_id, text, account_id=account_id, now_ns=now_ns)
            return _in_detail(connection, account_id, ticket_id)

        return await self._desk.write(write)

    async def close(self, account_id: AccountId, ticket_id: str) -> TicketInDetail:
        now_ns = self._desk.clock.now_ns()

        def close(connection: Connection) -> TicketInDetail:
            request = request_of_ticket(connection, ticket_id)
            if request is None:
                close_ticket(connection, ticket_id, account_id=account_id, now_ns=now_ns)
            else:
                _in_detail(connection, account_id, ticket_id)  # it is theirs
                cancel(connection, self._rights, request.id, now_ns=now_ns)
            return _in_detail(connection, account_id, ticket_id)

        return await self._desk.write(close)


def _open(connection: Connection, rights: RightsTools, **order: Unpack[TicketOrder]) -> str:
    """A ticket and, when it is about data, its request in the review queue; the ticket's id."""
    ticket_id = open_ticket(connection, rights.ids, operator_address=rights.operator_address, **order)
    if order["kind"] in DATA_REQUESTS:
        open_request(
            connection,
            rights,
            account_id=order["account_id"],
            kind=RequestKind(DATA_REQUESTS[order["kind"]]),
            origin=Origin.TICKET,
            ticket_id=ticket_id,
            gives_up_balance=False,
            now_ns=order["now_ns"],
        )
    return ticket_id


def _in_detail(connection: Connection, account_id: AccountId, ticket_id: str) -> TicketInDetail:
    ticket = ticket_of_account(connection, ticket_id, account_id=account_id)
    if ticket is None:
        raise TicketNotFound
    messages = messages_shown(messages_of(connection, ticket_id))
    return TicketInDetail(**ticket_shown(ticket).model_dump(), messages=messages)


def ticket_routes(desk: Desk, rights: RightsTools) -> APIRouter:
    """One's own tickets."""
    routes = APIRouter(prefix="/api/support/tickets", tags=["support"])
    own = SupportDesk(desk, rights)

    @routes.get("", operation_id="list_tickets", summary="List one's tickets")
    async def tickets(principal: Customer, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> Page[TicketShown]:
        """The newest first."""
        return await own.page(principal.account_id, limit=limit, cursor=cursor)

    @routes.post("", operation_id="open_ticket", status_code=201, summary="Open a ticket", openapi_extra=kept())
    async def open_one(principal: Customer, wanted: TicketWanted) -> TicketInDetail:
        """Asks support something, or for a copy or the deletion of one's data."""
        return await own.open(principal.account_id, wanted)

    @routes.get("/{ticket_id}", operation_id="read_ticket", summary="Read a ticket")
    async def ticket(principal: Customer, ticket_id: TicketPath) -> TicketInDetail:
        """With all that was written in it."""
        return await own.one(principal.account_id, ticket_id)

    @routes.post(
        "/{ticket_id}/messages",
        operation_id="write_in_ticket",
        status_code=201,
        summary="Go on writing in a ticket",
        openapi_extra=kept(),
    )
    async def message(principal: Customer, ticket_id: TicketPath, wanted: MessageWanted) -> TicketInDetail:
        """It is support's turn again."""
        return await own.write(principal.account_id, ticket_id, wanted.text)

    @routes.post("/{ticket_id}/close", operation_id="close_ticket", summary="Close a ticket", openapi_extra=kept())
    async def close(principal: Customer, ticket_id: TicketPath) -> TicketInDetail:
        """No answer is needed any more; a request about data that is under way is cancelled."""
        return await own.close(principal.account_id, ticket_id)

    return routes

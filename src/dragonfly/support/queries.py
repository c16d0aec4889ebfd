"""Reads of tickets, each scoped to its owner or marked as the operator's."""

import json
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, select

from dragonfly.core.ids import AccountId
from dragonfly.support.rules import Author, RequestState, TicketKind, TicketState
from dragonfly.support.tables import support_messages, support_tickets

TICKETS_PAGE_MAX = 1_000
MESSAGES_MAX = 200
"""In one ticket; a longer conversation is another ticket."""


class Ticket(NamedTuple):
    """One ticket as stored; times in nanoseconds since the epoch."""

    id: str
    account_id: AccountId | None
    address: str
    language: str
    kind: TicketKind
    state: TicketState
    request_state: RequestState | None
    """How far it is, for a request about data."""
    request_ids: tuple[str, ...]
    created_at_ns: int
    updated_at_ns: int
    closed_at_ns: int | None


class TicketMessage(NamedTuple):
    """One thing that was written."""

    id: str
    author: Author
    note: str
    created_at_ns: int


def ticket_by_id(connection: Connection, ticket_id: str) -> Ticket | None:
    """For operators and the review queue: any ticket."""
    row = connection.execute(_tickets().where(support_tickets.c.id == ticket_id)).one_or_none()
    return None if row is None else _ticket(row)


def ticket_of_account(connection: Connection, ticket_id: str, *, account_id: AccountId) -> Ticket | None:
    """The account's ticket with that id, or None."""
    wanted = _tickets().where(support_tickets.c.id == ticket_id, support_tickets.c.account_id == account_id)
    row = connection.execute(wanted).one_or_none()
    return None if row is None else _ticket(row)


def tickets_of_account(
    connection: Connection, account_id: AccountId, *, before: str | None = None, limit: int = 100
) -> list[Ticket]:
    """The account's tickets, the newest first; `before` is the id of the last one seen."""
    wanted = _tickets().where(support_tickets.c.account_id == account_id)
    return _page(connection, wanted, before, limit)


def tickets_page(
    connection: Connection,
    *,
    state: TicketState | None = None,
    kind: TicketKind | None = None,
    request_state: RequestState | None = None,
    before: str | None = None,
    limit: int = 100,
) -> list[Ticket]:
    """For operators: all tickets that fit, the newest first."""
    wanted = _tickets()
    for column, value in (
        (support_tickets.c.state, state),
        (support_tickets.c.kind, kind),
        (support_tickets.c.request_state, request_state),
    ):
        if value is not None:
            wanted = wanted.where(column == value.value)
    return _page(connection, wanted, before, limit)


def messages_of(connection: Connection, ticket_id: str) -> list[TicketMessage]:
    """What was written in a ticket, the oldest first. The caller has made sure that it may be read."""
    names = ("id", "author", "note", "created_at_ns")
    wanted = select(*(support_messages.c[name] for name in names)).where(support_messages.c.ticket_id == ticket_id)
    rows = connection.execute(
        wanted.order_by(support_messages.c.created_at_ns, support_messages.c.id).limit(MESSAGES_MAX)
    )
    return [TicketMessage(row.id, Author(row.author), row.note, row.created_at_ns) for row in rows]


def _tickets() -> Select[Any]:
    return select(*(support_tickets.c[name] for name in Ticket._fields))


def _page(connection: Connection, wanted: Select[Any], before: str | None, limit: int) -> list[Ticket]:
    if before is not None:
        wanted = wanted.where(support_tickets.c.id < before)
    newest = wanted.order_by(support_tickets.c.id.desc()).limit(min(limit, TICKETS_PAGE_MAX))
    return [_ticket(row) for row in connection.execute(newest)]


def _ticket(row: Row[Any]) -> Ticket:
    return Ticket(
        id=row.id,
        account_id=row.account_id,
        address=row.address,
        language=row.language,
        kind=TicketKind(row.kind),
        state=TicketState(row.state),
        request_state=None if row.request_state is None else RequestState(row.request_state),
        request_ids=tuple(json.loads(row.request_ids)),
        created_at_ns=row.created_at_ns,
        updated_at_ns=row.updated_at_ns,
        closed_at_ns=row.closed_at_ns,
    )

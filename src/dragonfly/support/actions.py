"""What changes tickets. Each action runs inside a transaction that its caller opened."""

import hashlib
import json
from collections.abc import Sequence
from typing import TypedDict, Unpack

from sqlalchemy import Connection, func, insert, select, update

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.mail.alerts import Operator, queue_alert
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import MailAddressInvalid, queue_mail
from dragonfly.mail.rules import is_mail_address, mail_language
from dragonfly.support.queries import MESSAGES_MAX, Ticket, ticket_by_id, ticket_of_account
from dragonfly.support.rules import (
    DATA_REQUESTS,
    ENDED,
    REQUEST_IDS_MAX,
    TEXT_LENGTH_MAX,
    Author,
    RequestState,
    TicketKind,
    TicketState,
    is_request_id,
    is_text,
    may_follow,
    without_secrets,
)
from dragonfly.support.tables import support_messages, support_tickets

OPEN_PER_ACCOUNT_MAX = 20
PER_ADDRESS_AND_DAY_MAX = 5
"""Of people without an account."""
NS_PER_DAY = 86_400_000_000_000


class TicketInvalid(DragonflyError):
    """A text out of bounds, or something else where request ids belong."""

    code = "ticket_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__(
            f"A ticket has 1 to {TEXT_LENGTH_MAX} printable characters and at most {REQUEST_IDS_MAX} request ids"
            " as answers carry them in x-request-id."
        )


class TicketNotFound(DragonflyError):
    code = "ticket_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such ticket. Copy the whole id (tkt-…).")


class TicketClosed(DragonflyError):
    code = "ticket_closed"
    status = 409

    def __init__(self) -> None:
        super().__init__("This ticket is closed. Open a new one and quote its id.")


class TooManyTickets(DragonflyError):
    code = "too_many_tickets"
    status = 429

    def __init__(self) -> None:
        super().__init__("There are too many open tickets, or too many messages in this one. Wait for an answer.")


class RequestStateInvalid(DragonflyError):
    """A step that a request about data cannot take, or a ticket that is none."""

    code = "request_state_invalid"
    status = 409

    def __init__(self) -> None:
        super().__init__("The request cannot go there from where it is. Look at its state again.")


class TicketOrder(TypedDict):
    """One ticket to be opened."""

    account_id: AccountId | None
    """None for people without an account."""
    address: str
    """Where answers go."""
    language: str
    kind: TicketKind
    text: str
    request_ids: Sequence[str]
    now_ns: int


def open_ticket(
    connection: Connection, ids: IdSource, *, operator_address: str = "", **order: Unpack[TicketOrder]
) -> str:
    """A new ticket, its acknowledgement by mail, and a note to `operator_address`; the ticket's id.

    Raises TicketInvalid, MailAddressInvalid and TooManyTickets. Keys and card numbers in the text are not kept.
    """
    text, request_ids, kind = order["text"], order["request_ids"], order["kind"]
    if not is_mail_address(order["address"]):
        raise MailAddressInvalid
    if not is_text(text) or len(request_ids) > REQUEST_IDS_MAX or not all(map(is_request_id, request_ids)):
        raise TicketInvalid
    _require_room(connection, order)
    now_ns = order["now_ns"]
    ticket = Ticket(
        id=ids.new("tkt-", now_ns),
        account_id=order["account_id"],
        address=order["address"],
        language=mail_language(order["language"]),
        kind=kind,
        state=TicketState.OPEN,
        request_state=RequestState.RECEIVED if kind in DATA_REQUESTS else None,
        request_ids=tuple(request_ids),
        created_at_ns=now_ns,
        updated_at_ns=now_ns,
        closed_at_ns=None,
    )
    connection.execute(insert(support_tickets).values(_row(ticket)))
    _write(connection, ids, ticket, Author.CUSTOMER, without_secrets(text), now_ns=now_ns)
    _acknowledge(connection, ids, ticket)
    queue_alert(
        connection,
        ids,
        Operator(operator_address),
        event=f"ticket_{kind.value}",
        detail=f"A ticket was opened: {ticket.id}",  # what was written stays in the ticket
        key=ticket.id,
        now_ns=now_ns,
    )
    return ticket.id


def add_message(
    connection: Connection, ids: IdSource, ticket_id: str, text: str, *, account_id: AccountId, now_ns: int
) -> None:
    """The customer goes on writing; it is the operator's turn again. TicketNotFound, TicketClosed, TicketInvalid."""
    ticket = _open_one(ticket_of_account(connection, ticket_id, account_id=account_id))
    if not is_text(text):
        raise TicketInvalid
    _write(connection, ids, ticket, Author.CUSTOMER, without_secrets(text), now_ns=now_ns)
    _move(connection, ticket_id, TicketState.OPEN, now_ns=now_ns)


def reply(connection: Connection, ids: IdSource, ticket_id: str, text: str, *, now_ns: int) -> None:
    """The operator's answer, which also goes out by mail. TicketNotFound, TicketClosed, TicketInvalid."""
    ticket = _open_one(ticket_by_id(connection, ticket_id))
    if not is_text(text):
        raise TicketInvalid
    text = text.replace("\t", " ")
    message_id = _write(connection, ids, ticket, Author.OPERATOR, text, now_ns=now_ns)
    _move(connection, ticket_id, TicketState.ANSWERED, now_ns=now_ns)
    values: dict[str, str | int] = {"ticket": ticket.id, "text": text}
    _tell(connection, ids, ticket, MailKind.TICKET_REPLY, values, key=message_id, now_ns=now_ns)


def close_ticket(connection: Connection, ticket_id: str, *, account_id: AccountId | None = None, now_ns: int) -> None:
    """Ends a ticket; a second time changes nothing. With `account_id` only that account's own. A request about data
    that is still reviewed stays open: RequestStateInvalid."""
    if account_id is None:
        ticket = ticket_by_id(connection, ticket_id)
    else:
        ticket = ticket_of_account(connection, ticket_id, account_id=account_id)
    if ticket is None:
        raise TicketNotFound
    if ticket.request_state is not None and ticket.request_state not in ENDED:
        raise RequestStateInvalid
    _move(connection, ticket_id, TicketState.CLOSED, now_ns=now_ns)


def follow_request(connection: Connection, ticket_id: str, new: RequestState, *, now_ns: int) -> None:
    """The ticket shows how far the request that it opened is; its last step closes the ticket.

    A ticket that has gone, and the same step again, change nothing. RequestStateInvalid.
    """
    ticket = ticket_by_id(connection, ticket_id)
    if ticket is None or ticket.request_state is new:
        return
    if ticket.request_state is None or not may_follow(ticket.request_state, new):
        raise RequestStateInvalid
    moved = update(support_tickets).where(
        support_tickets.c.id == ticket_id, support_tickets.c.request_state == ticket.request_state.value
    )
    if not connection.execute(moved.values(request_state=new.value, updated_at_ns=now_ns)).rowcount:
        raise RequestStateInvalid  # somebody else has just decided
    if new in ENDED:
        _move(connection, ticket_id, TicketState.CLOSED, now_ns=now_ns)


def _require_room(connection: Connection, order: TicketOrder) -> None:
    tickets = support_tickets.c
    counted = select(func.count()).select_from(support_tickets)
    if order["account_id"] is not None:
        counted = counted.where(tickets.account_id == order["account_id"], tickets.state != TicketState.CLOSED.value)
        most = OPEN_PER_ACCOUNT_MAX
    else:
        since_ns = order["now_ns"] - NS_PER_DAY
        counted = counted.where(tickets.address == order["address"], tickets.created_at_ns > since_ns)
        most = PER_ADDRESS_AND_DAY_MAX
    if connection.execute(counted).scalar_one() >= most:
        raise TooManyTickets


def _open_one(ticket: Ticket | None) -> Ticket:
    if ticket is None:
        raise TicketNotFound
    if ticket.state is TicketState.CLOSED:
        raise TicketClosed
    return ticket


def _write(connection: Connection, ids: IdSource, ticket: Ticket, author: Author, note: str, *, now_ns: int) -> str:
    """The id of the new message."""
    mine = support_messages.c.ticket_id == ticket.id
    if connection.execute(select(func.count()).where(mine)).scalar_one() >= MESSAGES_MAX:
        raise TooManyTickets
    message_id = ids.new("msg-", now_ns)
    row = {"id": message_id, "ticket_id": ticket.id, "author": author.value, "note": note, "created_at_ns": now_ns}
    connection.execute(insert(support_messages).values(row))
    return message_id


def _move(connection: Connection, ticket_id: str, state: TicketState, *, now_ns: int) -> None:
    closed_at_ns = now_ns if state is TicketState.CLOSED else None
    open_one = update(support_tickets).where(
        support_tickets.c.id == ticket_id, support_tickets.c.state != TicketState.CLOSED.value
    )
    connection.execute(open_one.values(state=state.value, updated_at_ns=now_ns, closed_at_ns=closed_at_ns))


def _row(ticket: Ticket) -> dict[str, object]:
    return {
        **ticket._asdict(),
        "kind": ticket.kind.value,
        "state": ticket.state.value,
        "request_state": None if ticket.request_state is None else ticket.request_state.value,
        "request_ids": json.dumps(ticket.request_ids),
    }


def _acknowledge(connection: Connection, ids: IdSource, ticket: Ticket) -> None:
    """Strangers can write any address into the form, so it gets one acknowledgement a day, and no more."""
    if ticket.request_state is not None and ticket.account_id is not None:
        return  # the request that it opens is acknowledged
    key = ticket.id
    if ticket.account_id is None:
        digest = hashlib.sha256(ticket.address.lower().encode()).hexdigest()[:32]
        key = f"{digest}/{ticket.created_at_ns // NS_PER_DAY}"
    values: dict[str, str | int] = {"ticket": ticket.id}
    _tell(connection, ids, ticket, MailKind.TICKET_OPENED, values, key=key, now_ns=ticket.created_at_ns)


def _tell(
    connection: Connection,
    ids: IdSource,
    ticket: Ticket,
    kind: MailKind,
    values: dict[str, str | int],
    *,
    key: str,
    now_ns: int,
) -> None:
    queue_mail(
        connection,
        ids,
        kind=kind,
        account_id=ticket.account_id,
        address=ticket.address,
        language=ticket.language,
        values=values,
        idempotency_key=f"{kind.value}/{key}",
        now_ns=now_ns,
    )

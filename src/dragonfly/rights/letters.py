"""Mails about requests, written in the transaction of what they tell."""

from typing import NamedTuple

from sqlalchemy import Connection

from dragonfly.accounts.letters import Tools, recipient_of
from dragonfly.accounts.links import Link, make_link
from dragonfly.accounts.queries import account_by_id
from dragonfly.core.credentials import TokenKind
from dragonfly.core.ids import AccountId
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import queue_mail
from dragonfly.mail.rules import mail_moment
from dragonfly.privacy.obstacles import Obstacle
from dragonfly.rights.queries import DataRequest
from dragonfly.rights.rules import RequestKind
from dragonfly.support.queries import ticket_by_id

PRIVACY_PAGE = "/dashboard/privacy"


class Reader(NamedTuple):
    """Whom mails about a request go to."""

    account_id: AccountId | None
    address: str
    language: str


def reader_of(connection: Connection, request: DataRequest) -> Reader | None:
    """The account's person or address; of a stranger's request nobody, because anybody can write any address into
    a form: an operator answers in the ticket."""
    if request.account_id is None:
        return None
    recipient = recipient_of(connection, request.account_id)
    if recipient is not None:
        return Reader(*recipient)
    account = account_by_id(connection, request.account_id)
    return Reader(account.id, account.email, "en") if account is not None and account.email else None


def tell_status(
    connection: Connection, tools: Tools, request: DataRequest, state: str, *, at_ns: int, now_ns: int
) -> None:
    """Received (`at_ns`: due), cancelled, or expired."""
    values: dict[str, str | int] = {"request": request.kind.value, "state": state, "time": mail_moment(at_ns)}
    _tell(connection, tools, MailKind.DATA_REQUEST_STATUS, request, values, key=state, now_ns=now_ns)


def tell_refusal(connection: Connection, tools: Tools, request: DataRequest, reason: str, *, now_ns: int) -> None:
    """Why it was refused. To a stranger the words go as an answer in the ticket."""
    if request.account_id is None:
        _answer_stranger(connection, tools, request, reason, now_ns=now_ns)
        return
    values: dict[str, str | int] = {"request": request.kind.value, "reason": reason}
    _tell(connection, tools, MailKind.DATA_REQUEST_REFUSED, request, values, key="refused", now_ns=now_ns)


def tell_decision(connection: Connection, tools: Tools, request: DataRequest, *, now_ns: int) -> None:
    """It is approved: where the copy is, or when the account ends and how to keep it."""
    assert request.until_ns is not None, "an approved request has an end"
    values: dict[str, str | int] = {"time": mail_moment(request.until_ns)}
    if request.kind is RequestKind.EXPORT:
        kind, link = MailKind.EXPORT_READY, tools.site_url + PRIVACY_PAGE
    else:
        token = make_link(
            connection, tools.seal, TokenKind.KEEP, Link(request.account_id, None, None, request.id), now_ns=now_ns
        )
        kind, link = MailKind.DELETION_SCHEDULED, tools.mailed_link(TokenKind.KEEP, token)
    _tell(connection, tools, kind, request, {**values, "link": link}, key="approved", now_ns=now_ns)


def tell_obstacle(
    connection: Connection, tools: Tools, request: DataRequest, obstacle: Obstacle, *, now_ns: int
) -> None:
    """What the deletion waits for; once for each thing."""
    values: dict[str, str | int] = {"cause": obstacle.value}
    _tell(connection, tools, MailKind.DELETION_WAITS, request, values, key=obstacle.value, now_ns=now_ns)


def tell_operators(
    connection: Connection, tools: Tools, address: str, *, key: str, event: str, detail: str, now_ns: int
) -> None:
    """One alert; nobody is told when there is no address."""
    if address:
        queue_mail(
            connection,
            tools.ids,
            kind=MailKind.OPERATOR_ALERT,
            account_id=None,
            address=address,
            language="en",
            values={"time": mail_moment(now_ns), "event": event, "detail": detail},
            idempotency_key=f"operator_alert/{key}",
            now_ns=now_ns,
        )


def tell_deleted(
    connection: Connection, tools: Tools, reader: Reader, request_id: str, certificate: str, *, now_ns: int
) -> None:
    """The last mail. It belongs to no account, because there is none any more; its address goes once it is sent."""
    queue_mail(
        connection,
        tools.ids,
        kind=MailKind.DELETION_DONE,
        account_id=None,
        address=reader.address,
        language=reader.language,
        values={"certificate": certificate, "reference": request_id, "time": mail_moment(now_ns)},
        idempotency_key=f"{MailKind.DELETION_DONE.value}/{request_id}",
        now_ns=now_ns,
    )


def _answer_stranger(connection: Connection, tools: Tools, request: DataRequest, reason: str, *, now_ns: int) -> None:
    ticket = ticket_by_id(connection, request.ticket_id or "")
    if ticket is not None:
        queue_mail(
            connection,
            tools.ids,
            kind=MailKind.TICKET_REPLY,
            account_id=None,
            address=ticket.address,
            language=ticket.language,
            values={"ticket": ticket.id, "text": reason},
            idempotency_key=f"{MailKind.DATA_REQUEST_REFUSED.value}/{request.id}",
            now_ns=now_ns,
        )


def _tell(
    connection: Connection,
    tools: Tools,
    kind: MailKind,
    request: DataRequest,
    values: dict[str, str | int],
    *,
    key: str,
    now_ns: int,
) -> None:
    reader = reader_of(connection, request)
    if reader is None:
        return
    queue_mail(
        connection,
        tools.ids,
        kind=kind,
        account_id=reader.account_id,
        address=reader.address,
        language=reader.language,
        values={**values, "reference": request.id},
        idempotency_key=f"{kind.value}/{request.id}/{key}",
        now_ns=now_ns,
    )

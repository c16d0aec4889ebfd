"""The end of an account whose day has come: everything in one transaction, with certificate and last mails."""

import json

from sqlalchemy import Connection, update

from dragonfly.privacy.certificates import certificate_text, signed_certificate
from dragonfly.privacy.erasure import erase_account
from dragonfly.privacy.obstacles import Obstacle, obstacles
from dragonfly.rights.actions import RightsTools
from dragonfly.rights.letters import reader_of, tell_deleted, tell_obstacle, tell_operators
from dragonfly.rights.queries import DataRequest, request_by_id
from dragonfly.rights.rules import RequestKind, State
from dragonfly.rights.tables import data_requests


def erase(connection: Connection, tools: RightsTools, request_id: str, *, now_ns: int) -> bool:
    """Erases the account of an approved deletion in the caller's transaction; False when something stands in the way,
    or the request has ended meanwhile. The person is told once of each thing that they must wait for."""
    values = {"state": State.DONE.value, "ended_at_ns": now_ns, "waits_for": None}
    own = update(data_requests).where(data_requests.c.id == request_id)
    is_due = data_requests.c.state == State.APPROVED.value, data_requests.c.until_ns <= now_ns
    # The row is locked from here on, so that nobody cancels what is being erased.
    if not connection.execute(own.where(*is_due).values(waits_for=data_requests.c.waits_for)).rowcount:
        return False
    request = request_by_id(connection, request_id)
    assert request is not None, "it was just locked"
    assert request.account_id is not None, "an approved request has an account"
    assert request.kind is RequestKind.DELETION, "copies are fetched"
    found = obstacles(connection, request.account_id, gives_up_balance=request.gives_up_balance)
    if found:
        _wait(connection, tools, request, found[0], now_ns=now_ns)
        return False
    reader = reader_of(connection, request)
    certificate = erase_account(
        connection, request.account_id, now_ns=now_ns, gives_up_balance=request.gives_up_balance
    )
    signed = signed_certificate(certificate, tools.certificate_key)
    words = {"certificate": json.dumps(json.loads(signed), sort_keys=True), "reason": None, "note": None}
    connection.execute(own.values({**values, **words}))
    # Earlier requests of the account stay as proof too, without anybody's words.
    others = update(data_requests).where(data_requests.c.account_id == request.account_id)
    connection.execute(others.values(reason=None, note=None, ticket_id=None))
    language = "en" if reader is None else reader.language
    if reader is not None:
        text = certificate_text(certificate, language)
        tell_deleted(connection, tools.people, reader, request_id, text, now_ns=now_ns)
    detail = f"Request {request_id}\n\n{certificate_text(certificate, 'en')}"
    key, event = f"account_erased/{request_id}", "account_erased"
    tell_operators(
        connection, tools.people, tools.operator_address, key=key, event=event, detail=detail, now_ns=now_ns
    )
    return True


def _wait(
    connection: Connection, tools: RightsTools, request: DataRequest, obstacle: Obstacle, *, now_ns: int
) -> None:
    """Notes what it waits for; telling it again does nothing, because a mail's key is sent once."""
    waiting = update(data_requests).where(data_requests.c.id == request.id)
    connection.execute(waiting.values(waits_for=obstacle.value))
    is_long = obstacle is not Obstacle.REQUESTS  # those end within a minute
    if obstacle is not request.waits_for and is_long:
        tell_obstacle(connection, tools.people, request, obstacle, now_ns=now_ns)

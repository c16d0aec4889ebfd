"""A postman on a real database, in front of a Resend that answers over HTTP."""

import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Engine, Row, select

from dragonfly.core.clock import Clock
from dragonfly.core.credentials import Seal
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.infra.logging import EventLog
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import queue_mail
from dragonfly.mail.rendering import Press, Site
from dragonfly.mail.seals import Seals
from dragonfly.mail.sending import Postman, PostOffice
from dragonfly.mail.tables import mail_outbox
from dragonfly.mail.transports import Transport
from dragonfly.mail.transports.resend import ResendTransport
from dragonfly.mail.transports.sender import Sender
from tests.factories import START_NS
from tests.fakes.resend import API_KEY

SITE = Site("Dragonfly", "https://dragonfly.example")
SECRET = b"a secret for tests, thirty-two bytes or more"
SEALS, SEAL = Seals(SECRET), Seal({1: SECRET})
LINK = "https://dragonfly.example/verify#token=abc"


def resend_at(url: str) -> ResendTransport:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    sender = Sender("hello@mail.example.com", "Dragonfly", "")
    return ResendTransport(api_key=Secret(API_KEY), url=url, sender=sender, verify=context)


class Postroom:
    """A postman, what it logs, and short ways to queue and look."""

    def __init__(self, engine: Engine, clock: Clock, transport: Transport) -> None:
        self.engine = engine
        self.clock = clock
        self.stream = io.BytesIO()
        log = EventLog(self.stream, clock, strict=True)
        self.threads = DatabaseThreads()
        office = PostOffice(Press(SITE), SEALS, SEAL, transport)
        self.postman = Postman(engine, self.threads, office, clock=clock, log=log, random=lambda: 1.0)

    @property
    def logged(self) -> str:
        return self.stream.getvalue().decode()

    def queue(
        self,
        key: str,
        *,
        kind: MailKind = MailKind.VERIFY_EMAIL,
        account_id: AccountId | None = None,
        address: str = "alice@example.com",
        values: dict[str, str | int] | None = None,
    ) -> None:
        queue_one(self.engine, key, kind=kind, account_id=account_id, address=address, values=values)

    def rows(self) -> list[Row[Any]]:
        with read(self.engine) as connection:
            return list(connection.execute(select(mail_outbox).order_by(mail_outbox.c.idempotency_key)))

    def states(self) -> list[str]:
        return [row.state for row in self.rows()]


def queue_one(
    engine: Engine,
    key: str,
    *,
    kind: MailKind = MailKind.VERIFY_EMAIL,
    account_id: AccountId | None = None,
    address: str = "alice@example.com",
    values: dict[str, str | int] | None = None,
) -> None:
    """A mail in the outbox; a verification unless it is said otherwise."""
    with write(engine) as connection:
        queue_mail(
            connection,
            IdSource(),
            kind=kind,
            account_id=account_id,
            address=address,
            language="en",
            values={"link": LINK, "hours": 24} if values is None else values,
            idempotency_key=key,
            now_ns=START_NS,
        )


@asynccontextmanager
async def open_postroom(engine: Engine, clock: Clock, transport: Transport) -> AsyncIterator[Postroom]:
    room = Postroom(engine, clock, transport)
    try:
        yield room
    finally:
        await room.postman.stop()
        room.threads.close()

"""What a worker that is to be killed does: it sends what is due and tells when nothing is left."""

import asyncio
from multiprocessing.connection import Connection

from dragonfly.infra.database import open_engine, read
from dragonfly.mail.outbox import is_any_due
from tests.factories import MovableClock
from tests.store.postroom import open_postroom, resend_at


async def send(url: str, resend_url: str, now_ns: int, told: Connection) -> None:
    engine = open_engine(url)
    clock = MovableClock(now_ns)
    async with open_postroom(engine, clock, resend_at(resend_url)) as room:
        while True:
            with read(engine) as connection:
                if not is_any_due(connection, now_ns=now_ns):
                    break
            await room.postman.run()
    told.send("done")


def main(url: str, resend_url: str, now_ns: int, told: Connection) -> None:
    """Ends when no mail is due, unless it is killed before."""
    asyncio.run(send(url, resend_url, now_ns, told))

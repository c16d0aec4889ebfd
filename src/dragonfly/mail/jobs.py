"""Recurring work of mail beside sending: what has lived its time goes."""

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine

from dragonfly.core.clock import Clock
from dragonfly.infra.database import DatabaseThreads, write
from dragonfly.infra.logging import Event, EventLog, Level
from dragonfly.mail.actions import forget_old_notices
from dragonfly.mail.outbox import forget_old_mail

MAIL_FORGOTTEN = Event("mail_forgotten", Level.INFO, {"count": int})
PAUSE_S = 0.05
"""Between two deletions, for those who settle."""


def forgetting_mail(
    engine: Engine, threads: DatabaseThreads, clock: Clock, log: EventLog
) -> Callable[[], Awaitable[None]]:
    """Deletes mails, notices and dead addresses after their lifetimes, a bounded number at a time."""

    def forget_some() -> int:
        with write(engine) as connection:
            now_ns = clock.now_ns()
            return forget_old_mail(connection, now_ns=now_ns) + forget_old_notices(connection, now_ns=now_ns)

    async def forget() -> None:
        forgotten = 0
        while deleted := await threads.run(forget_some):
            forgotten += deleted
            await asyncio.sleep(PAUSE_S)
        if forgotten:
            log.write(MAIL_FORGOTTEN, count=forgotten)

    return forget

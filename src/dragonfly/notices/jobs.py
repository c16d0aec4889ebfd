"""Recurring work of notices."""

from collections.abc import Awaitable, Callable

from sqlalchemy import Engine

from dragonfly.core.clock import Clock
from dragonfly.core.ids import IdSource
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.infra.logging import Event, EventLog, Level
from dragonfly.mail.alerts import Operator
from dragonfly.notices.actions import any_low_balance, begin_welcomes, send_welcomes, tell_low_balances
from dragonfly.notices.alerts import Standing, standing_mail, tell_operator

MAIL_STANDS = Event("mail_stands", Level.ERROR, {"waiting": int, "oldest_s": int})

Turn = Callable[[], Awaitable[None]]


def welcoming(engine: Engine, threads: DatabaseThreads, clock: Clock, ids: IdSource) -> Turn:
    """Begins welcomes and sends what is due, a bounded number in each turn."""

    def welcome() -> None:
        with write(engine) as connection:
            begin_welcomes(connection, now_ns=clock.now_ns())
        with write(engine) as connection:
            send_welcomes(connection, ids, now_ns=clock.now_ns())

    async def run() -> None:
        await threads.run(welcome)

    return run


def watching_balances(
    engine: Engine, threads: DatabaseThreads, clock: Clock, ids: IdSource, *, default_nusd: int
) -> Turn:
    """Tells of low balances, a bounded number in each turn."""

    def look() -> None:
        with read(engine) as connection:
            if not any_low_balance(connection, default_nusd):
                return
        with write(engine) as connection:
            tell_low_balances(connection, ids, default_nusd, now_ns=clock.now_ns())

    async def run() -> None:
        await threads.run(look)

    return run


def alerting(
    engine: Engine, threads: DatabaseThreads, clock: Clock, ids: IdSource, log: EventLog, *, operator: Operator
) -> Turn:
    """Tells the operator by mail what happened; in the log, too, that mail itself stands still."""

    def tell() -> None:
        with write(engine) as connection:
            tell_operator(connection, ids, operator, now_ns=clock.now_ns())

    def look() -> Standing | None:
        with read(engine) as connection:
            return standing_mail(connection, now_ns=clock.now_ns())

    async def run() -> None:
        if operator.address:
            await threads.run(tell)
        standing = await threads.run(look)
        if standing is not None:
            log.write(MAIL_STANDS, waiting=standing.waiting, oldest_s=standing.oldest_s)

    return run

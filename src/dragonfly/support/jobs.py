"""Recurring work of support: answered tickets that nobody goes on with are closed. Retention deletes closed ones."""

from collections.abc import Awaitable, Callable

from sqlalchemy import Connection, Engine, and_, or_, select, update

from dragonfly.core.clock import Clock
from dragonfly.infra.database import DatabaseThreads, write
from dragonfly.support.rules import ENDED, TicketState
from dragonfly.support.tables import support_tickets

SILENT_S = 30 * 86_400
AT_ONCE_MAX = 500


def close_silent_tickets(connection: Connection, *, now_ns: int) -> int:
    """Closes answered tickets whose writer has said nothing for 30 days, requests under review apart; how many."""
    tickets = support_tickets.c
    is_over = or_(tickets.request_state.is_(None), tickets.request_state.in_([state.value for state in ENDED]))
    silent = and_(
        tickets.state == TicketState.ANSWERED.value, tickets.updated_at_ns <= now_ns - SILENT_S * 10**9, is_over
    )
    chosen = select(tickets.id).where(silent).limit(AT_ONCE_MAX)
    closing = update(support_tickets).where(tickets.id.in_(chosen), silent)
    return connection.execute(closing.values(state=TicketState.CLOSED.value, closed_at_ns=now_ns)).rowcount


def closing_silent_tickets(engine: Engine, threads: DatabaseThreads, clock: Clock) -> Callable[[], Awaitable[None]]:
    """A bounded number in each turn."""

    def close_some() -> None:
        with write(engine) as connection:
            close_silent_tickets(connection, now_ns=clock.now_ns())

    async def run() -> None:
        await threads.run(close_some)

    return run

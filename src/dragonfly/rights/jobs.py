"""Recurring work: copies that nobody fetched expire, accounts whose day has come are erased, late reviews are told.

Each step is one transaction that begins with a conditional update, so several nodes may run the same turn, and a
process that dies in the middle leaves the step for the next turn.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, Engine, or_, select, update

from dragonfly.core.clock import Clock
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.infra.logging import Event, EventLog, Level
from dragonfly.privacy.erasure import erased_tables
from dragonfly.privacy.retention import erase_traces
from dragonfly.rights.actions import RightsTools, expire
from dragonfly.rights.erasing import erase
from dragonfly.rights.letters import tell_operators
from dragonfly.rights.queries import WORK_PAGE_MAX, due_for, unwiped
from dragonfly.rights.rules import NS_PER_DAY, RequestKind, State
from dragonfly.rights.tables import data_requests

CARRY_OUT_EVERY_S = 60.0
ALERT_EVERY_S = 900.0
ALERT_AGAIN_NS = NS_PER_DAY
"""A review that stays late is told of again after this long."""

ACCOUNTS_ERASED = Event("accounts_erased", Level.INFO, {"count": int})
REQUESTS_LATE = Event("data_requests_late", Level.WARNING, {"count": int})


class RightsWork:
    """What a serving process does for requests about data."""

    def __init__(
        self, engine: Engine, threads: DatabaseThreads, clock: Clock, tools: RightsTools, log: EventLog
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._clock = clock
        self._tools = tools
        self._log = log

    async def carry_out(self) -> None:
        """One turn: what is due is done, then the bytes of what was deleted are overwritten."""
        erased = await self._threads.run(carry_out_due, self._engine, self._tools, now_ns=self._clock.now_ns())
        if erased:
            self._log.write(ACCOUNTS_ERASED, count=erased)
        await self._threads.run(wipe_due, self._engine, now_ns=self._clock.now_ns())

    async def alert(self) -> None:
        """Tells operators of reviews that are late."""
        late = await self._threads.run(alert_late, self._engine, self._tools, now_ns=self._clock.now_ns())
        if late:
            self._log.write(REQUESTS_LATE, count=late)


def carry_out_due(engine: Engine, tools: RightsTools, *, now_ns: int) -> int:
    """Expires copies and erases accounts whose day has come; how many accounts. What stands in the way is noted and
    tried again at the next turn."""
    with read(engine) as connection:
        exports = due_for(connection, RequestKind.EXPORT, now_ns=now_ns)
        deletions = due_for(connection, RequestKind.DELETION, now_ns=now_ns)
    for request_id in exports:
        with write(engine) as connection:
            expire(connection, tools, request_id, now_ns=now_ns)
    erased = 0
    for request_id in deletions:
        with write(engine) as connection:
            erased += erase(connection, tools, request_id, now_ns=now_ns)
    return erased


def wipe_due(engine: Engine, *, now_ns: int) -> int:
    """Takes the bytes of erased accounts out of the files; for how many requests. 0 when somebody was in the
    way: the next turn tries again."""
    with read(engine) as connection:
        waiting = unwiped(connection)
    if not waiting or not erase_traces(engine, erased_tables()):
        return 0
    with write(engine) as connection:
        wiped = update(data_requests).where(data_requests.c.id.in_(waiting), data_requests.c.wiped_at_ns.is_(None))
        return connection.execute(wiped.values(wiped_at_ns=now_ns)).rowcount


def alert_late(engine: Engine, tools: RightsTools, *, now_ns: int) -> int:
    """One mail for all requests whose review is late and of which operators were not told today; how many."""
    with write(engine) as connection:
        late = list(_late(connection, now_ns))
        if late:
            detail = "Requests about data that should have been answered:\n" + "\n".join(late)
            key = f"data_requests_late/{now_ns}/{late[0]}"
            tell_operators(
                connection,
                tools.people,
                tools.operator_address,
                key=key,
                event="data_requests_late",
                detail=detail,
                now_ns=now_ns,
            )
    return len(late)


def _late(connection: Connection, now_ns: int) -> Iterable[str]:
    columns = data_requests.c
    is_late = columns.state == State.REQUESTED.value, columns.due_at_ns <= now_ns
    is_untold = or_(columns.alerted_at_ns.is_(None), columns.alerted_at_ns <= now_ns - ALERT_AGAIN_NS)
    chosen = select(columns.id).where(*is_late, is_untold).order_by(columns.due_at_ns).limit(WORK_PAGE_MAX)
    told = update(data_requests).where(columns.id.in_(chosen), is_untold).values(alerted_at_ns=now_ns)
    return sorted(connection.execute(told.returning(columns.id)).scalars())

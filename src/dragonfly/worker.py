"""The work that recurs while a process serves: signs of life, sweeps, idle leases, news about keys, retention."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sqlalchemy import Engine

from dragonfly.admission.breaker import trip_breakers
from dragonfly.admission.gate import Gate
from dragonfly.admission.leases import SMALL_LEASE_IDLE_S
from dragonfly.admission.proofs import claim_proof, compared_since_ns, note_proof, tell_operator
from dragonfly.admission.verify import Report, verify
from dragonfly.catalog.queries import paused_channels
from dragonfly.core.clock import Clock
from dragonfly.core.ids import IdSource, KeyId
from dragonfly.infra.database import DatabaseAway, DatabaseThreads, allow_long_statements, read, write
from dragonfly.infra.logging import Event, EventLog, Level, describe
from dragonfly.ledger.actions import EXPIRIES_PAGE_MAX, expire_credit
from dragonfly.privacy.retention import erase_traces, note_run, retention_steps, usage_before_ns
from dragonfly.settings import AdmissionSettings
from dragonfly.usage.queries import day_of
from dragonfly.usage.statistics import count_day, due_days, keep_day

WORKERS_SWEPT = Event("workers_swept", Level.WARNING, {"count": int})
ROWS_FORGOTTEN = Event("rows_forgotten", Level.INFO, {"count": int})
CREDIT_EXPIRED = Event("credit_expired", Level.INFO, {"count": int})
LEDGER_BROKEN = Event("ledger_broken", Level.ERROR, {"count": int, "checks": tuple})
KEYS_PAUSED = Event("keys_paused", Level.WARNING, {"count": int})
JOB_FAILED = Event("job_failed", Level.ERROR, {"job": str, "exceptions": tuple, "frames": tuple})

TURNS_MISSED_MAX = 3
PAUSES_EVERY_S = 0.5
ESTIMATES_EVERY_S = 60.0
EXPIRE_EVERY_S = 60.0
PROOF_EVERY_S = 600.0
BREAKER_EVERY_S = 15.0
RETENTION_EVERY_S = 600.0
STATISTICS_EVERY_S = 900.0
RETENTION_PAUSE_S = 0.05
"""Between two deletions, for those who settle."""


class Job(NamedTuple):
    """Something to do again and again."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]


class Pulse:
    """Whether a job keeps succeeding. That of the signs of life proves that the database takes writes, not only
    reads."""

    def __init__(self, job: Job, clock: Clock) -> None:
        self._job = job
        self._clock = clock
        self._felt_s = clock.monotonic_s()

    @property
    def job(self) -> Job:
        """The job, which from now on is watched."""
        return self._job._replace(run=self._run)

    @property
    def is_steady(self) -> bool:
        return self._clock.monotonic_s() - self._felt_s <= TURNS_MISSED_MAX * self._job.every_s

    async def _run(self) -> None:
        await self._job.run()
        self._felt_s = self._clock.monotonic_s()


def gate_jobs(gate: Gate, settings: AdmissionSettings, log: EventLog) -> tuple[Job, ...]:
    """What a serving process owes the database and the other workers."""

    async def sweep() -> None:
        swept = await gate.sweep()
        if swept:
            log.write(WORKERS_SWEPT, count=swept)

    return (
        Job("refresh", settings.refresh_s, gate.refresh),
        Job("beat", settings.heartbeat_s, gate.beat),
        Job("sweep", settings.heartbeat_s, sweep),
        Job("estimates", ESTIMATES_EVERY_S, gate.keep_estimates),
        Job("return_idle", SMALL_LEASE_IDLE_S / 2, gate.return_idle),
    )


def pause_job(gate: Gate, engine: Engine, threads: DatabaseThreads) -> Job:
    """Learns within a second which channels operators took out of service; the table is tiny."""

    def read_paused() -> frozenset[str]:
        with read(engine) as connection:
            return paused_channels(connection)

    async def look() -> None:
        gate.pause_channels(await threads.run(read_paused))

    return Job("pauses", PAUSES_EVERY_S, look)


def breaker_job(
    gate: Gate, engine: Engine, threads: DatabaseThreads, settings: AdmissionSettings, *, clock: Clock, log: EventLog
) -> Job:
    """Keys that spent here are looked at; those far above their habit are paused."""
    ids = IdSource()

    def look(spent: dict[KeyId, int]) -> int:
        with write(engine) as connection:
            return trip_breakers(connection, ids, spent, settings, now_ns=clock.now_ns())

    async def run() -> None:
        spent = gate.take_spent()
        tripped = await threads.run(look, spent) if spent and settings.breaker_factor else 0
        if tripped:
            log.write(KEYS_PAUSED, count=tripped)

    return Job("breaker", BREAKER_EVERY_S, run)


def retention_job(engine: Engine, threads: DatabaseThreads, clock: Clock, log: EventLog) -> Job:
    """Rows that have lived their time go, a bounded number at a time; then their bytes leave the files."""
    steps = retention_steps()
    traces: set[str] = set()
    """Tables whose files still remember; kept for the next turn when somebody was in the way."""

    async def forget() -> None:
        now_ns, count = clock.now_ns(), 0
        for step in steps:
            while deleted := await threads.run(step.delete_some, engine, now_ns):
                count += deleted
                traces.update(step.tables)
                await asyncio.sleep(RETENTION_PAUSE_S)
        await threads.run(note_run, engine, now_ns=now_ns, rows=count)
        if count:
            log.write(ROWS_FORGOTTEN, count=count)
        if traces:
            is_erased = await threads.run(erase_traces, engine, tuple(sorted(traces)))
            if is_erased:
                traces.clear()

    return Job("retention", RETENTION_EVERY_S, forget)


def statistics_job(engine: Engine, clock: Clock) -> Job:
    """Days that are over are counted once, for the anonymous statistics."""

    async def count() -> None:
        # In a thread of its own: reading a day's rows may take long, and others need the few threads.
        await asyncio.to_thread(count_closed_days, engine, clock)

    return Job("statistics", STATISTICS_EVERY_S, count)


def count_closed_days(engine: Engine, clock: Clock) -> int:
    """Counts what is due; how many days. Of several workers the first to finish a day keeps it."""
    with read(engine) as connection:
        due = due_days(connection, now_ns=clock.now_ns())
    kept = 0
    for day in due:
        with read(engine) as connection:
            allow_long_statements(connection)
            cells = count_day(connection, day)
        with write(engine) as connection:
            kept += keep_day(connection, day, cells, now_ns=clock.now_ns())
    return kept


def book_jobs(
    engine: Engine, threads: DatabaseThreads, clock: Clock, log: EventLog, *, operator_address: str
) -> tuple[Job, ...]:
    """Credit that was given for a time goes back when the time is over; every night the books are proven."""

    def expire_some() -> int:
        with write(engine) as connection:
            return expire_credit(connection, now_ns=clock.now_ns())

    async def expire() -> None:
        expired = count = await threads.run(expire_some)
        while count == EXPIRIES_PAGE_MAX:
            expired += (count := await threads.run(expire_some))
        if expired:
            log.write(CREDIT_EXPIRED, count=expired)

    async def prove() -> None:
        # In a thread of its own: reading whole tables may take minutes, and others need the few threads.
        report = await asyncio.to_thread(prove_books, engine, clock, operator_address=operator_address)
        if report is not None and not report.is_clean:
            log.write(LEDGER_BROKEN, count=len(report.findings), checks=report.broken)

    return Job("expire", EXPIRE_EVERY_S, expire), Job("proof", PROOF_EVERY_S, prove)


def prove_books(engine: Engine, clock: Clock, *, operator_address: str = "") -> Report | None:
    """Tonight's proof, kept and mailed to the operator; None when it is not due, or somebody else makes it."""
    now_ns = clock.now_ns()
    with write(engine) as connection:
        if not claim_proof(connection, now_ns=now_ns):
            return None
    with read(engine) as connection:
        since_ns = compared_since_ns(now_ns, usage_before_ns(connection))
        report = verify(connection, usage_since_ns=since_ns)
    with write(engine) as connection:
        note_proof(connection, report, day=day_of(now_ns), now_ns=clock.now_ns())
        if not report.is_clean:
            tell_operator(connection, IdSource(), report, operator_address, now_ns=clock.now_ns())
    return report


async def run_jobs(jobs: tuple[Job, ...], log: EventLog) -> None:
    """Runs every job at its pace until cancelled. A job that fails is told of and tried again at its next turn;
    jobs do not wait for each other."""
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(_repeat(job, log), name=job.name)


async def _repeat(job: Job, log: EventLog) -> None:
    while True:
        await asyncio.sleep(job.every_s)
        try:
            await job.run()
        except DatabaseAway:
            continue  # the writer of money has told it already, once per outage
        except Exception as failure:
            exceptions, frames = describe(failure)
            log.write(JOB_FAILED, job=job.name, exceptions=exceptions, frames=frames)

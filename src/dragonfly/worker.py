"""The work that recurs while a process serves: signs of life, sweeps, idle leases, news about keys."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from dragonfly.admission.gate import Gate
from dragonfly.admission.leases import SMALL_LEASE_IDLE_S
from dragonfly.infra.database import DatabaseAway
from dragonfly.infra.logging import Event, EventLog, Level, describe
from dragonfly.settings import AdmissionSettings

WORKERS_SWEPT = Event("workers_swept", Level.WARNING, {"count": int})
JOB_FAILED = Event("job_failed", Level.ERROR, {"job": str, "exceptions": tuple, "frames": tuple})


class Job(NamedTuple):
    """Something to do again and again."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]


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
        Job("return_idle", SMALL_LEASE_IDLE_S / 2, gate.return_idle),
    )


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

"""The periodic jobs of a serving process: each at its own pace, and none stopped by another's failure."""

import asyncio
import contextlib
import io
import json

from sqlalchemy import Engine

from dragonfly.core.clock import SystemClock
from dragonfly.infra.database import DatabaseAway
from dragonfly.infra.logging import EventLog
from dragonfly.worker import Job, gate_jobs, run_jobs
from tests.factories import MovableClock, make_customer
from tests.store.desk import WAIT_S, make_log, make_settings, running_desk, until


async def _run_until(jobs: tuple[Job, ...], log: EventLog, done: asyncio.Event) -> None:
    running = asyncio.create_task(run_jobs(jobs, log))
    try:
        async with asyncio.timeout(WAIT_S):
            await done.wait()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_failing_job_is_told_without_its_words_and_tried_again() -> None:
    stream, done, calls = io.BytesIO(), asyncio.Event(), 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        if calls >= 3:
            done.set()
        raise ValueError("canary") if calls == 2 else DatabaseAway

    async def hang() -> None:
        await asyncio.Event().wait()

    log = EventLog(stream, SystemClock(), strict=True)
    await _run_until((Job("hang", 0.001, hang), Job("fail", 0.001, fail)), log, done)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["job"]) for line in lines] == [("job_failed", "fail")]
    assert "canary" not in stream.getvalue().decode()


async def test_a_serving_worker_beats_refreshes_sweeps_and_returns(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="0.5")
    async with running_desk(engine, clock) as dead, running_desk(engine, clock, make_settings()) as desk:
        await dead.admit(await dead.ask(alice))
        desk.settle(await desk.admit(await desk.ask(alice)))
        jobs = gate_jobs(desk.gate, make_settings(), make_log())
        assert [job.name for job in jobs] == ["refresh", "beat", "sweep", "estimates", "return_idle"]
        running = asyncio.create_task(run_jobs(jobs, make_log()))

        async def pass_time() -> None:
            clock.move(1.0)
            await asyncio.sleep(0)

        await until(lambda: desk.wallet(alice).leased_nusd == 0, pass_time)
        assert desk.gate.key_cached(alice.secret) is not None or await desk.gate.key(alice.secret)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert desk.verify().findings == ()

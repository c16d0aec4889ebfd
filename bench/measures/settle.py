"""Settlements per second: the real gate on a real database file, without HTTP around it.

Requests of many accounts are admitted and settled as fast as they become durable, a fixed number at a time. What
counts is a settlement whose `on_durable` was called: usage row, ledger entries, wallet and lease are committed.
"""

import asyncio
import os
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import uvloop
from sqlalchemy import event

from bench.installation import Installation, installation, open_gate
from bench.modes import JSON_SMALL
from bench.rows import Row, refused, row
from dragonfly.admission.gate import Gate
from dragonfly.admission.grants import Ask, Grant, KeyPolicy, Settlement
from dragonfly.core.clock import SystemClock
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import IdSource
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage

ACCOUNTS = 50
UNDER_WAY = 4_000
POSTGRES_VARIABLE = "BENCH_POSTGRESQL_URL"
"""An empty database; by a Unix socket, because the benchmark's network namespace reaches no other loopback."""
_NO_SERVER = f"{POSTGRES_VARIABLE} names no PostgreSQL database"
WARM_S = 0.5
DRAIN_S = 30.0
SYNCS = 200
USAGE = TokenUsage(prompt_tokens=900, completion_tokens=300, cached_tokens=200)


class SettleLoad:
    """Keeps `UNDER_WAY` requests between admission and durability."""

    def __init__(self, gate: Gate, policies: list[KeyPolicy], model: str) -> None:
        self._gate = gate
        self._policies = cycle(policies)
        self._offers = (gate.offer(model),)
        self._model = model
        self._clock = SystemClock()
        self._ids = IdSource()
        self._open = 0
        self._going = True
        self._ended = asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()
        self.durable = 0

    def begin(self) -> None:
        """Fill up."""
        for _ in range(UNDER_WAY):
            self._next()

    async def end(self) -> None:
        """Wait until everything is durable."""
        self._going = False
        async with asyncio.timeout(DRAIN_S):
            while self._open:
                self._ended.clear()
                await self._ended.wait()

    def _next(self) -> None:
        now_ns = self._clock.now_ns()
        key = next(self._policies)
        ask = Ask(key, self._ids.request(now_ns), self._offers, 4_000, 1_024, 1, False, now_ns)
        self._open += 1
        grant = self._gate.admit(ask)
        if grant is not None:
            self._settle(grant)
            return
        task = asyncio.get_running_loop().create_task(self._admit(ask))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _admit(self, ask: Ask) -> None:
        self._settle(await self._gate.admit_waiting(ask))

    def _settle(self, grant: Grant) -> None:
        candidate = self._offers[0].candidates[0]
        charge = self._gate.charge(grant, candidate, USAGE, Outcome.COMPLETE)
        settlement = Settlement(
            outcome=Outcome.COMPLETE,
            candidate=candidate,
            usage=USAGE,
            charge=charge,
            answered_model=self._model,
            finish_reason="stop",
            upstream_status=200,
            attempts=1,
            ttft_us=1_000,
            duration_us=2_000,
        )
        self._gate.settle(grant, settlement, self._on_durable)

    def _on_durable(self) -> None:
        self.durable += 1
        self._open -= 1
        if self._going:
            self._next()
        elif not self._open:
            self._ended.set()


async def _measure(installed: Installation, seconds: float, windows: int) -> list[float]:
    gate = open_gate(installed, SystemClock())
    await gate.start()
    try:
        policies = [await gate.key(key.encode()) for key in installed.keys]
        load = SettleLoad(gate, policies, f"bench/{JSON_SMALL}")
        load.begin()
        await asyncio.sleep(WARM_S)
        rates = []
        for _ in range(windows):
            before, started_ns = load.durable, time.monotonic_ns()
            await asyncio.sleep(seconds)
            rates.append((load.durable - before) * 1e9 / (time.monotonic_ns() - started_ns))
        await load.end()
        return rates
    finally:
        await gate.stop()


def settle_rows(folder: Path, core: int, *, seconds: float, windows: int) -> list[Row]:
    """Rows `settle_sqlite` (as shipped: every commit is synced), `settle_sqlite_normal` (synced at checkpoints only),
    the same two for PostgreSQL where there is a server, in settlements per second; and `sync`, what one synced write
    of 4 KiB costs on this disk."""
    rows = [] if os.environ.get(POSTGRES_VARIABLE) else [refused("dragonfly", "settle_postgresql", "1/s", _NO_SERVER)]
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        for measure, url, relaxed in _databases():
            place = folder / measure
            place.mkdir(parents=True)
            try:
                with installation(place, mock_port=9, accounts=ACCOUNTS, database_url=url) as installed:
                    if relaxed:
                        _relax(installed, relaxed)
                    rates = uvloop.run(_measure(installed, seconds, windows))
                rows.append(row("dragonfly", measure, "1/s", rates, {"accounts": float(ACCOUNTS)}))
            except (DragonflyError, OSError, TimeoutError) as error:
                rows.append(refused("dragonfly", measure, "1/s", error))
        rows.append(row("dragonfly", "sync", "µs", _sync_times_us(folder / "sync")))
    finally:
        os.sched_setaffinity(0, usual)
    return rows


def _databases() -> list[tuple[str, str, str]]:
    """Measure, URL ("": a file of its own) and the statement that makes each connection less durable."""
    found = [("settle_sqlite", "", ""), ("settle_sqlite_normal", "", "PRAGMA synchronous = NORMAL")]
    server = os.environ.get(POSTGRES_VARIABLE, "")
    if server:
        found.append(("settle_postgresql", server, ""))
        found.append(("settle_postgresql_async", server, "SET synchronous_commit = off"))
    return found


def _relax(installed: Installation, statement: str) -> None:
    def relax(connection: object, record: object) -> None:
        execute: Callable[[str], object] = connection.execute  # type: ignore[attr-defined]
        execute(statement)

    installed.engine.dispose()
    event.listen(installed.engine, "connect", relax)


def _sync_times_us(path: Path) -> list[float]:
    times = []
    with path.open("wb") as file:
        for _ in range(SYNCS):
            started_ns = time.monotonic_ns()
            file.write(bytes(4_096))
            file.flush()
            os.fdatasync(file.fileno())
            times.append((time.monotonic_ns() - started_ns) / 1e3)
    return times

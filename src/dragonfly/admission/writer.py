"""The thread that writes money: every settlement and every change of a lease of this worker goes through it.

One writer needs no locks against itself, and its transactions take whatever has come in meanwhile (group commit).
The event loop hands settlements over when it has nothing else to do, or after a bound of time or number: under
load that makes batches of dozens, and without load nobody waits.
"""

import asyncio
import itertools
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar, cast

from sqlalchemy import Connection, Engine

from dragonfly.admission.batches import Settled
from dragonfly.admission.settling import BatchRefused, Settler
from dragonfly.admission.statements import Cursor, PostgresStatements, SqliteStatements
from dragonfly.core.clock import Clock
from dragonfly.infra.database import (
    DRIVER_ERRORS,
    DatabaseAway,
    commit,
    dialect_of,
    hold_for_writing,
    is_away,
    reaching,
)
from dragonfly.infra.logging import Event, EventLog, Level, describe

T = TypeVar("T")

HAND_OVER_ROWS = 64
"""A batch this large is handed over at once."""
HAND_OVER_S = 0.004
"""A settlement waits at most this long in the loop for company, and only while the loop is busy."""
QUIET_TURNS = 2
"""Turns of the event loop without a new settlement after which it counts as idle."""
COMPANY_S = 0.003
"""After a commit of several settlements the next one waits this long: whoever came alone is not delayed, and where
many come at once each transaction carries more of them."""
BACKOFF_S = 0.05
BACKOFF_S_MAX = 1.0
JOBS_WAITING_MAX = 10_000

DATABASE_AWAY = Event("database_away", Level.ERROR, {"waiting": int})
DATABASE_BACK = Event("database_back", Level.INFO, {"waiting": int})
WRITER_FAILED = Event("writer_failed", Level.ERROR, {"exceptions": tuple, "frames": tuple})
SETTLEMENT_REFUSED = Event(
    "settlement_refused", Level.ERROR, {"request_id": str, "exceptions": tuple, "frames": tuple}
)


class _Job(Generic[T]):
    """Work for the writer's thread in a transaction of its own; the answer goes back to the loop."""

    __slots__ = ("answer", "failure", "future", "work")

    def __init__(self, work: Callable[[Connection], T], future: "asyncio.Future[T]") -> None:
        self.work = work
        self.future = future
        self.answer: T | None = None
        self.failure: Exception | None = None

    def run(self, connection: Connection) -> None:
        """Does the work in a savepoint, so that a refusal of one leaves the others alone."""
        savepoint = connection.begin_nested()
        try:
            self.answer = self.work(connection)
            savepoint.commit()
        except Exception as failure:
            if is_away(failure):
                raise
            savepoint.rollback()
            self.failure = failure

    def resolve(self) -> None:
        """On the event loop: hands the answer to whoever still waits for it."""
        if self.future.done():
            return
        if self.failure is not None:
            self.future.set_exception(self.failure)
        else:
            self.future.set_result(cast(T, self.answer))


def _resolve(jobs: Sequence[_Job[object]]) -> None:
    for job in jobs:
        job.resolve()


class _Stop:
    """The last thing in the queue."""


class MoneyWriter:
    """Owns the thread, its connection and what waits for them. All methods belong to the event loop's thread."""

    def __init__(self, engine: Engine, clock: Clock, log: EventLog, *, batch_max: int) -> None:
        self._engine = engine
        self._clock = clock
        self._log = log
        self._batch_max = batch_max
        self._queue: queue.SimpleQueue[list[Settled] | _Job[object] | _Stop] = queue.SimpleQueue()
        self._pending: list[Settled] = []
        self._hand_over_at_s = 0.0
        self._seen = self._quiet_turns = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="money", daemon=True)
        self._ended = asyncio.Event()
        self._is_stopping = threading.Event()
        self._connection: Connection | None = None
        statements = SqliteStatements() if dialect_of(engine) == "sqlite" else PostgresStatements()
        self._settler = Settler(statements)
        self._backoff_s = 0.0
        self._last_rows = 0
        self._jobs_waiting = 0
        self.counted: Callable[[Sequence[Settled]], None] | None = None
        """Told of every batch that is done, in the writer's thread."""
        self.unsettled = 0
        """Settlements that are not durable yet."""
        self.refused = 0
        """Settlements that the database refused for themselves; a bug of ours, and nobody was charged."""

    @property
    def has_ended(self) -> bool:
        """The thread is done; what is unsettled then stays so."""
        return self._ended.is_set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the thread."""
        self._loop = loop
        self._thread.start()

    def settle(self, settled: Settled) -> None:
        """Takes a settlement; its `on_durable` runs on the loop when it is committed."""
        self.unsettled += 1
        pending = self._pending
        pending.append(settled)
        if len(pending) == 1:
            loop = self._loop
            assert loop is not None, "started"
            self._hand_over_at_s = self._clock.monotonic_s() + HAND_OVER_S
            self._seen = 1
            self._quiet_turns = 0
            loop.call_soon(self._consider)

    def run(self, work: Callable[[Connection], T]) -> "asyncio.Future[T]":
        """Runs `work` in the writer's thread, after the settlements that were taken before, in a transaction.

        DatabaseAway when the database is; then the work is not tried again.
        """
        assert self._loop is not None, "started"
        future: asyncio.Future[T] = self._loop.create_future()
        if self._ended.is_set() or self._jobs_waiting >= JOBS_WAITING_MAX:
            future.set_exception(DatabaseAway())
            return future
        self._jobs_waiting += 1
        future.add_done_callback(self._job_done)
        self._hand_over()
        self._queue.put(cast("_Job[object]", _Job(work, future)))
        return future

    async def stop(self, *, wait_s: float) -> bool:
        """Writes what waits, then ends the thread. False when `wait_s` did not suffice; then it ends on its own."""
        self._hand_over()
        self._queue.put(_Stop())
        try:
            async with asyncio.timeout(wait_s):
                await self._ended.wait()
        except TimeoutError:
            self._is_stopping.set()
            return False
        self._thread.join()
        return True

    def _job_done(self, future: "asyncio.Future[T]") -> None:
        self._jobs_waiting -= 1
        if not future.cancelled():
            future.exception()  # taken note of, for jobs that nobody waits for any longer

    def _consider(self) -> None:
        """Hands over when the loop has become quiet, or the batch is large or old enough; else looks again at the
        loop's next turn."""
        size = len(self._pending)
        if not size:
            return
        if size == self._seen:
            self._quiet_turns += 1
        else:
            self._seen = size
            self._quiet_turns = 0
        if (
            self._quiet_turns >= QUIET_TURNS
            or size >= HAND_OVER_ROWS
            or self._clock.monotonic_s() >= self._hand_over_at_s
        ):
            self._hand_over()
        else:
            assert self._loop is not None
            self._loop.call_soon(self._consider)

    def _hand_over(self) -> None:
        if self._pending:
            self._queue.put(self._pending)
            self._pending = []

    def _durable(self, batch: Sequence[Settled]) -> None:
        """On the loop: the batch is committed."""
        self.unsettled -= len(batch)
        for settled in batch:
            if settled.on_durable is None:
                continue
            try:
                settled.on_durable()
            except Exception as failure:
                # One caller's mistake must not keep the others' answers back.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "on_durable failed", "exception": failure}
                )

    # From here on, everything runs in the thread.

    def _serve(self) -> None:
        waiting: deque[Settled] = deque()
        is_last = False
        while not (is_last and not waiting) and not self._is_stopping.is_set():
            jobs: list[_Job[object]] = []
            if self._last_rows > 1 and not is_last:
                self._is_stopping.wait(COMPANY_S)
            self._last_rows = 0
            is_last = self._collect(waiting, jobs, is_last=is_last) or is_last
            if self._try(partial(self._settle_all, waiting), jobs, waiting):
                self._try(partial(self._run_jobs, jobs), jobs, waiting)
        self._disconnect()
        self._tell(self._ended.set)

    def _try(self, work: Callable[[], None], jobs: list[_Job[object]], waiting: deque[Settled]) -> bool:
        """Does `work`; when the database is away, or we are wrong, fails the jobs and waits before the next try."""
        is_uncertain = False
        try:
            work()
        except DatabaseAway as away:
            is_uncertain = away.is_uncertain
        except Exception as failure:
            # A bug of ours; the thread must outlive it, because money waits here.
            exceptions, frames = describe(failure)
            self._log.write(WRITER_FAILED, exceptions=exceptions, frames=frames)
            is_uncertain = True
        else:
            self._came_back(len(waiting))
            return True
        self._disconnect()
        for job in jobs:
            job.failure = DatabaseAway(is_uncertain=is_uncertain)
        self._tell(_resolve, jobs)
        self._back_off(len(waiting))
        return False

    def _settle_all(self, waiting: deque[Settled]) -> None:
        while waiting:
            batch = list(itertools.islice(waiting, self._batch_max))
            self._settle(batch)
            for _ in batch:
                waiting.popleft()
            self._last_rows = len(batch)
            self._tell(self._durable, batch)
            if self.counted is not None:
                self.counted(batch)

    def _collect(self, waiting: deque[Settled], jobs: list[_Job[object]], *, is_last: bool) -> bool:
        """Takes everything from the queue, waiting for something when there is nothing to do; True after _Stop."""
        is_stopped = False
        try:
            item = self._queue.get(block=not waiting and not is_last)
            while True:
                if isinstance(item, list):
                    waiting.extend(item)
                elif isinstance(item, _Job):
                    jobs.append(item)
                else:
                    is_stopped = True
                item = self._queue.get_nowait()
        except queue.Empty:
            return is_stopped

    def _settle(self, batch: Sequence[Settled]) -> None:
        """Commits the batch. What the database refuses for itself is cut out by halving, so that one broken
        settlement does not keep the others back."""
        try:
            self._commit(batch, self._settler.settle)
            return
        except BatchRefused:
            pass
        try:
            self._commit(batch, self._settler.settle_carefully)
        except BatchRefused as refused:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._settle(batch[:middle])
                self._settle(batch[middle:])
                return
            self.refused += 1
            exceptions, frames = describe(refused)
            request_id = batch[0].grant.ask.request_id
            self._log.write(SETTLEMENT_REFUSED, request_id=request_id, exceptions=exceptions, frames=frames)

    def _commit(self, batch: Sequence[Settled], settle: Callable[[Cursor, Sequence[Settled], int], None]) -> None:
        """One transaction. DatabaseAway when it should be tried again, BatchRefused for everything else."""
        raw = self._connected().connection
        cursor = raw.cursor()
        try:
            settle(cast(Cursor, cursor), batch, self._clock.now_ns())
            raw.commit()
            cursor.close()
        except Exception as failure:
            self._settler.forget_books()
            if is_away(failure):
                raise DatabaseAway from None
            try:
                raw.rollback()
            except DRIVER_ERRORS:
                raise DatabaseAway from None
            raise BatchRefused from failure

    def _run_jobs(self, jobs: list[_Job[object]]) -> None:
        if not jobs:
            return
        with reaching():
            connection = self._connected()
            connection.begin()
            for job in jobs:
                job.run(connection)
            commit(connection)
        self._tell(_resolve, jobs)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = hold_for_writing(self._engine)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._settler.forget_books()
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _back_off(self, waiting: int) -> None:
        if not self._backoff_s:
            self._log.write(DATABASE_AWAY, waiting=waiting)
        self._backoff_s = min(max(BACKOFF_S, self._backoff_s * 2), BACKOFF_S_MAX)
        self._is_stopping.wait(self._backoff_s * random.uniform(0.5, 1.0))

    def _came_back(self, waiting: int) -> None:
        if self._backoff_s:
            self._backoff_s = 0.0
            self._log.write(DATABASE_BACK, waiting=waiting)

    def _tell(self, call: Callable[..., object], *arguments: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            pass  # the loop is closed: the process ends, and nobody waits any more

"""The money that this worker has leased, and its sign of life.

A purse is the worker's side of one lease: `amount_nusd` has been taken from the wallet in the database already,
`held_nusd` of it is promised to open requests. Requests take their holds from it without asking anybody. All
methods run on the event loop; what changes the database goes through the writer.
"""

import asyncio
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Connection

from dragonfly.admission import actions
from dragonfly.admission.actions import Claim, Extension, WorkerLost
from dragonfly.admission.errors import InsufficientBalance, StoreUnavailable
from dragonfly.admission.grants import Ask, KeyPolicy
from dragonfly.admission.queries import beats_of_workers, is_dead
from dragonfly.admission.rules import Demand, Hold, affordable_tokens, hold_within, most_nusd
from dragonfly.admission.writer import MoneyWriter
from dragonfly.core.clock import Clock
from dragonfly.core.ids import AccountId, IdSource, KeyId, LeaseId
from dragonfly.infra.changes import record_change
from dragonfly.infra.database import DatabaseAway
from dragonfly.settings import AdmissionSettings

RECALL = "lease"
"""The feed's word for an account whose leased money is wanted elsewhere."""
SMALL_LEASE_IDLE_S = 1.0
"""A lease of a small wallet goes back this soon: other workers may need the money."""
RECALL_LOOK_S, RECALL_LOOK_S_MAX = 0.05, 0.4
"""Between two looks for recalled money; doubles."""
LOW_SHARE = 0.3
"""A large lease is extended ahead of need when less than this share of its usual size is left."""


class Purse:
    """One lease, seen from the worker that holds it."""

    __slots__ = (
        "account_id",
        "amount_nusd",
        "held_nusd",
        "is_closed",
        "is_small",
        "is_stored",
        "key_id",
        "lease_id",
        "looks",
        "low_nusd",
        "recall_again_s",
        "rounds",
        "used_at_s",
        "waiting",
    )

    def __init__(self, lease_id: LeaseId, account_id: AccountId, key_id: KeyId | None) -> None:
        self.lease_id = lease_id
        self.account_id = account_id
        self.key_id = key_id
        self.amount_nusd = 0
        self.held_nusd = 0
        self.low_nusd = 0
        self.used_at_s = 0.0
        self.is_small = True
        self.is_stored = False
        """The database has its row."""
        self.is_closed = False
        """Grants nothing any more; goes back when its last request has settled."""
        self.looks = 0
        """For recalled money, in a row."""
        self.recall_again_s = 0.0
        self.waiting: list[_Waiter] = []
        self.rounds: asyncio.Task[None] | None = None

    @property
    def free_nusd(self) -> int:
        return self.amount_nusd - self.held_nusd

    def release(self, hold_nusd: int, cost_nusd: int) -> None:
        """A request ended: its hold is free again, except what it cost."""
        assert 0 <= cost_nusd <= hold_nusd <= self.held_nusd, "a charge lies within its hold, a hold within its lease"
        self.held_nusd -= hold_nusd
        self.amount_nusd -= cost_nusd


class _Waiter(NamedTuple):
    """A request that waits for money."""

    ask: Ask
    demand: Demand
    future: "asyncio.Future[Hold]"
    patient_until_s: float
    """By the event loop's clock: until then it waits for money that others may give back."""


class PurseClosed(Exception):
    """The purse closed while somebody waited for it; there is a new one."""


class Leases:
    """Every purse of this worker, its registration, and its watch over the other workers."""

    def __init__(self, settings: AdmissionSettings, writer: MoneyWriter, *, clock: Clock, ids: IdSource) -> None:
        self._settings = settings
        self._writer = writer
        self._clock = clock
        self._ids = ids
        self.worker_id = ""
        self._purses: dict[tuple[AccountId, KeyId | None], Purse] = {}
        self._closed: list[Purse] = []
        self._seen: dict[str, tuple[int, float]] = {}
        self._registering = asyncio.Lock()
        self._shrinking: set[asyncio.Task[None]] = set()
        self.alive_until_s = float("-inf")
        """Until then no other worker can have declared this one dead, so its leases are its own."""

    @property
    def held_nusd(self) -> int:
        """Promised to open requests from purses that are still this worker's."""
        return sum(purse.held_nusd for purse in (*self._purses.values(), *self._closed))

    async def register(self) -> None:
        """Announces this worker under a new id."""
        now_ns = self._clock.now_ns()
        worker_id = self._ids.new("wrk-", now_ns)
        asked_s = self._clock.monotonic_s()
        await self._writer.run(lambda connection: actions.register_worker(connection, worker_id, now_ns=now_ns))
        self.worker_id = worker_id
        self._extend_life(asked_s)

    async def beat(self) -> None:
        """A sign of life. A worker that was declared dead meanwhile starts anew. DatabaseAway."""
        worker_id, now_ns, asked_s = self.worker_id, self._clock.now_ns(), self._clock.monotonic_s()
        try:
            await self._writer.run(lambda connection: actions.beat(connection, worker_id, now_ns=now_ns))
        except WorkerLost:
            await self._start_anew(worker_id)
        else:
            if self.worker_id == worker_id:
                self._extend_life(asked_s)

    def purse(self, key: KeyPolicy) -> Purse:
        """The open purse for a key: the account's, or the key's own when the key has a spending limit."""
        place = (key.account_id, key.key_id if key.has_own_purse else None)
        purse = self._purses.get(place)
        if purse is None:
            lease_id = LeaseId(self._ids.new("lea-", self._clock.now_ns()))
            purse = self._purses[place] = Purse(lease_id, *place)
            purse.used_at_s = self._clock.monotonic_s()
        return purse

    def close(self, purse: Purse) -> None:
        """Stops granting from the purse; it goes back when it is empty of holds."""
        if purse.is_closed:
            return
        purse.is_closed = True
        del self._purses[purse.account_id, purse.key_id]
        if purse.is_stored:
            self._closed.append(purse)

    async def take(self, purse: Purse, ask: Ask, demand: Demand) -> Hold:
        """A hold from the purse, extended from the wallet as needed.

        InsufficientBalance, StoreUnavailable, or PurseClosed when there is a new purse to ask.
        """
        is_mine = not purse.is_closed and self._clock.monotonic_s() < self.alive_until_s
        if is_mine and not purse.waiting and demand.full_nusd <= purse.free_nusd:
            purse.held_nusd += demand.full_nusd
            return Hold(demand.full_nusd, None)
        loop = asyncio.get_running_loop()
        waiter = _Waiter(ask, demand, loop.create_future(), loop.time() + self._settings.recall_s)
        purse.waiting.append(waiter)
        self._start_rounds(purse)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                purse.release(waiter.future.result().hold_nusd, 0)
            raise

    def extend_ahead(self, purse: Purse) -> None:
        """Asks for more before anybody has to wait for it."""
        self._start_rounds(purse)

    async def return_idle(self) -> None:
        """Gives back what nobody has used for a while, and closed purses without holds. DatabaseAway."""
        now_s = self._clock.monotonic_s()
        for purse in list(self._purses.values()):
            idle_s = SMALL_LEASE_IDLE_S if purse.is_small else self._settings.lease_idle_s
            is_idle = now_s - purse.used_at_s >= idle_s
            if is_idle and not purse.held_nusd and purse.rounds is None and not purse.waiting:
                self.close(purse)
        going = [purse for purse in self._closed if not purse.held_nusd]
        if going:
            lease_ids, now_ns = [purse.lease_id for purse in going], self._clock.now_ns()
            await self._writer.run(lambda connection: _return_all(connection, lease_ids, now_ns))
            self._closed = [purse for purse in self._closed if purse.lease_id not in lease_ids]

    def recalled(self, account_id: AccountId) -> None:
        """Somebody is short of this account's money: gives back at once what no request of this worker holds."""
        if self._clock.monotonic_s() >= self.alive_until_s:
            return  # the leases may be somebody else's already
        spare: list[tuple[LeaseId, int]] = []
        for purse in (*self._purses.values(), *self._closed):
            if purse.account_id != account_id or purse.rounds is not None or not purse.free_nusd:
                continue
            spare.append((purse.lease_id, purse.free_nusd))
            # What the database still has of it is more than this worker counts on, never less.
            purse.amount_nusd = purse.held_nusd
            purse.is_small = True
            purse.low_nusd = 0
        if spare:
            task = asyncio.get_running_loop().create_task(self._shrink(account_id, spare))
            self._shrinking.add(task)
            task.add_done_callback(self._shrinking.discard)

    async def _shrink(self, account_id: AccountId, spare: list[tuple[LeaseId, int]]) -> None:
        now_ns = self._clock.now_ns()

        def shrink(connection: Connection) -> None:
            for lease_id, nusd in spare:
                actions.shrink_lease(connection, lease_id, account_id=account_id, amount_nusd=nusd, now_ns=now_ns)

        with suppress(DatabaseAway):  # else it goes back with the rest of the lease
            await self._writer.run(shrink)

    async def return_all(self) -> None:
        """At the end: gives everything back at once. DatabaseAway: the other workers will do it later."""
        worker_id, now_ns = self.worker_id, self._clock.now_ns()
        self._lose_all()
        self.alive_until_s = float("-inf")
        while not await self._writer.run(
            lambda connection: actions.release_leases(connection, worker_id, now_ns=now_ns)
        ):
            pass

    async def sweep(self) -> int:
        """Gives back the leases of workers that stopped beating; how many workers that were. DatabaseAway."""
        now_s = self._clock.monotonic_s()
        beats = await self._writer.run(beats_of_workers)
        swept = 0
        known = {worker.id for worker in beats}
        self._seen = {worker_id: seen for worker_id, seen in self._seen.items() if worker_id in known}
        for worker in beats:
            if worker.id == self.worker_id:
                continue
            counted, since_s = self._seen.get(worker.id, (-1, now_s))
            if counted != worker.beats:
                self._seen[worker.id] = (worker.beats, now_s)
            elif worker.is_dead or now_s - since_s >= self._settings.heartbeat_dead_s:
                swept += await self._bury(worker.id, worker.beats)
        return swept

    async def _bury(self, worker_id: str, beats: int) -> bool:
        run = self._writer.run
        await run(lambda connection: actions.declare_dead(connection, worker_id, beats=beats))
        if not await run(lambda connection: is_dead(connection, worker_id)):
            return False
        now_ns = self._clock.now_ns()
        while not await run(lambda connection: actions.release_leases(connection, worker_id, now_ns=now_ns)):
            pass
        return True

    def _extend_life(self, asked_s: float) -> None:
        # Counted from before the question; others count from when they saw the answer's beat. One heartbeat less,
        # for clocks that do not run equally fast.
        self.alive_until_s = asked_s + self._settings.heartbeat_dead_s - self._settings.heartbeat_s

    async def _start_anew(self, lost_id: str) -> None:
        async with self._registering:
            if self.worker_id == lost_id:
                self.alive_until_s = float("-inf")
                self._lose_all()
                await self.register()

    def _lose_all(self) -> None:
        """The leases belong to somebody else now; open requests settle from the wallet."""
        for purse in list(self._purses.values()):
            self.close(purse)
        self._closed.clear()

    def _start_rounds(self, purse: Purse) -> None:
        if purse.rounds is None:
            purse.rounds = asyncio.get_running_loop().create_task(self._serve(purse))

    async def _serve(self, purse: Purse) -> None:
        """Claims money for those who wait, round by round, until nobody waits. One task per purse.

        Those who wait stop waiting after a while, so this ends too.
        """
        try:
            while True:
                purse.waiting = [waiter for waiter in purse.waiting if not waiter.future.done()]
                extension = await self._extend(purse)
                if _hand_out(purse, extension, asyncio.get_running_loop().time()):
                    break
                if not extension.granted_nusd:
                    await self._wait_for_others(purse)
        except Exception as failure:
            _refuse_all(purse, failure)
        finally:
            purse.looks = 0
            purse.rounds = None

    async def _wait_for_others(self, purse: Purse) -> None:
        """Lets every worker know that money is wanted, and gives them a moment to give it back."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= purse.recall_again_s:
            purse.recall_again_s = now_s + self._settings.recall_s
            self.recalled(purse.account_id)
            await self._writer.run(lambda connection: record_change(connection, f"{RECALL}/{purse.account_id}"))
        await asyncio.sleep(min(RECALL_LOOK_S_MAX, RECALL_LOOK_S * 2**purse.looks))
        purse.looks += 1

    async def _extend(self, purse: Purse) -> Extension:
        if self._clock.monotonic_s() >= self.alive_until_s:
            await self.beat()
        if purse.is_closed:
            raise PurseClosed
        claim = Claim(
            worker_id=self.worker_id,
            lease_id=purse.lease_id,
            account_id=purse.account_id,
            key_id=purse.key_id,
            free_nusd=purse.free_nusd,
            demands=tuple(waiter.demand for waiter in purse.waiting),
            lease_nusd=self._settings.lease_nusd,
            now_ns=self._clock.now_ns(),
        )
        try:
            extension = await self._writer.run(lambda connection: actions.extend_lease(connection, claim))
        except WorkerLost:
            await self._start_anew(claim.worker_id)
            raise PurseClosed from None
        except DatabaseAway as away:
            if away.is_uncertain:
                # Nobody knows how much the lease holds now. It goes back as a whole; a new one takes its place.
                purse.is_stored = True
                self.close(purse)
            raise
        purse.is_stored = purse.is_stored or extension.granted_nusd > 0
        purse.amount_nusd += extension.granted_nusd
        purse.is_small = extension.is_small
        purse.low_nusd = 0 if extension.is_small else int(extension.granted_nusd * LOW_SHARE)
        return extension


def _return_all(connection: Connection, lease_ids: list[LeaseId], now_ns: int) -> None:
    for lease_id in lease_ids:
        actions.return_lease(connection, lease_id, now_ns=now_ns)


def _hand_out(purse: Purse, extension: Extension, now_s: float) -> bool:
    """Gives those who wait what there is, in their order; True when nobody has to ask again."""
    waiting, purse.waiting = purse.waiting, []
    for waiter in waiting:
        if waiter.future.done():
            continue
        free = purse.free_nusd
        hold = hold_within(waiter.ask, waiter.demand, free)
        if hold is not None and (hold.output_tokens_clamp is None or not extension.left_nusd):
            purse.held_nusd += hold.hold_nusd
            waiter.future.set_result(_clamped(waiter.ask, hold, free + extension.left_nusd))
        elif free + extension.left_nusd < waiter.demand.least_nusd:
            if extension.elsewhere_nusd and now_s < waiter.patient_until_s:
                purse.waiting.append(waiter)
                continue
            refusal = InsufficientBalance(
                needed_nusd=waiter.demand.least_nusd,
                available_nusd=free + extension.left_nusd,
                limit=extension.limit,
            )
            waiter.future.set_exception(refusal)
        else:
            purse.waiting.append(waiter)
    return not purse.waiting


def _clamped(ask: Ask, hold: Hold, within_nusd: int) -> Hold:
    """The hold, with a limit to what all the money there is affords: a stream whose hold grows then ends by the
    provider's count instead of being cut."""
    if ask.output_tokens is not None or hold.output_tokens_clamp is not None:
        return hold
    if most_nusd(ask, None) <= within_nusd:
        return hold
    return Hold(hold.hold_nusd, affordable_tokens(ask, within_nusd))


def _refuse_all(purse: Purse, failure: Exception) -> None:
    waiting, purse.waiting = purse.waiting, []
    for waiter in waiting:
        if waiter.future.done():
            continue
        if isinstance(failure, PurseClosed):
            waiter.future.set_exception(PurseClosed())
        else:
            waiter.future.set_exception(StoreUnavailable())

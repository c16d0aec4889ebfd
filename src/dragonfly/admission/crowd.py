"""The limits of keys while several workers serve: parts of each limit, taken from the database ahead.

Alone, a worker counts by itself and this stays out of the way. All methods belong to the event loop's thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection, Engine

from dragonfly.admission.errors import RateLimited, StoreUnavailable
from dragonfly.admission.grants import KeyPolicy
from dragonfly.admission.leases import Leases
from dragonfly.admission.limits import CONCURRENCY_RETRY_S, NO_LIMIT, KeyMeter, RateState
from dragonfly.admission.sharing import (
    Got,
    ShareLost,
    Standing,
    Want,
    correct_tokens,
    count_workers,
    forget_places,
    return_places,
    shared_standings,
    take_share,
    tell_standings,
)
from dragonfly.core.clock import Clock
from dragonfly.core.ids import KeyId
from dragonfly.infra.database import DatabaseAway, DatabaseThreads, write

T = TypeVar("T")

PART = 20
"""All workers together take at most one part in so many ahead: 5 % of a limit."""
CLOSED_S = 0.2
"""After a visit that gave too little, the database is left alone for this long."""
IDLE_S = 0.5
"""Places that were not needed for this long go back."""


class Share:
    """This worker's part of one key's limits."""

    __slots__ = (
        "closed_until_s",
        "debt",
        "left",
        "lock",
        "places",
        "requests",
        "token_left",
        "tokens",
        "used_at_s",
        "wait_s",
        "waiting",
        "worker_id",
    )

    def __init__(self) -> None:
        self.requests = self.tokens = self.places = 0
        self.left = self.token_left = 0
        """What the bucket had after the last visit."""
        self.debt = 0
        """Tokens that requests used beyond what was taken for them, to be told at the next visit."""
        self.closed_until_s = float("-inf")
        self.wait_s = 0.0
        """What Retry-After says while it is closed."""
        self.waiting = 0
        self.used_at_s = 0.0
        self.worker_id = ""
        self.lock = asyncio.Lock()

    def enter(self, key: KeyPolicy, open_requests: int, tokens: int) -> bool:
        """Takes a place, a request and `tokens` out of the part; False, and nothing taken, when it is too small."""
        if key.concurrency_max and open_requests >= self.places:
            return False
        if key.requests_per_minute and self.requests < 1:
            return False
        if tokens > self.tokens:
            return False
        if key.requests_per_minute:
            self.requests -= 1
        self.tokens -= tokens
        return True


class Spare(NamedTuple):
    """Places to give back."""

    key_id: KeyId
    share: Share
    places: int


class Crowd:
    """Whether there are others, and every share of this worker."""

    def __init__(self, engine: Engine, threads: DatabaseThreads, leases: Leases, clock: Clock) -> None:
        self._engine = engine
        self._threads = threads
        self._leases = leases
        self._clock = clock
        self._shares: dict[KeyId, Share] = {}
        self._untold: list[Standing] = []
        self._told = asyncio.Event()
        self._told.set()
        self._noticed_at_s = 0.0
        self.workers = 1
        """Alive, this one included."""
        self.is_shared = False
        """Limits are shared with others; set by `join` and `be_alone`, a moment after there are some, or none."""
        self.recount_due = False

    async def _run(self, work: Callable[[Connection], T]) -> T:
        """In a transaction of its own: together with changes of leases, two workers could wait for each other."""

        def run() -> T:
            with write(self._engine) as connection:
                return work(connection)

        return await self._threads.run(run)

    def share(self, key_id: KeyId) -> Share | None:
        """The key's share; None while this worker is alone."""
        if not self.is_shared:
            return None
        share = self._shares.get(key_id)
        if share is None:
            share = self._shares[key_id] = Share()
        return share

    def news(self, worker_id: str) -> None:
        """The feed says that there is one more."""
        self.recount_due = True

    def arrive(self, wait_s: float) -> None:
        """This worker is new: within `wait_s` the others notice it, and until then it takes no part of anything,
        because one that thinks it is alone counts by itself."""
        self._noticed_at_s = asyncio.get_running_loop().time() + wait_s

    async def recount(self) -> bool:
        """Looks how many workers there are; True when `join` or `be_alone` is due. DatabaseAway."""
        self.recount_due = False
        self.workers = max(1, await self._run(count_workers))
        return (self.workers >= 2) is not self.is_shared or bool(self._untold)

    def join(self, standings: Sequence[Standing]) -> None:
        """There are others. Nothing is granted until they know what this worker has counted (`tell`)."""
        self.is_shared = True
        self._told.clear()
        self._untold = list(standings)
        for one in standings:
            share = self.share(one.key_id)
            assert share is not None, "it is shared now"
            share.places, share.worker_id = one.places, self._leases.worker_id

    async def tell(self) -> None:
        """Tells the others what this worker counted while it was alone. DatabaseAway: call it again."""
        standings, worker_id, now_ns = self._untold, self._leases.worker_id, self._clock.now_ns()
        try:
            await self._run(lambda connection: tell_standings(connection, worker_id, standings, now_ns=now_ns))
        except (DatabaseAway, ShareLost):
            self.recount_due = True
            return
        self._untold = []
        self._told.set()

    async def standings(self) -> list[Standing]:
        """Where the keys that are in use here stand with all workers. DatabaseAway."""
        key_ids, now_ns = sorted(self._shares), self._clock.now_ns()
        return await self._run(lambda connection: shared_standings(connection, key_ids, now_ns=now_ns))

    async def be_alone(self) -> None:
        """There are no others any more."""
        self.is_shared = False
        self._shares.clear()
        self._untold = []
        self._told.set()
        worker_id = self._leases.worker_id
        with suppress(DatabaseAway):  # they go with the worker, or when it shares again
            await self._run(lambda connection: forget_places(connection, worker_id))

    def forget_worker(self) -> None:
        """This worker serves under a new name: what it shared under the old one belongs to others."""
        for share in self._shares.values():
            share.places = 0

    async def fill(self, share: Share, key: KeyPolicy, meter: KeyMeter, tokens: int) -> None:
        """Makes the share large enough for one more request, which it then takes. RateLimited, StoreUnavailable."""
        share.waiting += 1
        try:
            await asyncio.sleep(max(0.0, self._noticed_at_s - asyncio.get_running_loop().time()))
            await self._told.wait()
            async with share.lock:
                if share.enter(key, meter.open, tokens):
                    return
                if self._clock.monotonic_s() < share.closed_until_s:
                    raise _limited(share, key, meter.open)
                got = await self._ask(share, key, meter.open, tokens)
                now_s = share.used_at_s = self._clock.monotonic_s()
                if not share.enter(key, meter.open, tokens):
                    share.closed_until_s = now_s + CLOSED_S
                    share.wait_s = max(CLOSED_S, got.requests_wait_s, got.tokens_wait_s)
                    raise _limited(share, key, meter.open)
        finally:
            share.waiting -= 1

    async def _ask(self, share: Share, key: KeyPolicy, open_requests: int, tokens: int) -> Got:
        if share.worker_id != self._leases.worker_id:
            share.worker_id, share.places = self._leases.worker_id, 0
        want = Want(
            key.key_id,
            share.worker_id,
            self._clock.now_ns(),
            key.requests_per_minute,
            0 if share.requests >= 1 else max(self._part(key.requests_per_minute), share.waiting),
            key.tokens_per_minute,
            max(0, max(tokens, self._part(key.tokens_per_minute)) - share.tokens) if tokens else 0,
            key.concurrency_max,
            self._places_wanted(share, key, open_requests),
        )
        debt, share.debt = share.debt, 0
        try:
            if debt:
                limit, now_ns = key.tokens_per_minute, want.now_ns
                await self._run(
                    lambda connection: correct_tokens(connection, key.key_id, limit=limit, tokens=debt, now_ns=now_ns)
                )
            got = await self._run(lambda connection: take_share(connection, want))
        except ShareLost:
            raise StoreUnavailable from None
        share.requests += got.requests
        share.tokens += got.tokens
        share.left, share.token_left, share.places = got.requests_left, got.tokens_left, got.places
        return got

    def _places_wanted(self, share: Share, key: KeyPolicy, open_requests: int) -> int:
        if not key.concurrency_max or open_requests < share.places:
            return 0
        return max(self._part(key.concurrency_max), open_requests - share.places + share.waiting)

    def correct(self, share: Share, key: KeyPolicy, tokens: int) -> None:
        """A request used so many more tokens than were taken for it, or fewer (below zero)."""
        share.tokens -= tokens
        within = max(0, min(share.tokens, self._part(key.tokens_per_minute)))
        share.debt += within - share.tokens
        share.tokens = within

    def _part(self, limit: int) -> int:
        return max(1, limit // (PART * self.workers)) if limit else 0

    async def return_idle(self, open_of: "dict[KeyId, int]") -> None:
        """Gives back places that nobody uses. DatabaseAway."""
        now_s = self._clock.monotonic_s()
        spare = []
        for key_id, share in self._shares.items():
            places = share.places - open_of.get(key_id, 0)
            if places > 0 and not share.waiting and now_s - share.used_at_s >= IDLE_S:
                share.places -= places
                spare.append(Spare(key_id, share, places))
        for key_id in [one for one, share in self._shares.items() if not share.places and one not in open_of]:
            del self._shares[key_id]
        if not spare:
            return
        worker_id = self._leases.worker_id
        rows = [(one.key_id, one.places) for one in spare]
        try:
            await self._run(lambda connection: return_places(connection, worker_id, rows))
        except DatabaseAway:
            for one in spare:
                one.share.places += one.places
            raise


def shared_state(share: Share, limit: int, *, is_tokens: bool) -> RateState:
    """What is left of a limit per minute, as far as this worker knows."""
    if not limit:
        return NO_LIMIT
    left = share.tokens + share.token_left if is_tokens else share.requests + share.left
    left = max(0, min(limit, left))
    return RateState(limit, left, (limit - left) * 60.0 / limit)


def _limited(share: Share, key: KeyPolicy, open_requests: int) -> RateLimited:
    if key.concurrency_max and open_requests >= share.places:
        return RateLimited(what="concurrency", limit=key.concurrency_max, retry_after_s=CONCURRENCY_RETRY_S)
    if key.requests_per_minute and share.requests < 1:
        return RateLimited(what="requests", limit=key.requests_per_minute, retry_after_s=share.wait_s)
    return RateLimited(what="tokens", limit=key.tokens_per_minute, retry_after_s=share.wait_s)

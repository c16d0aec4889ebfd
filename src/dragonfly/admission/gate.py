"""The gate: what the data plane asks before it spends money, and tells after.

`key_cached`, `offer`, `admit`, `charge` and `settle` are plain calls that touch memory only. What needs the
database (an unknown key, a purse that is short) goes through `key` and `admit_waiting`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from sqlalchemy import Engine

from dragonfly.admission.actions import WORKERS, store_estimates
from dragonfly.admission.batches import Settled
from dragonfly.admission.crowd import Crowd, shared_state
from dragonfly.admission.errors import (
    AccountFrozen,
    AccountUnverified,
    KeyPaused,
    ModelNotAllowed,
    ModelNotFound,
    StoreUnavailable,
)
from dragonfly.admission.estimates import Estimates
from dragonfly.admission.grants import Ask, Candidate, Charge, Grant, KeyPolicy, Offer, Settlement
from dragonfly.admission.holds import (
    PURSES_TRIED_MAX,
    Held,
    KeyState,
    covered_by_first,
    extend_from_wallet,
    follow_crowd,
    output_limit,
)
from dragonfly.admission.keycache import KeyCache
from dragonfly.admission.leases import RECALL, Leases, PurseClosed
from dragonfly.admission.limits import KeyMeter, RateState, reserved_tokens
from dragonfly.admission.offers import offer_of
from dragonfly.admission.queries import stored_estimates
from dragonfly.admission.rules import STOP, charge, demand, first_tokens, most_nusd, next_step
from dragonfly.admission.writer import MoneyWriter
from dragonfly.catalog.catalog import Catalog, Listing
from dragonfly.core.clock import Clock
from dragonfly.core.ids import AccountId, IdSource, KeyId, RequestId
from dragonfly.core.money import NanoUsd
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import DatabaseAway, DatabaseThreads
from dragonfly.infra.logging import EventLog
from dragonfly.keys.rules import Peppers
from dragonfly.settings import AdmissionSettings

ADMIT_WAIT_S_MAX = 10.0
NOTICED_TURNS = 2
"""Turns of `refresh` after which the others know of a new worker."""
STOP_WAIT_S_MAX = 15.0
"""How long `stop` waits for a database that is away. What is unsettled then is the operator's loss."""


class Gate:
    """One per process. Start it inside the event loop that will use it."""

    def __init__(
        self,
        settings: AdmissionSettings,
        engine: Engine,
        *,
        catalog: Catalog,
        peppers: Peppers,
        clock: Clock,
        ids: IdSource,
        log: EventLog,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._clock = clock
        self._threads = DatabaseThreads()
        self._keys = KeyCache(settings, engine, self._threads, peppers, clock)
        self._writer = MoneyWriter(engine, clock, log, batch_max=settings.settle_batch_max)
        self._leases = Leases(settings, self._writer, clock=clock, ids=ids)
        self._keys.listen(RECALL, lambda account_id: self._leases.recalled(AccountId(account_id)))
        self._crowd = Crowd(engine, self._threads, self._leases, clock)
        self._keys.listen(WORKERS, self._crowd.news)
        self._states: dict[KeyId, KeyState] = {}
        self._offers: dict[str, tuple[Listing, Offer]] = {}
        self._paused: frozenset[str] = frozenset()
        self._is_open = False
        self.estimates = Estimates()
        self.grants_open = 0
        """Granted and not settled yet."""

    def count_with(self, counted: Callable[[Sequence[Settled]], None]) -> None:
        """Before the start: `counted` is told of every batch that is settled, in the writer's thread."""
        self._writer.counted = counted

    @property
    def unsettled(self) -> int:
        """Settlements that are not durable yet."""
        return self._writer.unsettled

    @property
    def held_nusd(self) -> int:
        """What open requests may still cost, of all accounts."""
        return self._leases.held_nusd

    @property
    def refused_settlements(self) -> int:
        """Settlements that the database refused for themselves: a bug of ours, which charged nobody."""
        return self._writer.refused

    @property
    def worker_id(self) -> str:
        """Under which the leases of this process stand in the database."""
        return self._leases.worker_id

    def key_cached(self, secret: bytes) -> KeyPolicy | None:
        """The policy of a key that is known and fresh; None says nothing about the key: ask `key`."""
        return self._keys.cached(secret)

    async def key(self, secret: bytes) -> KeyPolicy:
        """The policy of a key. InvalidKey, StoreUnavailable; a malformed key costs no query."""
        return await self._keys.find(secret)

    def offer(self, model: str) -> Offer:
        """What is sold under a public model id at this moment. ModelNotFound, ModelUnpriced, ModelOutOfService."""
        listing = self._catalog.listing(model, self._clock.now_ns())
        if listing is None:
            raise ModelNotFound
        known = self._offers.get(model)
        if known is not None and known[0] is listing:
            return known[1]
        offer = offer_of(listing, self._paused)
        self._offers[model] = (listing, offer)
        return offer

    def on_stop(self, stop: Callable[[AccountId, RequestId], bool]) -> None:
        """Whom to ask when another worker was told that an account wants an answer to end."""

        def heard(rest: str) -> None:
            account_id, _, request_id = rest.partition("/")
            stop(AccountId(account_id), RequestId(request_id))

        self._keys.listen(STOP, heard)

    def pause_channels(self, paused: frozenset[str]) -> None:
        """From now on these channels, and no others, are out of service."""
        if paused != self._paused:
            self._paused = paused
            self._offers.clear()

    def admit(self, ask: Ask) -> Grant | None:
        """A grant from memory; None: the database is needed, ask `admit_waiting`.

        AccountUnverified, ModelNotAllowed, RateLimited, StoreUnavailable.
        """
        key = ask.key
        self._check(ask)
        state = self._states.get(key.key_id)
        if state is None or state.policy is not key:
            return None
        purse = state.purse
        tokens = first_tokens(ask)
        hold = most_nusd(ask, tokens)
        free = purse.amount_nusd - purse.held_nusd
        now_s = self._clock.monotonic_s()
        if hold > free or purse.is_closed or purse.waiting or now_s >= self._leases.alive_until_s:
            return None
        tokens_reserved = reserved_tokens(ask) if key.tokens_per_minute else 0
        share = state.share
        if share is None:
            state.meter.enter(key, now_s, tokens_reserved)
        elif share.enter(key, state.meter.open, tokens_reserved):
            state.meter.open += 1
        else:
            return None
        purse.held_nusd += hold
        purse.used_at_s = now_s
        if free - hold < purse.low_nusd:
            self._leases.extend_ahead(purse)
        self.grants_open += 1
        covered = None if tokens == ask.output_tokens else tokens
        return Grant(ask, NanoUsd(hold), None, covered, tokens_reserved, lease=(state, purse))

    async def admit_waiting(self, ask: Ask) -> Grant:
        """A grant, after extending the worker's lease as needed. InsufficientBalance and what `admit` raises."""
        self._check(ask)
        state = self._state(ask.key)
        tokens_reserved = reserved_tokens(ask) if ask.key.tokens_per_minute else 0
        await self._enter(state, ask.key, tokens_reserved)
        try:
            async with asyncio.timeout(ADMIT_WAIT_S_MAX):
                grant = await self._take(state, ask)
                grant.tokens_reserved = tokens_reserved
                return grant
        except BaseException as failure:
            state.meter.leave()
            self._correct(state, ask.key, -tokens_reserved)
            if isinstance(failure, TimeoutError | DatabaseAway):
                raise StoreUnavailable from None
            raise

    async def _enter(self, state: KeyState, key: KeyPolicy, tokens: int) -> None:
        share = state.share
        if share is None:
            state.meter.enter(key, self._clock.monotonic_s(), tokens)
            return
        try:
            async with asyncio.timeout(ADMIT_WAIT_S_MAX):
                await self._crowd.fill(share, key, state.meter, tokens)
        except (TimeoutError, DatabaseAway):
            raise StoreUnavailable from None
        state.meter.open += 1

    def _correct(self, state: KeyState, key: KeyPolicy, tokens: int) -> None:
        if not key.tokens_per_minute:
            return
        if state.share is None:
            state.meter.correct(key, tokens, self._clock.monotonic_s())
        else:
            self._crowd.correct(state.share, key, tokens)

    def extend(self, grant: Grant, tokens: int) -> bool:
        """Lets the hold of a running stream cover `tokens` of output per choice, from memory. False: the database
        is needed, ask `extend_waiting`."""
        purse = cast(Held, grant.lease)[1]
        step = next_step(grant.ask, output_limit(grant), tokens)
        more = step.hold_nusd - grant.hold_nusd
        now_s = self._clock.monotonic_s()
        if more > purse.free_nusd or purse.is_closed or purse.waiting or now_s >= self._leases.alive_until_s:
            return False
        purse.held_nusd += more
        purse.used_at_s = now_s
        if purse.free_nusd < purse.low_nusd:
            self._leases.extend_ahead(purse)
        grant.hold_nusd, grant.covered_tokens = NanoUsd(step.hold_nusd), step.covered_tokens
        return True

    async def extend_waiting(self, grant: Grant, tokens: int) -> None:
        """The same with more money from the wallet. InsufficientBalance, StoreUnavailable."""
        try:
            async with asyncio.timeout(ADMIT_WAIT_S_MAX):
                await extend_from_wallet(self._leases, grant, tokens, self._clock)
        except (TimeoutError, DatabaseAway):
            raise StoreUnavailable from None

    def charge(self, grant: Grant, candidate: Candidate, usage: TokenUsage, outcome: Outcome) -> Charge:
        """What the request costs: pure, by the closed table of outcomes, never above the hold."""
        return charge(grant.hold_nusd, candidate, usage, outcome)

    def answered(self, candidate: Candidate, upstream_model: str, at_ns: int) -> Candidate | None:
        """The candidate with the price of the model that the provider says has answered, at the instant of the
        hold; None for a model that the catalogue does not know: the held price stays, and somebody should look."""
        price, is_known = self._catalog.answered(candidate.channel, upstream_model, at_ns)
        if price is None:
            return candidate if is_known else None
        return replace(candidate, price=price)

    def settle(self, grant: Grant, settlement: Settlement, on_durable: Callable[[], None] | None = None) -> None:
        """Ends a grant, once. `on_durable` runs on the event loop when the charge is committed, however long the
        database takes to come back."""
        assert not grant.settled, "a grant is settled once"
        grant.settled = True
        state, purse = cast(Held, grant.lease)
        purse.release(grant.hold_nusd, settlement.charge.cost_nusd)
        state.meter.leave()
        state.spent_nusd += settlement.charge.cost_nusd
        if grant.tokens_reserved:
            usage = settlement.usage
            used = usage.prompt_tokens + usage.completion_tokens
            self._correct(state, grant.ask.key, used - grant.tokens_reserved)
        self.grants_open -= 1
        self._writer.settle(Settled(grant, settlement, purse.lease_id, purse.key_id is not None, on_durable))

    def rate_state(self, key: KeyPolicy) -> RateState:
        """Where the key stands in its requests per minute."""
        state = self._states.get(key.key_id)
        if state is not None and state.share is not None:
            return shared_state(state.share, key.requests_per_minute, is_tokens=False)
        meter = KeyMeter() if state is None else state.meter
        return meter.state(key, self._clock.monotonic_s())

    def token_state(self, key: KeyPolicy) -> RateState:
        """Where the key stands in its tokens per minute."""
        state = self._states.get(key.key_id)
        if state is not None and state.share is not None:
            return shared_state(state.share, key.tokens_per_minute, is_tokens=True)
        meter = KeyMeter() if state is None else state.meter
        return meter.token_state(key, self._clock.monotonic_s())

    def take_spent(self) -> dict[KeyId, int]:
        """What each key has spent here since the last call, in nano-USD; for the breaker."""
        spent = {key_id: state.spent_nusd for key_id, state in self._states.items() if state.spent_nusd}
        for key_id in spent:
            self._states[key_id].spent_nusd = 0
        return spent

    async def start(self) -> None:
        """Registers this worker. DatabaseAway when that is not possible."""
        self._writer.start(asyncio.get_running_loop())
        await self._leases.register()
        self._crowd.arrive(NOTICED_TURNS * self._settings.refresh_s)
        await self._recount()
        await self._keys.refresh()
        self.estimates.load(await self._writer.run(stored_estimates))
        self._is_open = True

    async def stop(self) -> None:
        """Admits nothing more, writes every settlement, returns the leases. Call it when all grants are settled."""
        self._is_open = False
        try:
            async with asyncio.timeout(STOP_WAIT_S_MAX):
                await self.keep_estimates()
                await self._leases.return_all()
        except (DatabaseAway, TimeoutError):
            pass  # other workers, or the next start, give the leases back when this worker's heart stands still
        await self._writer.stop(wait_s=STOP_WAIT_S_MAX)
        self._threads.close()

    async def keep_estimates(self) -> None:
        """Stores what was learnt about bytes per token. DatabaseAway."""
        learnt, now_ns = self.estimates.take_new(), self._clock.now_ns()
        if learnt:
            await self._writer.run(lambda connection: store_estimates(connection, learnt, now_ns=now_ns))

    async def beat(self) -> None:
        """A sign of life, every `heartbeat_s`. DatabaseAway."""
        worker_id = self._leases.worker_id
        await self._leases.beat()
        if self._leases.worker_id != worker_id:
            self._crowd.forget_worker()

    async def sweep(self) -> int:
        """Gives back the leases of dead workers; how many there were. DatabaseAway."""
        swept = await self._leases.sweep()
        await self._recount()
        return swept

    async def return_idle(self) -> None:
        """Gives back unused leases and forgets keys that are not in use. DatabaseAway."""
        now_s = self._clock.monotonic_s()
        for key_id in [key_id for key_id, state in self._states.items() if state.is_idle(now_s)]:
            del self._states[key_id]
        await self._crowd.return_idle({key_id: state.meter.open for key_id, state in self._states.items()})
        await self._leases.return_idle()

    async def refresh(self) -> None:
        """Asks what changed, every `refresh_s`. DatabaseAway."""
        await self._keys.refresh()
        if self._crowd.recount_due:
            await self._recount()

    async def _recount(self) -> None:
        await follow_crowd(self._crowd, self._states, self._clock)

    def _check(self, ask: Ask) -> None:
        key = ask.key
        if not key.verified:
            raise AccountFrozen if key.frozen else KeyPaused if key.paused else AccountUnverified
        models = key.models
        if models is not None:
            for offer in ask.offers:
                if offer.model not in models:
                    raise ModelNotAllowed
        if not self._is_open or self._writer.unsettled >= self._settings.settle_queue_max:
            raise StoreUnavailable

    def _state(self, key: KeyPolicy) -> KeyState:
        """The key's state, with the purse that its present policy pays from."""
        state = self._states.get(key.key_id)
        if state is None:
            share = self._crowd.share(key.key_id)
            state = self._states[key.key_id] = KeyState(key, self._leases.purse(key), share)
        elif state.policy is not key:
            if state.purse.key_id is not None or state.policy.account_spend != key.account_spend:
                self._leases.close(state.purse)  # its limit may have changed
            state.policy = key
            state.purse = self._leases.purse(key)
        elif state.purse.is_closed:
            state.purse = self._leases.purse(key)
        return state

    async def _take(self, state: KeyState, ask: Ask) -> Grant:
        wanted = demand(ask)
        for _ in range(PURSES_TRIED_MAX):
            purse = self._leases.purse(ask.key)
            state.purse = purse
            try:
                hold = await self._leases.take(purse, ask, wanted)
            except PurseClosed:
                continue
            purse.used_at_s = self._clock.monotonic_s()
            self.grants_open += 1
            grant = Grant(ask, NanoUsd(hold.hold_nusd), hold.output_tokens_clamp, lease=(state, purse))
            grant.covered_tokens = covered_by_first(grant, first_tokens(ask))
            return grant
        raise StoreUnavailable

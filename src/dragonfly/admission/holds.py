"""What a grant holds: a place among its key's requests and money in a purse; and how that grows."""

from collections.abc import Mapping
from typing import cast

from dragonfly.admission.crowd import Crowd, Share
from dragonfly.admission.errors import StoreUnavailable
from dragonfly.admission.grants import Grant, KeyPolicy
from dragonfly.admission.leases import Leases, Purse, PurseClosed
from dragonfly.admission.limits import KeyMeter
from dragonfly.admission.rules import Demand, next_step
from dragonfly.admission.sharing import Standing
from dragonfly.core.clock import Clock
from dragonfly.core.ids import KeyId
from dragonfly.core.money import NanoUsd

PURSES_TRIED_MAX = 3


class KeyState:
    """What this process knows of a key in use."""

    __slots__ = ("meter", "policy", "purse", "share", "spent_nusd")

    def __init__(self, policy: KeyPolicy, purse: Purse, share: Share | None) -> None:
        self.policy = policy
        self.purse = purse
        self.share = share
        self.meter = KeyMeter()
        self.spent_nusd = 0
        """Since the breaker looked."""

    def is_idle(self, now_s: float) -> bool:
        """Nothing would be lost by forgetting it."""
        return self.purse.is_closed and self.meter.is_idle(now_s)


Held = tuple[KeyState, Purse]
"""What `Grant.lease` is."""


def output_limit(grant: Grant) -> int | None:
    """Most output per choice that the provider was told."""
    return grant.ask.output_tokens if grant.output_tokens_clamp is None else grant.output_tokens_clamp


def covered_by_first(grant: Grant, tokens: int | None) -> int | None:
    """What a first hold for `tokens` of output covers; None for everything."""
    limit = output_limit(grant)
    return None if tokens == grant.ask.output_tokens or (limit is not None and limit <= (tokens or 0)) else tokens


async def follow_crowd(crowd: Crowd, states: Mapping[KeyId, KeyState], clock: Clock) -> None:
    """Looks how many workers there are. When being alone begins or ends, what was counted before goes on counting, so
    that nobody gets a limit twice. DatabaseAway."""
    if not await crowd.recount():
        return
    if crowd.workers < 2:
        standings = {one.key_id: one for one in await crowd.standings()}
        now_s = clock.monotonic_s()
        for key_id, state in states.items():
            if state.share is not None and (one := standings.get(key_id)) is not None:
                state.meter.go_on_from(one.requests_until_full_s, one.tokens_until_full_s, now_s)
            state.share = None
        await crowd.be_alone()
        return
    if not crowd.is_shared:
        now_s = clock.monotonic_s()
        busy = {key_id: state.meter for key_id, state in states.items() if not state.meter.is_idle(now_s)}
        crowd.join([Standing(key_id, *meter.until_full(now_s), meter.open) for key_id, meter in busy.items()])
        for key_id, state in states.items():
            state.share = crowd.share(key_id)
    await crowd.tell()


async def extend_from_wallet(leases: Leases, grant: Grant, tokens: int, clock: Clock) -> None:
    """Lets the hold of a running stream cover `tokens` of output per choice, with more money from the wallet.

    The purse may have been closed meanwhile; then the whole hold moves to the new one. InsufficientBalance,
    StoreUnavailable, DatabaseAway.
    """
    step = next_step(grant.ask, output_limit(grant), tokens)
    for _ in range(PURSES_TRIED_MAX):
        state, purse = cast(Held, grant.lease)
        source = leases.purse(grant.ask.key)
        more = step.hold_nusd - (grant.hold_nusd if source is purse else 0)
        try:
            await leases.take(source, grant.ask, Demand(more, more))
        except PurseClosed:
            continue
        if grant.settled:
            source.release(more, 0)
            return
        if source is not purse:
            purse.release(grant.hold_nusd, 0)
            grant.lease = (state, source)
        source.used_at_s = clock.monotonic_s()
        grant.hold_nusd, grant.covered_tokens = NanoUsd(step.hold_nusd), step.covered_tokens
        return
    raise StoreUnavailable

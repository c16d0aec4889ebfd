"""A gate without a database, for the tests of single hazards of the data plane.

It grants whatever its `balance_nusd` covers, charges by the closed table of outcomes, and makes a settlement
durable when the test says so (at once, unless `holding`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from dragonfly.admission.errors import InsufficientBalance, InvalidKey, ModelNotFound
from dragonfly.admission.estimates import Estimates
from dragonfly.admission.grants import Ask, Candidate, Charge, Grant, KeyPolicy, Offer, Settlement
from dragonfly.core.ids import AccountId, KeyId
from dragonfly.core.money import ZERO, NanoUsd
from dragonfly.core.outcomes import CHARGING, Charging, Outcome
from dragonfly.core.tokens import TokenUsage

KEY = b"sk-df-" + b"0" * 59
PROMPT_NUSD = 150
COMPLETION_NUSD = 600
"""Prices in nano-USD per token."""


class Rate(NamedTuple):
    limit: int
    remaining: int
    reset_s: float


POLICY = KeyPolicy(
    key_id=KeyId("0000000000"),
    account_id=AccountId("acc-alice"),
    verified=True,
    requests_per_minute=600,
    concurrency_max=0,
    models=None,
    expires_at_ns=None,
)


@dataclass
class FakePurse:
    """Implements gateway.purse.Purse."""

    offers: dict[str, Offer]
    policy: KeyPolicy = POLICY
    holding: bool = False
    """Keep settlements undurable until `release`."""
    hold_nusd: int = 10_000_000_000
    clamp: int | None = None
    slow: bool = False
    """Answer key and admission only through the waiting calls."""
    refusal: Exception | None = None
    settlements: list[Settlement] = field(default_factory=list)
    granted: int = 0
    extensions: list[int] = field(default_factory=list)
    """Output per choice that running streams asked for."""
    money_for: int = 2**62
    """Output per choice that there is money for."""
    estimates: Estimates = field(default_factory=Estimates)
    covered: int | None = None
    """Output per choice that a first hold covers."""
    covers_nusd: int = 0
    """What a hold grows by for each token of output."""
    _held: list[Callable[[], None]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def key_cached(self, secret: bytes) -> KeyPolicy | None:
        return self.policy if secret == KEY and not self.slow else None

    async def key(self, secret: bytes) -> KeyPolicy:
        await asyncio.sleep(0)
        if secret != KEY:
            raise InvalidKey
        return self.policy

    def offer(self, model: str) -> Offer:
        if model not in self.offers:
            raise ModelNotFound
        return self.offers[model]

    def admit(self, ask: Ask) -> Grant | None:
        return None if self.slow else self._grant(ask)

    async def admit_waiting(self, ask: Ask) -> Grant:
        await asyncio.sleep(0)
        return self._grant(ask)

    def _grant(self, ask: Ask) -> Grant:
        if self.refusal is not None:
            raise self.refusal
        self.granted += 1
        return Grant(
            ask=ask, hold_nusd=NanoUsd(self.hold_nusd), output_tokens_clamp=self.clamp, covered_tokens=self.covered
        )

    def extend(self, grant: Grant, tokens: int) -> bool:
        if self.slow:
            return False
        self.extensions.append(tokens)
        if tokens > self.money_for:
            return False
        self._grow(grant, tokens)
        return True

    def _grow(self, grant: Grant, tokens: int) -> None:
        grant.hold_nusd = NanoUsd(grant.hold_nusd + tokens * self.covers_nusd)
        grant.covered_tokens = tokens

    async def extend_waiting(self, grant: Grant, tokens: int) -> None:
        await asyncio.sleep(0)
        self.extensions.append(tokens)
        if tokens > self.money_for:
            raise InsufficientBalance(needed_nusd=2, available_nusd=1, limit="account")
        self._grow(grant, tokens)

    def charge(self, grant: Grant, candidate: Candidate, usage: TokenUsage, outcome: Outcome) -> Charge:
        prompt = usage.prompt_tokens * PROMPT_NUSD
        completion = usage.completion_tokens * COMPLETION_NUSD
        upstream = NanoUsd(prompt + completion)
        if CHARGING[outcome] is Charging.NOTHING:
            return Charge(ZERO, upstream, upstream, ZERO, ZERO)
        cost = NanoUsd(min(prompt + completion, grant.hold_nusd))
        return Charge(cost, upstream, NanoUsd(upstream - cost), NanoUsd(prompt), NanoUsd(completion))

    def answered(self, candidate: Candidate, upstream_model: str, at_ns: int) -> Candidate | None:
        return candidate

    def settle(self, grant: Grant, settlement: Settlement, on_durable: Callable[[], None] | None = None) -> None:
        assert not grant.settled, "a grant is settled once"
        grant.settled = True
        self.settlements.append(settlement)
        self._changed.set()
        if on_durable is None:
            return
        if self.holding:
            self._held.append(on_durable)
        else:
            asyncio.get_running_loop().call_soon(on_durable)

    def release(self) -> None:
        """Make durable what is held."""
        held, self._held = self._held, []
        for on_durable in held:
            on_durable()

    def token_state(self, key: KeyPolicy) -> Rate:
        return Rate(key.tokens_per_minute, key.tokens_per_minute - 7, 0.25)

    def rate_state(self, key: KeyPolicy) -> Rate:
        return Rate(key.requests_per_minute, key.requests_per_minute - 1, 0.1)

    async def settled(self, count: int = 1) -> Settlement:
        """Waits until `count` settlements have come in all; returns the last of them."""
        async with asyncio.timeout(60):
            while len(self.settlements) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.settlements[count - 1]

"""Dragonfly with one policy switched off, to see what it costs: `python -m bench.variants VARIANT FOLDER`.

Only for measuring: no setting of the product switches any of these off. The folder holds dragonfly.toml and the
database, made by bench.comparators.dragonfly.
"""

import asyncio
import enum
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from dragonfly.admission.grants import Ask, Candidate, Charge, Grant, KeyPolicy, Offer, Settlement
from dragonfly.app.build import build, open_log
from dragonfly.app.serve import bind, run_on_uvloop, serve
from dragonfly.app.setup import configure, set_up_store
from dragonfly.core.clock import SystemClock
from dragonfly.core.money import NUSD_PER_USD, NanoUsd
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage
from dragonfly.gateway.purse import Purse, RateState
from dragonfly.infra.logging import Level

HOLD_NUSD = NanoUsd(1_000 * NUSD_PER_USD)


class Variant(enum.Enum):
    """What is switched off."""

    ALL_ON = "all_on"
    NO_AUTH = "no_auth"
    """The key is not hashed: every caller is the first one that was known."""
    NO_LIMITS = "no_limits"
    """The key has neither a rate nor a concurrency limit (its own settings; no code is replaced)."""
    NO_SETTLE = "no_settle"
    """No hold and no settlement: nothing is written, answers end at once."""
    NOTHING = "nothing"
    """Neither authentication nor hold nor settlement; the charge is still computed."""


class SwitchedPurse:
    """The gate with parts of it left out."""

    def __init__(self, gate: Purse, variant: Variant) -> None:
        self._gate = gate
        self._variant = variant
        self._known: KeyPolicy | None = None
        self._is_open = variant in (Variant.NO_AUTH, Variant.NOTHING)
        self._is_free = variant in (Variant.NO_SETTLE, Variant.NOTHING)

    def key_cached(self, secret: bytes) -> KeyPolicy | None:
        if self._is_open and self._known is not None:
            return self._known
        return self._gate.key_cached(secret)

    async def key(self, secret: bytes) -> KeyPolicy:
        self._known = await self._gate.key(secret)
        return self._known

    def offer(self, model: str) -> Offer:
        return self._gate.offer(model)

    def admit(self, ask: Ask) -> Grant | None:
        if self._is_free:
            return Grant(ask, HOLD_NUSD, None)
        return self._gate.admit(ask)

    async def admit_waiting(self, ask: Ask) -> Grant:
        return await self._gate.admit_waiting(ask)

    def charge(self, grant: Grant, candidate: Candidate, usage: TokenUsage, outcome: Outcome) -> Charge:
        return self._gate.charge(grant, candidate, usage, outcome)

    def settle(self, grant: Grant, settlement: Settlement, on_durable: Callable[[], None] | None = None) -> None:
        if not self._is_free:
            self._gate.settle(grant, settlement, on_durable)
            return
        grant.settled = True
        if on_durable is not None:
            asyncio.get_running_loop().call_soon(on_durable)

    def rate_state(self, key: KeyPolicy) -> RateState:
        return self._gate.rate_state(key)


def main(variant: Variant, folder: Path) -> None:
    """Serve until a signal, as `dragonfly serve` does."""
    configured = configure({}, folder / "dragonfly.toml")
    settings = configured.settings
    clock = SystemClock()
    bound = bind(settings.server.host, settings.server.port)
    engine = set_up_store(settings, now_ns=clock.now_ns())
    log = open_log(sys.stderr.buffer, clock, Level.WARNING)

    async def run(listening: socket.socket) -> None:
        served = build(configured, engine, log, clock)
        gateway = served.protocol.gateway  # type: ignore[attr-defined]
        gateway.gate = SwitchedPurse(gateway.gate, variant)
        await serve(served, listening, settings.server, log)

    run_on_uvloop(log, lambda: run(bound))


if __name__ == "__main__":
    main(Variant(sys.argv[1]), Path(sys.argv[2]))

"""A hold that grows with its stream: more money is asked for ahead of need, and the stream ends when there is none.

The relay compares two numbers per read. Only when the first passes the second, this looks closer: a step from the
lease costs no waiting; one from the wallet is a task per step, and the provider is held back when it comes too late.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from dragonfly.admission.errors import InsufficientBalance
from dragonfly.admission.rules import STEP_TOKENS
from dragonfly.core.errors import DragonflyError
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage

if TYPE_CHECKING:
    from dragonfly.gateway.relay import StreamAttempt

AHEAD = 0.5
"""The next step is asked for when this share of what is covered has been used."""
LOOK_SHARE = 0.5
"""Of the bytes that the rest would take at the pace so far: the estimate moves, so it is looked at again earlier."""
LOOK_BYTES_MIN = 1_024
RETRY_S = 1.0
"""While the database is away. The provider is held back when the covered tokens are used up."""
NEVER_BYTES = 2**62


class Growth:
    """Of one stream whose hold does not cover all that it may become."""

    __slots__ = ("_attempt", "_is_asking", "is_holding_back", "look_at_bytes", "refusal")

    def __init__(self, attempt: "StreamAttempt") -> None:
        self._attempt = attempt
        self._is_asking = False
        self.is_holding_back = False
        """The provider is paused until the money is there."""
        self.refusal: InsufficientBalance | None = None
        self.look_at_bytes = LOOK_BYTES_MIN

    def look(self) -> None:
        """More has been relayed than when it was looked at last."""
        attempt = self._attempt
        grant = attempt.exchange.grant
        assert grant is not None
        covered = grant.covered_tokens
        if covered is None:
            self.look_at_bytes = NEVER_BYTES
            return
        used = attempt.tokens_per_choice()
        if used >= covered * AHEAD and not self._is_asking:
            if attempt.exchange.gateway.gate.extend(grant, self._target(used)):
                self.refusal = None
                covered = grant.covered_tokens
            elif self.refusal is None:
                self._is_asking = True
                attempt.exchange.wait(self._ask(self._target(used)))
        if covered is None:
            self.look_at_bytes = NEVER_BYTES
        elif used < covered:
            self._look_later(used, covered)
        elif self.refusal is not None:
            attempt.exchange.wallet_empty(attempt, self.refusal)
        else:
            self._hold_back()

    def _target(self, used: int) -> int:
        grant = self._attempt.exchange.grant
        assert grant is not None
        return max(used, grant.covered_tokens or 0) + STEP_TOKENS

    def _look_later(self, used: int, covered: int) -> None:
        bytes_per_token = self._attempt.relayed_bytes / max(1, used)
        left = int((covered - used) * bytes_per_token * LOOK_SHARE)
        self.look_at_bytes = self._attempt.relayed_bytes + max(LOOK_BYTES_MIN, left)

    def _hold_back(self) -> None:
        self.is_holding_back = True
        self._attempt.pause()

    async def _ask(self, tokens: int) -> None:
        """Until there is an answer: yes, no, or nobody left who waits for it."""
        exchange = self._attempt.exchange
        grant = exchange.grant
        assert grant is not None
        while not grant.settled:
            try:
                await exchange.gateway.gate.extend_waiting(grant, tokens)
            except InsufficientBalance as refusal:
                self.refusal = refusal
            except DragonflyError:
                await asyncio.sleep(RETRY_S)
                continue
            break
        self._is_asking = False
        if grant.settled:
            return
        if self.is_holding_back:
            self.is_holding_back = False
            if not exchange.client_waits:
                self._attempt.resume()
            self.look()


def pay(attempt: "StreamAttempt", usage: TokenUsage, outcome: Outcome) -> None:
    """The answer is whole: finish it, after its hold has grown to cover what the provider counted."""
    exchange = attempt.exchange
    grant = exchange.grant
    assert grant is not None
    gate = exchange.gateway.gate
    charge = gate.charge(grant, attempt.candidate, usage, outcome)
    if charge.absorbed_nusd and charge.cost_nusd and grant.covered_tokens is not None:
        tokens = -(-usage.completion_tokens // grant.ask.choices)
        if tokens > grant.covered_tokens:
            if not gate.extend(grant, tokens):
                exchange.wait(_pay_waiting(attempt, usage, outcome, tokens))
                return
            charge = gate.charge(grant, attempt.candidate, usage, outcome)
    attempt.finish(usage, charge, outcome)


async def _pay_waiting(attempt: "StreamAttempt", usage: TokenUsage, outcome: Outcome, tokens: int) -> None:
    exchange = attempt.exchange
    grant = exchange.grant
    assert grant is not None
    gate = exchange.gateway.gate
    with contextlib.suppress(DragonflyError):  # then the operator carries what the hold does not cover
        await gate.extend_waiting(grant, tokens)
    if not grant.settled:
        attempt.finish(usage, gate.charge(grant, attempt.candidate, usage, outcome), outcome)

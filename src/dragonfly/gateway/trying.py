"""The tries of one request: which channel next, when again, when to give up.

A base of the exchange rather than a part of it: one object less for each request.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from dragonfly.admission.grants import Candidate, Grant, Offer
from dragonfly.core.outcomes import Outcome
from dragonfly.gateway.attempt import Attempt, Failure
from dragonfly.gateway.health import Standing
from dragonfly.gateway.refusals import Refusal
from dragonfly.gateway.wire.chat import ChatRequest, encode_fields, forwarded_fields, set_output_limit
from dragonfly.providers.connection import Connection
from dragonfly.providers.pool import UpstreamUnreachable
from dragonfly.providers.requests import finish_head

if TYPE_CHECKING:
    from dragonfly.gateway.gateway import Gateway
    from dragonfly.gateway.server import FastLane

NEVER = float("inf")
STALE_MAX = 8
"""Kept connections that may turn out to be closed before one counts as an attempt."""


class Trying:
    """Tries channels until one answers. Its exchange sets the fields below and says how it ends."""

    __slots__ = (
        "_again",
        "_blamed",
        "_left_over",
        "_order",
        "_position",
        "_retry",
        "_round",
        "_skipped_wait_s",
        "_stale",
        "attempt",
        "attempts",
        "failure",
        "first_byte_ns",
        "gateway",
        "grant",
        "lane",
        "request",
    )

    gateway: "Gateway"
    lane: "FastLane | None"
    request: ChatRequest | None
    grant: Grant | None
    attempt: Attempt | None
    attempts: int
    failure: Failure | None
    first_byte_ns: int
    _order: list[tuple[Offer, Candidate]]
    _position: int
    _again: list[tuple[Offer, Candidate]]
    _left_over: list[tuple[Offer, Candidate]]
    _round: int
    _retry: asyncio.TimerHandle | None
    _skipped_wait_s: float
    _stale: int
    _blamed: tuple[str, ...]

    # What the exchange provides

    def wait(self, work: Coroutine[object, object, None]) -> None:
        """Run a step that must wait."""
        raise NotImplementedError

    def _end_refused(self, refusal: Refusal, outcome: Outcome, upstream_status: int) -> None:
        raise NotImplementedError

    def _settle(self, outcome: Outcome) -> None:
        raise NotImplementedError

    # Trying

    def _next_attempt(self) -> None:
        """Try the next eligible channel; when none is left, try those again that may recover, or give up."""
        gateway = self.gateway
        self._retry = None
        while self._position < len(self._order) and self.attempts < gateway.settings.upstream.attempts_max:
            offer, candidate = self._order[self._position]
            self._position += 1
            health = gateway.board.of(candidate.channel.id)
            standing = gateway.board.standing(health, candidate.channel.concurrency_max)
            if standing == Standing.FULL or (standing == Standing.COOLING and not self._round):
                self._skipped_wait_s = min(self._skipped_wait_s, gateway.board.wait_s(health))
                if standing == Standing.COOLING and not health.is_refused:
                    self._left_over.append((offer, candidate))
                continue
            self._try(offer, candidate)
            return
        if self._left_over and not self.attempts:
            # Every channel is being left alone for having failed: trying one beats refusing everybody.
            self._order, self._left_over, self._position, self._round = self._left_over, [], 0, 1
            self._next_attempt()
        elif self._again and self.attempts < gateway.settings.upstream.attempts_max:
            self._back_off()
        else:
            self._give_up()

    def _try(self, offer: Offer, candidate: Candidate) -> None:
        self.attempts += 1
        assert self.request is not None
        attempt = self.attempt = self._new_attempt(offer, candidate)
        connection = self.gateway.pool.take(candidate.channel)
        if connection is None:
            self.wait(self._dial(attempt))
        else:
            self._send(attempt, connection)

    def _new_attempt(self, offer: Offer, candidate: Candidate) -> Attempt:
        raise NotImplementedError

    async def _dial(self, attempt: Attempt) -> None:
        try:
            connection = await self.gateway.pool.dial(attempt.candidate.channel)
        except UpstreamUnreachable as error:
            if self.attempt is attempt:
                attempt.unreachable(error.kind)
            return
        if self.attempt is attempt:
            self._send(attempt, connection)
        else:
            connection.abort()

    def _send(self, attempt: Attempt, connection: Connection) -> None:
        assert self.request is not None
        assert self.grant is not None
        channel = attempt.candidate.channel
        prepared = self.gateway.prepared(channel)
        fields = forwarded_fields(self.request, prepared.model)
        if self.grant.output_tokens_clamp is not None:
            set_output_limit(fields, channel.max_tokens_field, self.grant.output_tokens_clamp)
        for name in channel.drop_fields:
            fields.pop(name, None)
        attempt.dialect.prepare(fields, self.request.streamed)
        body = encode_fields(fields)
        attempt.sent(connection)
        prefix = prepared.streamed_head if self.request.streamed else prepared.whole_head
        connection.send(attempt, finish_head(prefix, len(body)), body)

    def _back_off(self) -> None:
        settings = self.gateway.settings.upstream
        self._round += 1
        self._order, self._again, self._position = self._again, [], 0
        wait_s = min(settings.backoff_s * 2 ** (self._round - 1), settings.backoff_max_s)
        loop = asyncio.get_running_loop()
        self._retry = loop.call_later(wait_s * (0.5 + random.random()), self._next_attempt)

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def blames(self, channel_id: str) -> bool:
        """Whether this failure is the request's first on the channel: only that one counts against it."""
        if channel_id in self._blamed:
            return False
        self._blamed = (*self._blamed, channel_id)
        return True

    def try_fresh(self, attempt: Attempt) -> None:
        """A kept connection had been closed by the provider: nothing was served, so this was no attempt."""
        self.attempt = None
        self._stale += 1
        if self._stale <= STALE_MAX:
            self.attempts -= 1
            self._position -= 1
        else:
            self._again.append((attempt.offer, attempt.candidate))
        self._next_attempt()

    def attempt_failed(self, failure: Failure) -> None:
        """Nothing has reached the client: go on with the next channel, or tell the client why not."""
        attempt, self.attempt = self.attempt, None
        assert attempt is not None
        self.failure = failure
        if failure.is_callers_fault:
            self._skip_model(attempt.offer)
        elif failure.may_recover:
            self._again.append((attempt.offer, attempt.candidate))
        if self.lane is None:
            self._settle(Outcome.CLIENT_GONE_EARLY)
            return
        assert self.request is not None
        if not self.request.preferences.allow_fallbacks:
            self._give_up()
            return
        self._next_attempt()

    def _skip_model(self, offer: Offer) -> None:
        """The provider says that the request itself is wrong: only another model may take it."""
        rest = self._order[self._position :] + self._again
        self._order = [(other, candidate) for other, candidate in rest if other is not offer]
        self._again = []
        self._position = 0

    def _give_up(self) -> None:
        failure = self.failure
        if failure is None:
            wait_s = self._skipped_wait_s if self._skipped_wait_s < NEVER else 1.0
            refusal = Refusal(
                "no_healthy_channel",
                "No channel of this model can serve at the moment. Retry after the seconds in Retry-After,"
                " or name fallback models in `models`.",
                retry_after_s=wait_s,
            )
            self._end_refused(refusal, Outcome.UPSTREAM_ERROR, 0)
            return
        self._end_refused(failure.refusal(), failure.outcome, failure.status)

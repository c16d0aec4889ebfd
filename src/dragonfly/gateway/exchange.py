"""One request from admission to settlement: the state machine of the data plane.

Steps that find everything at hand (key cached, lease funded, connection warm) run straight through, in the
parser's callback. A step that must wait is one task, and the machine goes on from there. Whatever happens,
a grant is settled exactly once, in `_settle`.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from dragonfly.admission.grants import Ask, Candidate, Charge, Grant, KeyPolicy, Offer, Settlement
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import RequestId
from dragonfly.core.money import ZERO
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import NO_TOKENS, TokenUsage
from dragonfly.gateway.attempt import Attempt, Failure
from dragonfly.gateway.health import Standing
from dragonfly.gateway.receiving import COUNTED_BODY_BYTES
from dragonfly.gateway.refusals import Refusal, error_object
from dragonfly.gateway.relay import StreamAttempt
from dragonfly.gateway.routing import eligible, guided, in_order, preferences_of
from dragonfly.gateway.whole import WholeAttempt
from dragonfly.gateway.wire.answer import render_error_event
from dragonfly.gateway.wire.chat import (
    ChatRequest,
    encode_fields,
    forwarded_fields,
    read_chat_request,
    set_output_limit,
)
from dragonfly.gateway.wire.media import NO_MEDIA, find_media
from dragonfly.providers.connection import Connection
from dragonfly.providers.pool import UpstreamUnreachable
from dragonfly.providers.requests import finish_head

if TYPE_CHECKING:
    from dragonfly.gateway.gateway import Gateway
    from dragonfly.gateway.receiving import Request
    from dragonfly.gateway.server import FastLane

NEVER = float("inf")
COMMENT_AFTER_S = 10.0
"""A provider's keep-alive comments reach the client only after this long, because some parsers choke on them
and because fail-over is possible only while nothing has been sent."""
STALE_MAX = 8
"""Kept connections that may turn out to be closed before one counts as an attempt."""
NO_CHARGE = Charge(ZERO, ZERO, ZERO, ZERO, ZERO)


class Exchange:
    """One chat completion."""

    __slots__ = (
        "_again",
        "_blamed",
        "_body_bytes",
        "_left_over",
        "_order",
        "_position",
        "_retry",
        "_round",
        "_skipped_wait_s",
        "_stale",
        "attempt",
        "attempts",
        "client_waits",
        "comment_due_s",
        "comments_allowed",
        "failure",
        "first_byte_ns",
        "gateway",
        "grant",
        "key",
        "lane",
        "media",
        "request",
        "request_id",
        "started_ns",
    )

    def __init__(self, gateway: "Gateway", lane: "FastLane", request_id: RequestId, request: "Request") -> None:
        self.gateway = gateway
        self.lane: FastLane | None = lane
        self.request_id = request_id
        self.started_ns = request.started_ns
        self.comments_allowed = request.headers.get(b"x-dragonfly-comments") != b"off"
        self.request: ChatRequest | None = None
        self.media = NO_MEDIA
        self.key: KeyPolicy | None = None
        self.grant: Grant | None = None
        self.attempt: Attempt | None = None
        self.attempts = 0
        self.failure: Failure | None = None
        self.first_byte_ns = 0
        self.comment_due_s = NEVER
        self.client_waits = False
        """The client reads slowly: the provider is held back."""
        self._order: list[tuple[Offer, Candidate]] = []
        self._position = 0
        self._again: list[tuple[Offer, Candidate]] = []
        self._left_over: list[tuple[Offer, Candidate]] = []
        self._round = 0
        self._retry: asyncio.TimerHandle | None = None
        self._skipped_wait_s = NEVER
        self._stale = 0
        self._blamed: tuple[str, ...] = ()
        self._body_bytes = 0
        """Counted while the body is kept."""

    # Admission

    def begin(self, secret: bytes, body: bytes) -> None:
        """Start. Never raises: whatever goes wrong is answered."""
        self.gateway.exchanges.add(self)
        if len(body) > COUNTED_BODY_BYTES:
            self._body_bytes = len(body)
            self.gateway.body_bytes_open += len(body)
        try:
            key = self.gateway.gate.key_cached(secret)
            if key is None:
                self._wait(self._find_key(secret, body))
            else:
                self._admit(key, body)
        except DragonflyError as error:
            self._refuse(error)
        except Exception as problem:
            self.crash(problem)

    def _wait(self, work: Coroutine[object, object, None]) -> None:
        self.gateway.spawn(self._guarded(work))

    async def _guarded(self, work: Coroutine[object, object, None]) -> None:
        """A step that waits; its errors end the exchange like those of a step that does not."""
        try:
            await work
        except DragonflyError as error:
            self._refuse(error)
        except Exception as problem:
            self.crash(problem)

    async def _find_key(self, secret: bytes, body: bytes) -> None:
        key = await self.gateway.gate.key(secret)
        if self.lane is None:
            self.close()
            return
        self._admit(key, body)

    def _admit(self, key: KeyPolicy, body: bytes) -> None:
        self.key = key
        request = self.request = read_chat_request(body)
        media = self.media = find_media(body, request.fields["messages"])
        gateway = self.gateway
        offers = self._offers(request)
        if key.routing is not None:
            profile = preferences_of(key.routing)
            offers = eligible(offers, profile)
            request = self.request = request._replace(preferences=guided(request.preferences, profile))
        ask = Ask(
            key,
            self.request_id,
            eligible(offers, request.preferences),
            len(body) - media.inline_bytes,
            request.output_tokens,
            request.choices,
            request.streamed,
            gateway.clock.now_ns(),
            media.tokens_most,
            request.extra_tokens,
        )
        grant = gateway.gate.admit(ask)
        if grant is None:
            self._wait(self._admit_waiting(ask))
        else:
            self._granted(grant)

    def _offers(self, request: ChatRequest) -> tuple[Offer, ...]:
        """The models asked for; an unknown fallback is left out as long as one model is known."""
        gate = self.gateway.gate
        if len(request.models) == 1:
            return (gate.offer(request.models[0]),)
        offers = []
        refusal: DragonflyError | None = None
        for name in request.models:
            try:
                offers.append(gate.offer(name))
            except DragonflyError as error:
                refusal = refusal or error
        if not offers and refusal is not None:
            raise refusal
        return tuple(offers)

    async def _admit_waiting(self, ask: Ask) -> None:
        self._granted(await self.gateway.gate.admit_waiting(ask))

    def _granted(self, grant: Grant) -> None:
        self.grant = grant
        if self.lane is None:
            self._settle(Outcome.CLIENT_GONE_EARLY)
            return
        assert self.request is not None
        self.comment_due_s = self.gateway.coarse_s + COMMENT_AFTER_S if self.request.streamed else NEVER
        self._order = in_order(grant.ask.offers, self.request.preferences, self.gateway.board)
        self._next_attempt()

    # Attempts

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
        kind = StreamAttempt if self.request.streamed else WholeAttempt
        attempt = self.attempt = kind(self, offer, candidate)
        connection = self.gateway.pool.take(candidate.channel)
        if connection is None:
            self._wait(self._dial(attempt))
        else:
            self._send(attempt, connection)

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

    def _end_refused(self, refusal: Refusal, outcome: Outcome, upstream_status: int) -> None:
        if self.first_byte_ns:
            self._end_with_error(refusal, outcome)
            return
        self._settle(outcome, upstream_status=upstream_status)
        self._refuse(refusal)

    # Answers

    def head_lines(self, attempt: Attempt) -> bytes:
        """Header lines of a good answer, whole or streamed."""
        gateway = self.gateway
        assert self.key is not None
        assert self.grant is not None
        head = b"x-request-id: %b\r\nx-dragonfly-provider: %b\r\n" % (
            self.request_id.encode(),
            attempt.candidate.channel.provider.encode(),
        )
        if self.grant.output_tokens_clamp is not None:
            head += b"x-dragonfly-max-tokens: %d\r\n" % self.grant.output_tokens_clamp
        return head + gateway.rate_head(self.key)

    def comment_is_due(self) -> None:
        """Long enough without an event: from now on keep-alive comments go to the client."""
        self.comment_due_s = NEVER
        if isinstance(self.attempt, StreamAttempt):
            self.attempt.comment_is_due()

    def answered(self, attempt: Attempt) -> None:
        """The first bytes of a good answer are about to reach the client: nothing can be tried again, so the
        prompt is let go."""
        assert self.request is not None
        self.request.fields.clear()
        self._let_body_go()
        self.first_byte_ns = self.gateway.monotonic_ns()
        self.comment_due_s = NEVER

    def finish(
        self, attempt: Attempt, outcome: Outcome, usage: TokenUsage, charge: Charge, finish_reason: str
    ) -> None:
        """The answer is complete: settle; `attempt.durable` is called when the charge is committed."""
        self._settle(
            outcome, usage=usage, charge=charge, finish_reason=finish_reason, upstream_status=200, durable=True
        )

    def broke(self, attempt: Attempt, failure: Failure) -> None:
        """The answer broke after its first byte had reached the client."""
        self._end_with_error(failure.refusal(), failure.outcome_after_first_byte)

    def _end_with_error(self, refusal: Refusal, outcome: Outcome) -> None:
        lane = self.lane
        model = self.attempt.offer.model if self.attempt is not None else ""
        self._settle(outcome, upstream_status=200)
        if lane is not None:
            event = render_error_event(
                error_object(refusal, self.request_id),
                request_id=self.request_id,
                model=model,
                created_s=self.gateway.clock.now_ns() // 1_000_000_000,
            )
            lane.send_end(event)

    # The client

    def client_gone(self) -> None:
        """The connection is closed: cancel upstream at once, charge what was delivered."""
        self._leave(Outcome.CLIENT_GONE)

    def client_stalled(self) -> None:
        """The client took nothing for too long."""
        self._leave(Outcome.CLIENT_STALLED)

    def _leave(self, outcome: Outcome) -> None:
        self.lane = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        attempt = self.attempt
        if self.grant is None or self.grant.settled:
            return
        if attempt is None or not attempt.is_accepted:
            self._settle(Outcome.CLIENT_GONE_EARLY)
            return
        usage = attempt.delivered_usage()
        charge = self.gateway.gate.charge(self.grant, attempt.candidate, usage, outcome)
        self._settle(outcome, usage=usage, charge=charge, upstream_status=200)

    def client_slow(self) -> None:
        """The client's buffer is full."""
        self.client_waits = True
        if self.attempt is not None:
            self.attempt.pause()

    def client_ready(self) -> None:
        """The client's buffer has room again."""
        self.client_waits = False
        if self.attempt is not None:
            self.attempt.resume()

    # Ends

    def shut_down(self) -> None:
        """The process stops: what is still open ends now, free of charge."""
        if self.grant is not None and self.grant.settled:
            return
        self._fail_now(Refusal("shutting_down", "The gateway is stopping. Send the request again."), Outcome.SHUTDOWN)

    def crash(self, problem: Exception) -> None:
        """A bug of ours; its text may hold content, so only its type is reported."""
        self.gateway.report("exchange_crashed", kind=type(problem).__name__)
        if self.grant is not None and self.grant.settled:
            if self.lane is not None:
                self.lane.transport.abort()
            return
        self._fail_now(
            Refusal("internal_error", "Something went wrong in the gateway. Retry; quote request_id if it stays."),
            Outcome.UPSTREAM_BROKE if self.first_byte_ns else Outcome.UPSTREAM_ERROR,
        )

    def _fail_now(self, refusal: Refusal, outcome: Outcome) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self.grant is None:
            self._refuse(refusal)
        else:
            self._end_refused(refusal, outcome, 0)

    def _refuse(self, error: DragonflyError) -> None:
        """Answer with an error, when a client is still there; nothing has been sent yet."""
        lane, self.lane = self.lane, None
        if lane is not None:
            self.gateway.refuse(lane, error, self.request_id, self.key)
        self.close()

    def _settle(
        self,
        outcome: Outcome,
        *,
        usage: TokenUsage = NO_TOKENS,
        charge: Charge = NO_CHARGE,
        finish_reason: str = "",
        upstream_status: int = 0,
        durable: bool = False,
    ) -> None:
        """The only place where a grant ends. Also lets go of the provider's connection."""
        grant = self.grant
        assert grant is not None
        gateway = self.gateway
        attempt = self.attempt
        now_ns = gateway.monotonic_ns()
        settlement = Settlement(
            outcome,
            attempt.candidate if attempt is not None else None,
            usage,
            charge,
            attempt.offer.model if attempt is not None else grant.ask.offers[0].model,
            finish_reason,
            upstream_status,
            self.attempts,
            (self.first_byte_ns - self.started_ns) // 1_000 if self.first_byte_ns else 0,
            (now_ns - self.started_ns) // 1_000,
        )
        gateway.outcomes[outcome] += 1
        if durable:
            assert attempt is not None
            gateway.gate.settle(grant, settlement, attempt.durable)
            return
        gateway.gate.settle(grant, settlement)
        if attempt is not None:
            attempt.let_go()
        self.close()

    def _let_body_go(self) -> None:
        self.gateway.body_bytes_open -= self._body_bytes
        self._body_bytes = 0

    def close(self) -> None:
        """The last bytes are written, or nobody is there to take them: forget everything."""
        self.gateway.exchanges.discard(self)
        self._let_body_go()
        self.attempt = None
        self.request = None

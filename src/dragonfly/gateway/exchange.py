"""One request from admission to settlement: the state machine of the data plane.

Steps that find everything at hand (key cached, lease funded, connection warm) run straight through, in the
parser's callback. A step that must wait is one task, and the machine goes on from there. Whatever happens,
a grant is settled exactly once, in `_settle`.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING

from dragonfly.admission.errors import InsufficientBalance
from dragonfly.admission.grants import Ask, Candidate, Charge, Grant, KeyPolicy, Offer, Settlement
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, RequestId
from dragonfly.core.money import ZERO
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import NO_TOKENS, TokenUsage
from dragonfly.gateway.attempt import Attempt, Failure
from dragonfly.gateway.receiving import COUNTED_BODY_BYTES
from dragonfly.gateway.refusals import Refusal, error_object
from dragonfly.gateway.relay import StreamAttempt
from dragonfly.gateway.routing import eligible, guided, in_order, offers_of, preferences_of
from dragonfly.gateway.trying import NEVER, Trying
from dragonfly.gateway.whole import WholeAttempt
from dragonfly.gateway.wire.answer import render_cut, render_error_event, usage_object
from dragonfly.gateway.wire.chat import read_chat_request
from dragonfly.gateway.wire.media import NO_MEDIA, find_media

if TYPE_CHECKING:
    from dragonfly.gateway.gateway import Gateway
    from dragonfly.gateway.receiving import Request
    from dragonfly.gateway.server import FastLane

COMMENT_AFTER_S = 10.0
"""A provider's keep-alive comments reach the client only after this long, because some parsers choke on them
and because fail-over is possible only while nothing has been sent."""
NO_CHARGE = Charge(ZERO, ZERO, ZERO, ZERO, ZERO)


class Exchange(Trying):
    """One chat completion."""

    __slots__ = (
        "_body_bytes",
        "client_waits",
        "comment_due_s",
        "comments_allowed",
        "key",
        "media",
        "request_id",
        "started_ns",
    )

    def __init__(self, gateway: "Gateway", lane: "FastLane", request_id: RequestId, request: "Request") -> None:
        self.gateway = gateway
        self.lane: FastLane | None = lane
        self.request_id = request_id
        self.started_ns = request.started_ns
        self.comments_allowed = request.headers.get(b"x-dragonfly-comments") != b"off"
        self.request = None
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
        self._retry = None
        self._skipped_wait_s = NEVER
        self._stale = 0
        self._blamed: tuple[str, ...] = ()
        self._body_bytes = 0
        """Counted while the body is kept."""

    @property
    def account_id(self) -> AccountId | None:
        """Whose request it is, once that is known."""
        return self.key.account_id if self.key is not None else None

    # Admission

    def begin(self, secret: bytes, request: "Request") -> None:
        """Start. Never raises: whatever goes wrong is answered."""
        body = request.body
        self.gateway.exchanges.add(self)
        if len(body) > COUNTED_BODY_BYTES:
            self._body_bytes = len(body)
            self.gateway.body_bytes_open += len(body)
        try:
            key = self.gateway.gate.key_cached(secret)
            if key is None:
                self.wait(self._find_key(secret, request))
            else:
                self._admit(key, request)
        except DragonflyError as error:
            self._refuse(error)
        except Exception as problem:
            self.crash(problem)

    def wait(self, work: Coroutine[object, object, None]) -> None:
        """Run a step that must wait; see _guarded."""
        self.gateway.spawn(self._guarded(work))

    async def _guarded(self, work: Coroutine[object, object, None]) -> None:
        """A step that waits; its errors end the exchange like those of a step that does not."""
        try:
            await work
        except DragonflyError as error:
            self._refuse(error)
        except Exception as problem:
            self.crash(problem)

    async def _find_key(self, secret: bytes, request: "Request") -> None:
        key = await self.gateway.gate.key(secret)
        if self.lane is None:
            self.close()
            return
        self._admit(key, request)

    def _admit(self, key: KeyPolicy, received: "Request") -> None:
        self.key = key
        body = received.body
        if key.networks is not None:
            assert self.lane is not None
            self.gateway.check_address(key, self.lane, received.headers)
        request = self.request = read_chat_request(body)
        media = self.media = find_media(body, request.fields["messages"])
        gateway = self.gateway
        offers = offers_of(gateway.gate, request.models)
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
            self.wait(self._admit_waiting(ask))
        else:
            self._granted(grant)

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

    def _new_attempt(self, offer: Offer, candidate: Candidate) -> Attempt:
        assert self.request is not None
        return (
            StreamAttempt(self, offer, candidate) if self.request.streamed else WholeAttempt(self, offer, candidate)
        )

    # Answers

    def _end_refused(self, refusal: Refusal, outcome: Outcome, upstream_status: int) -> None:
        if self.first_byte_ns:
            self._end_with_error(refusal, outcome)
            return
        self._settle(outcome, upstream_status=upstream_status)
        self._refuse(refusal)

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
        self._cancel_retry()
        if self.grant is not None and not self.grant.settled:
            self._settle_delivered(outcome, early=Outcome.CLIENT_GONE_EARLY)

    def _settle_delivered(self, outcome: Outcome, *, early: Outcome) -> None:
        """Charge what was delivered; `early` when no provider has accepted the request yet."""
        attempt = self.attempt
        if attempt is None or not attempt.is_accepted:
            self._settle(early)
            return
        assert self.grant is not None
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

    def stop(self) -> None:
        """The caller wants no more: a stream ends in order with its usage, anything else with an error."""
        if self.grant is None or self.grant.settled:
            return
        if isinstance(self.attempt, StreamAttempt) and self.attempt.is_accepted:
            self._cut(self.attempt, Outcome.STOPPED, "stop", None)
            return
        self._cancel_retry()
        self._settle_delivered(Outcome.STOPPED, early=Outcome.STOPPED)
        self._refuse(Refusal("generation_stopped", "The request was stopped by a call of its account."))

    def wallet_empty(self, attempt: StreamAttempt, refusal: InsufficientBalance) -> None:
        """Nothing is left for more output: the stream ends in order, and says why."""
        self._cut(attempt, Outcome.WALLET_EMPTY, "length", error_object(refusal, self.request_id))

    def _cut(
        self, attempt: StreamAttempt, outcome: Outcome, finish_reason: str, error: dict[str, object] | None
    ) -> None:
        if not attempt.cut():
            return
        assert self.grant is not None
        assert self.request is not None
        usage = attempt.delivered_usage()
        charge = self.gateway.gate.charge(self.grant, attempt.candidate, usage, outcome)
        attempt.rendered = render_cut(
            attempt.frame(),
            choices=self.request.choices,
            finish_reason=finish_reason,
            usage=usage_object(usage, charge, {}) if self.request.wants_usage else None,
            error=error,
        )
        self._settle(
            outcome, usage=usage, charge=charge, finish_reason=finish_reason, upstream_status=200, durable=True
        )

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
            Outcome.CRASHED,
        )

    def _fail_now(self, refusal: Refusal, outcome: Outcome) -> None:
        self._cancel_retry()
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

"""One try at one channel: what it receives from the provider, and what that means for the exchange."""

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from dragonfly.admission.grants import Candidate, Charge, Offer
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import Basis, TokenUsage
from dragonfly.gateway.refusals import Refusal
from dragonfly.providers.connection import BrokenKind, Connection
from dragonfly.providers.dialects import FailureKind, UpstreamFailure, dialect
from dragonfly.providers.dialects.retry_after import header_s
from dragonfly.providers.pool import UnreachableKind

if TYPE_CHECKING:
    from dragonfly.gateway.exchange import Exchange

MODEL_BYTES_MAX = 256
ERROR_BODY_BYTES_MAX = 64 * 1024
RATE_LIMITED_S = 1.0
"""A channel that says "too many requests" and not for how long is left alone for this long."""
BUSY_STATUSES = frozenset({429, 498, 503, 529})


_text = msgspec.json.Decoder(str)
Cause: TypeAlias = FailureKind | BrokenKind | UnreachableKind

_CALLERS: dict[Cause, tuple[str, str]] = {
    FailureKind.BAD_REQUEST: (
        "upstream_refused",
        "The provider refused the request as invalid. Check its parameters against the model's documentation.",
    ),
    FailureKind.CONTEXT_TOO_LONG: (
        "context_length_exceeded",
        "The prompt and the asked output are longer than the model's context. Shorten them or choose a larger model.",
    ),
    FailureKind.CONTENT_REFUSED: (
        "content_policy_violation",
        "The provider's content policy refused the request. Change the prompt or choose another model.",
    ),
    FailureKind.TOO_LARGE: (
        "request_too_large",
        "The request is larger than the provider takes. Send a shorter prompt or smaller images.",
    ),
}
_LASTING: frozenset[Cause] = frozenset({FailureKind.BAD_KEY, FailureKind.NO_BALANCE, FailureKind.QUOTA_USED_UP})
_NOT_AGAIN: frozenset[Cause] = _LASTING | {FailureKind.MODEL_UNKNOWN}


class Failure(NamedTuple):
    """Why a try failed, without a word of the provider."""

    cause: Cause
    status: int = 0
    retry_after_s: float | None = None

    @property
    def is_callers_fault(self) -> bool:
        return self.cause in _CALLERS

    @property
    def is_lasting(self) -> bool:
        """Does not mend by waiting a little: the operator must act, or a long quota must reset."""
        return self.cause in _LASTING

    @property
    def may_recover(self) -> bool:
        """Trying the same channel again soon makes sense."""
        return self.cause not in _NOT_AGAIN and self.cause is not BrokenKind.TIMEOUT and not self.is_callers_fault

    @property
    def outcome(self) -> Outcome:
        """When nothing has reached the client."""
        if self.is_callers_fault:
            return Outcome.UPSTREAM_REFUSED
        return Outcome.UPSTREAM_TIMEOUT if self.cause is BrokenKind.TIMEOUT else Outcome.UPSTREAM_ERROR

    @property
    def outcome_after_first_byte(self) -> Outcome:
        return Outcome.UPSTREAM_TIMEOUT if self.cause is BrokenKind.TIMEOUT else Outcome.UPSTREAM_BROKE

    def refusal(self) -> Refusal:
        """What the client is told."""
        if self.cause in _CALLERS:
            code, message = _CALLERS[self.cause]
            return Refusal(code, message)
        if self.cause is BrokenKind.TIMEOUT:
            return Refusal("upstream_timeout", "The provider did not answer in time. Retry, or choose another model.")
        if self.is_lasting or self.cause is FailureKind.RATE_LIMITED or self.status in BUSY_STATUSES:
            return Refusal(
                "no_healthy_channel",
                "The provider cannot take the request at the moment. Retry after the seconds in Retry-After,"
                " or name fallback models in `models`.",
                retry_after_s=self.retry_after_s or 2.0,
            )
        return Refusal(
            "upstream_error",
            "The provider failed to answer. Nothing was charged. Retry, or name fallback models in `models`.",
            retry_after_s=1.0,
        )


class Attempt:
    """Base of both kinds: the listener of one connection. A late call after `let_go` cannot happen, because
    `abort` detaches the listener."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_counted",
        "_retry_after_s",
        "candidate",
        "connection",
        "content_type",
        "dialect",
        "exchange",
        "health",
        "is_accepted",
        "offer",
        "rendered",
        "sent_ns",
        "status",
    )

    def __init__(self, exchange: "Exchange", offer: Offer, candidate: Candidate) -> None:
        self.exchange = exchange
        self.offer = offer
        self.candidate = candidate
        self.dialect = dialect(candidate.channel.dialect)
        self.health = exchange.gateway.board.of(candidate.channel.id)
        self.connection: Connection | None = None
        self.is_accepted = False
        """The provider has taken the request, so that leaving now is charged."""
        self.status = 0
        self.content_type = b""
        self.rendered = b""
        """What leaves once the charge is durable."""
        self.sent_ns = 0
        self._retry_after_s: float | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._counted = False

    # What the exchange calls

    def sent(self, connection: Connection) -> None:
        """The request goes out on this connection."""
        gateway = self.exchange.gateway
        self.connection = connection
        self.sent_ns = gateway.monotonic_ns()
        self._counted = True
        gateway.board.started(self.health)

    def let_go(self) -> None:
        """Cancel upstream when something is still coming; harmless when nothing is."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()
        self._ended()

    def pause(self) -> None:
        if self.connection is not None:
            self.connection.pause_reading()

    def resume(self) -> None:
        if self.connection is not None:
            self.connection.resume_reading()

    def unreachable(self, kind: UnreachableKind) -> None:
        """Dialling failed."""
        self._failed(Failure(kind))

    def finish(self, usage: TokenUsage, charge: Charge, outcome: Outcome) -> None:
        """The answer is whole and its charge is known: render and settle it."""
        raise NotImplementedError

    def durable(self) -> None:
        """The charge is committed: the last bytes may leave."""
        raise NotImplementedError

    def delivered_usage(self) -> TokenUsage:
        """Prompt and delivered output, estimated."""
        return TokenUsage(self.prompt_tokens_estimated(), 0, basis=Basis.ESTIMATED)

    def answered_as(self, model: Raw | None) -> None:
        """Bill by the model that the provider says has answered; one that nobody priced keeps the held price."""
        exchange = self.exchange
        gateway = exchange.gateway
        channel = self.candidate.channel
        if model is None or model == gateway.prepared(channel).model or len(model) > MODEL_BYTES_MAX:
            return
        assert exchange.grant is not None
        try:
            name = _text.decode(model)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        answered = gateway.gate.answered(self.candidate, name, exchange.grant.ask.started_ns)
        if answered is None:
            gateway.tell_unknown_model(channel)
        else:
            self.candidate = answered

    def prompt_tokens_estimated(self) -> int:
        """For a provider that has not counted: text by its bytes, images by their number."""
        exchange = self.exchange
        assert exchange.grant is not None
        text = exchange.gateway.gate.estimates.prompt_tokens(self.candidate.channel.id, exchange.grant.ask.body_bytes)
        return text + exchange.media.tokens_usual

    def output_tokens_estimated(self, output_bytes: int, events: int = 0) -> int:
        """For a provider that has not counted."""
        return self.exchange.gateway.gate.estimates.output_tokens(self.candidate.channel.id, output_bytes, events)

    def learn(self, usage: TokenUsage, output_bytes: int) -> None:
        """Take note of an exact count, for answers that come without one. Reasoning that was not shown has no bytes,
        and images have others than text."""
        exchange = self.exchange
        assert exchange.grant is not None
        if usage.basis is not Basis.UPSTREAM:
            return
        exchange.gateway.gate.estimates.learn(
            self.candidate.channel.id,
            prompt_bytes=0 if exchange.media.images or exchange.media.is_unbounded else exchange.grant.ask.body_bytes,
            prompt_tokens=usage.prompt_tokens,
            output_bytes=output_bytes,
            output_tokens=usage.completion_tokens - (usage.reasoning_tokens if self.dialect.hides_output else 0),
        )

    # What the connection calls

    def on_response(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status = status
        self.content_type = headers.get(b"content-type", b"").lower()
        self._retry_after_s = header_s(headers)
        self.accepted()

    def accepted(self) -> None:
        """The head has come."""

    def on_bytes(self, data: bytes) -> None:
        self._collect(data, ERROR_BODY_BYTES_MAX)

    def on_end(self) -> None:
        self.connection = None
        try:
            self.ended()
        except Exception as problem:
            self.exchange.crash(problem)

    def on_broken(self, kind: BrokenKind) -> None:
        self.connection = None
        try:
            self.broken(kind)
        except Exception as problem:
            self.exchange.crash(problem)

    def ended(self) -> None:
        """The body is complete."""
        raise NotImplementedError

    def broken(self, kind: BrokenKind) -> None:
        """There will be no more, and nothing has reached the client."""
        if kind is BrokenKind.STALE:
            self._ended()
            self.exchange.try_fresh(self)
            return
        self._failed(Failure(kind, self.status))

    # Shared by both kinds

    def _collect(self, data: bytes, bytes_max: int) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > bytes_max:
            connection, self.connection = self.connection, None
            if connection is not None:
                connection.abort()
            self._failed(Failure(BrokenKind.TOO_LARGE, self.status))
            return
        self._body.append(data)

    def _refused(self) -> None:
        """The collected body is an error, whatever its status says."""
        body = b"".join(self._body)
        self._body = []
        self._failed_as(self.dialect.classify(self.status, self.content_type, body))

    def _failed_as(self, upstream: UpstreamFailure) -> None:
        wait_s = self._retry_after_s if self._retry_after_s is not None else upstream.retry_after_s
        self._failed(Failure(upstream.kind, upstream.status, wait_s))

    def _failed(self, failure: Failure) -> None:
        self._note_failure(failure)
        self._ended()
        self.exchange.attempt_failed(failure)

    def _note_failure(self, failure: Failure) -> None:
        """What the channel's health makes of it; a request that is itself wrong says nothing of the channel."""
        gateway = self.exchange.gateway
        if failure.is_callers_fault:
            return
        if not self.exchange.blames(self.candidate.channel.id):
            return
        wait_s = failure.retry_after_s
        if wait_s is None and failure.cause is FailureKind.RATE_LIMITED:
            wait_s = RATE_LIMITED_S
        gateway.board.note_failure(self.health, retry_after_s=wait_s, lasting=failure.is_lasting)
        gateway.report(
            "channel_failed", channel=self.candidate.channel.id, kind=failure.cause.value, status=failure.status
        )

    def _ended(self) -> None:
        if self._counted:
            self._counted = False
            self.exchange.gateway.board.ended(self.health)

"""A streamed answer: events pass as they came, until the last ones, which wait for the charge.

Per read the relay makes sure that only whole events go on, and that nothing in them matters to it (one cheap
test). Only events that may hold an error, a finish reason or usage are looked into. From the event with the
finish reason on, everything is held until the usage is known and the charge is durable.
"""

import math
from typing import TYPE_CHECKING

from dragonfly.admission.grants import Candidate, Charge, Offer
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import Basis, TokenUsage
from dragonfly.gateway.attempt import Attempt, Failure
from dragonfly.gateway.growth import Growth, pay
from dragonfly.gateway.sse import complete_length, split_events
from dragonfly.gateway.tail import Tail
from dragonfly.gateway.wire.answer import Frame, usage_object
from dragonfly.providers.connection import BrokenKind
from dragonfly.providers.dialects import EventFacts, FailureKind, UpstreamFailure, plain_events

if TYPE_CHECKING:
    from dragonfly.gateway.exchange import Exchange

EARLY_COMMENTS_MAX = 64
HELD_EVENTS_MAX = 1_000
_CALL = b'"tool_calls"'
BOUNDARY_BYTES = 3
"""So many bytes of an unfinished event may belong to the blank line that ends it."""
STREAM_HEAD = b"content-type: text/event-stream; charset=utf-8\r\nx-accel-buffering: no\r\n"


class StreamAttempt(Attempt):
    """Relays one stream."""

    __slots__ = (
        "_begins_call",
        "_choices",
        "_done",
        "_early",
        "_envelope_bytes",
        "_finish_reason",
        "_finished",
        "_flowing",
        "_growth",
        "_has_output",
        "_rest",
        "_rest_bytes",
        "_started",
        "_streaming",
        "_tail",
        "_usage",
        "relayed_bytes",
        "relayed_events",
    )

    def __init__(self, exchange: "Exchange", offer: Offer, candidate: Candidate) -> None:
        super().__init__(exchange, offer, candidate)
        assert exchange.request is not None
        self.relayed_bytes = 0
        """Of the events with output."""
        self.relayed_events = 0
        self._growth: Growth | None = None
        self._streaming = False
        """The provider answers with a stream."""
        self._started = False
        """The client has the head."""
        self._flowing = False
        """Started, with output, and not yet at the tail: plain events pass at once."""
        self._done = False
        self._early: list[bytes] = []
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._envelope_bytes = 0
        self._has_output = False
        self._begins_call = False
        self._finish_reason = ""
        self._choices = exchange.request.choices
        self._finished: frozenset[int] = frozenset()
        """Choices with a finish reason; a provider may repeat one."""
        self._tail: Tail | None = None
        self._usage: TokenUsage | None = None

    # What the connection calls

    def accepted(self) -> None:
        if self.status == 200 and self.content_type.startswith(b"text/event-stream"):
            self._streaming = True
            self.is_accepted = True

    def on_bytes(self, data: bytes) -> None:
        if not self._streaming:
            super().on_bytes(data)
            return
        try:
            if self._rest or not data.endswith(b"\n\n"):
                data = self._whole_events(data)
            if self._flowing and (events := plain_events(data)):
                self.relayed_bytes += len(data)
                self.relayed_events += events
                self.exchange.lane.send_piece(data)  # type: ignore[union-attr]
                growth = self._growth
                if growth is not None and self.relayed_bytes > growth.look_at_bytes:
                    growth.look()
            elif data and not self._done:
                self._inspect(data)
        except Exception as problem:
            self.exchange.crash(problem)

    def ended(self) -> None:
        if not self._streaming:
            # With status 200: JSON where a stream was asked for, an error in disguise.
            self._refused()
            return
        if self._done:
            return
        self._flush_rest()
        if not self._done:
            self._complete(BrokenKind.CUT)

    def broken(self, kind: BrokenKind) -> None:
        if self._done:
            return
        if self._finish_reason:
            # The answer itself was whole; only its end is missing.
            self._complete(kind)
        elif self.exchange.first_byte_ns:
            self._broke(Failure(kind, self.status))
        else:
            self._rest.clear()
            super().broken(kind)

    # What the exchange calls

    def comment_is_due(self) -> None:
        """Send the head and the comments that wait, so that the client sees that something is alive."""
        if self._streaming and self._early and not self._started:
            early, self._early = self._early, []
            self._start()
            self._send(b"".join(early))

    def resume(self) -> None:
        if self._growth is None or not self._growth.is_holding_back:
            super().resume()

    def delivered_usage(self) -> TokenUsage:
        """By the provider's own running count where it sends one, else estimated from what was relayed."""
        if self._usage is not None and self._usage.completion_tokens:
            return self._usage
        output_tokens = self.output_tokens_estimated(self._output_bytes(), self.relayed_events)
        return TokenUsage(self.prompt_tokens_estimated(), output_tokens, basis=Basis.ESTIMATED)

    def tokens_per_choice(self) -> int:
        """Output of each choice so far, for the growth of the hold."""
        return -(-self.delivered_usage().completion_tokens // self._choices)

    def durable(self) -> None:
        exchange = self.exchange
        lane = exchange.lane
        if lane is not None:
            lane.send_end(self.rendered)
        exchange.close()

    # Events

    def _whole_events(self, data: bytes) -> bytes:
        """Whole events only; the beginning of an unfinished one waits (bounded)."""
        rest = self._rest
        if rest:
            probe = rest[-1][-BOUNDARY_BYTES:] + data
            if not complete_length(probe):
                self._keep_rest(data)
                return b""
            rest.append(data)
            data = b"".join(rest)
            rest.clear()
            self._rest_bytes = 0
        length = complete_length(data)
        if length < len(data):
            self._keep_rest(data[length:])
            data = data[:length]
        return data

    def _keep_rest(self, data: bytes) -> None:
        # A short piece is joined to its predecessor, so that the last one always holds the boundary's bytes.
        if self._rest and len(self._rest[-1]) < BOUNDARY_BYTES:
            data = self._rest.pop() + data
        self._rest.append(data)
        self._rest_bytes += len(data)
        if self._rest_bytes > self.exchange.gateway.limits.event_bytes_max:
            self._abort_as(Failure(BrokenKind.TOO_LARGE, self.status))

    def _flush_rest(self) -> None:
        """A last event without its blank line counts when it is whole; half of one is not for the client."""
        if self._rest:
            data = b"".join(self._rest)
            self._rest.clear()
            event = data.rstrip(b"\r\n") + b"\n\n"
            facts = self.dialect.inspect_event(event)
            if facts.obj is not None or facts.done:
                self._inspect(event)

    def _inspect(self, data: bytes) -> None:
        """Look into each event; plain ones between them go on together."""
        out: list[bytes] = []
        for event in split_events(data):
            if not self._take(event, out):
                return
            if self._done:
                break
        if out:
            self._send(b"".join(out))
        self._flowing = self._started and self._has_output and not self._begins_call and self._tail is None
        if self._done:
            self._complete(None)
        elif self._flowing and self._growth is not None:
            self._growth.look()

    def _take(self, event: bytes, out: list[bytes]) -> bool:
        """Decide on one event; False: the attempt is over."""
        if event.startswith(b":") and event.find(b"\n") == len(event) - 2:
            self._take_comment(event, out)
            return True
        facts = self.dialect.inspect_event(event)
        if facts.is_comment:
            self._take_comment(event, out)
            return True
        if facts.error is not None:
            if out:
                self._send(b"".join(out))
                out.clear()
            self._event_error(facts.error)
            return False
        if not self._started:
            if facts.obj is None:
                # The first event is no JSON: whatever this is, another channel may do better.
                self._abort_as(Failure(BrokenKind.GARBAGE, self.status))
                return False
            self._start()
            out.extend(self._early)
            self._early = []
        self._note(facts, event)
        if facts.done:
            self._done = True
        if self._tail is None and not self._is_tail(facts):
            out.append(event)
            return True
        return self._hold(event, facts)

    def _take_comment(self, event: bytes, out: list[bytes]) -> None:
        if not self.exchange.comments_allowed or self._tail is not None:
            return
        if self._started:
            out.append(event)
        elif len(self._early) < EARLY_COMMENTS_MAX:
            self._early.append(event)
            if self.exchange.comment_due_s == math.inf:
                self.comment_is_due()

    def _note(self, facts: EventFacts, event: bytes) -> None:
        if facts.usage is not None:
            self._usage = facts.usage
        if facts.has_output:
            self.relayed_bytes += len(event)
            self.relayed_events += 1
            if not self._has_output or self._begins_call:
                # The first delta of a tool call has its id and type too, so the next one is looked at as well.
                self._envelope_bytes = len(event) - facts.output_bytes
                self._begins_call = not self._has_output and _CALL in event
            self._has_output = True
        if facts.finish_reason:
            self._finished |= frozenset(facts.finished_choices)
            if self._finish_reason != "error":
                self._finish_reason = facts.finish_reason

    def _is_tail(self, facts: EventFacts) -> bool:
        """From here on nothing but the end can come: hold it for the charge."""
        if facts.done or (facts.choices_empty and facts.usage is not None):
            return True
        return bool(facts.finish_reason) and len(self._finished) >= self._choices

    def _hold(self, event: bytes, facts: EventFacts) -> bool:
        """False: there are too many, and the attempt is over."""
        if self._tail is None:
            self._tail = Tail()
        if len(self._tail.events) >= HELD_EVENTS_MAX:
            self._abort_as(Failure(BrokenKind.GARBAGE, self.status))
            return False
        self._tail.add(event, facts)
        return True

    def _event_error(self, error: UpstreamFailure) -> None:
        self._abort_as(Failure(error.kind, error.status or self.status, error.retry_after_s))

    def _abort_as(self, failure: Failure) -> None:
        """Stop reading and fail: before the first byte another channel may serve, after it the client is told."""
        self._done = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()
        if self.exchange.first_byte_ns:
            self._broke(failure)
        else:
            self._failed(failure)

    def _broke(self, failure: Failure) -> None:
        self._done = True
        self._flowing = False
        self._note_failure(failure)
        self._ended()
        self.exchange.broke(self, failure)

    # The way to the client

    def _start(self) -> None:
        exchange = self.exchange
        gateway = exchange.gateway
        exchange.answered(self)
        self._started = True
        gateway.board.answered(self.health, (exchange.first_byte_ns - self.sent_ns) / 1e9)
        assert exchange.grant is not None
        if exchange.grant.covered_tokens is not None:
            self._growth = Growth(self)
        if exchange.lane is not None:
            exchange.lane.send_head(STREAM_HEAD + exchange.head_lines(self))

    def _send(self, data: bytes) -> None:
        lane = self.exchange.lane
        if lane is not None and data:
            lane.send_piece(data)

    # The end

    def _complete(self, missing: BrokenKind | None) -> None:
        """The stream is over. Without a finish reason it was cut: an error, never an invented `stop`."""
        self._done = True
        self._flowing = False
        if self._finish_reason in ("", "error"):
            failure = Failure(
                FailureKind.OVERLOADED if self._finish_reason else missing or BrokenKind.CUT, self.status
            )
            self._abort_as(failure)
            return
        self._ended()
        gateway = self.exchange.gateway
        usage = self._usage
        if usage is None:
            usage = self.delivered_usage()
        elif gateway.gate.estimates.is_due(self.candidate.channel.id):
            self.learn(usage, self._output_bytes())
        gateway.board.delivered(self.health, usage.completion_tokens, (gateway.monotonic_ns() - self.sent_ns) / 1e9)
        outcome = Outcome.COMPLETE if self._has_output else Outcome.EMPTY
        if self._finish_reason == "content_filter":
            outcome = Outcome.FILTERED
        self.answered_as(self._tail.model() if self._tail is not None else None)
        pay(self, usage, outcome)

    def finish(self, usage: TokenUsage, charge: Charge, outcome: Outcome) -> None:
        """Render the end of the whole answer and settle."""
        exchange = self.exchange
        assert exchange.request is not None
        tail = self._tail or Tail()
        if exchange.request.wants_usage:
            self.rendered = tail.with_usage(
                created_s=exchange.gateway.clock.now_ns() // 1_000_000_000,
                model=self.offer.model,
                provider=self.candidate.channel.provider,
                usage=usage_object(usage, charge, tail.upstream_usage()),
            )
        else:
            self.rendered = tail.without_usage()
        exchange.finish(self, outcome, usage, charge, self._finish_reason)

    def frame(self) -> Frame:
        """For events of our own."""
        exchange = self.exchange
        created_s = exchange.gateway.clock.now_ns() // 1_000_000_000
        return Frame(exchange.request_id, self.offer.model, self.candidate.channel.provider, created_s)

    def cut(self) -> bool:
        """Stop what is under way, as the caller or the balance demands. False: the answer is ending by itself."""
        if self._done or self._finish_reason:
            return False
        self._done = True
        self._flowing = False
        if not self._started:
            self._start()
        self.let_go()
        return True

    def _output_bytes(self) -> int:
        """What came of output, without the envelope of each event, whose length the first one with output shows."""
        if not self._has_output:
            return 0
        return max(1, self.relayed_bytes - self.relayed_events * self._envelope_bytes)

"""An answer that is not streamed: collected, its usage read, rendered with the cost, sent when it is paid."""

from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import Basis, TokenUsage
from dragonfly.gateway.attempt import ERROR_BODY_BYTES_MAX, Attempt, Failure
from dragonfly.gateway.wire.answer import AnswerFacts, read_answer, render_answer, usage_fields, usage_object
from dragonfly.providers.connection import BrokenKind, Connection
from dragonfly.providers.dialects import FailureKind

SUSPICIOUS = frozenset({"error", "base_resp", "code", "message", "detail"})
"""Fields in which providers put an error into an answer with status 200."""


class WholeAttempt(Attempt):
    """Collects the body of one answer."""

    __slots__ = ()

    def sent(self, connection: Connection) -> None:
        super().sent(connection)
        # Providers begin such an answer only when it is finished: whoever leaves has had the work done.
        self.is_accepted = True

    def on_bytes(self, data: bytes) -> None:
        good = self.status == 200
        self._collect(data, self.exchange.gateway.limits.answer_bytes_max if good else ERROR_BODY_BYTES_MAX)

    def ended(self) -> None:
        if self.status != 200:
            self._refused()
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body_bytes = len(body)
        facts = read_answer(body)
        if facts is None:
            self._failed(Failure(BrokenKind.GARBAGE, self.status))
            return
        failure = None if SUSPICIOUS.isdisjoint(facts.fields) else self.dialect.failure_in(facts.fields)
        if failure is not None:
            self._failed_as(failure)
        elif not facts.native_finish_reasons:
            self._failed(Failure(FailureKind.OTHER, self.status))
        else:
            self._body = []
            self._finish(facts)

    def broken(self, kind: BrokenKind) -> None:
        self.is_accepted = False
        super().broken(kind)

    def _finish(self, facts: AnswerFacts) -> None:
        exchange = self.exchange
        gateway = exchange.gateway
        finish_reason = self._finish_reason(facts)
        if finish_reason in ("", "error"):
            self._failed(Failure(FailureKind.OVERLOADED, self.status))
            return
        assert exchange.grant is not None
        now_ns = gateway.monotonic_ns()
        latency_s = (now_ns - self.sent_ns) / 1e9
        gateway.board.answered(self.health, latency_s)
        self._ended()
        usage = self.dialect.read_usage(facts.fields)
        if usage is None:
            output_tokens = self.output_tokens_estimated(facts.output_bytes())
            usage = TokenUsage(self.prompt_tokens_estimated(), output_tokens, basis=Basis.ESTIMATED)
        elif gateway.gate.estimates.is_due(self.candidate.channel.id):
            self.learn(usage, facts.output_bytes())
        gateway.board.delivered(self.health, usage.completion_tokens, latency_s)
        outcome = _outcome(finish_reason, facts.has_output)
        self.answered_as(facts.fields.get("model"))
        charge = gateway.gate.charge(exchange.grant, self.candidate, usage, outcome)
        self.rendered = render_answer(
            facts.fields,
            request_id=exchange.request_id,
            model=self.offer.model,
            provider=self.candidate.channel.provider,
            usage=usage_object(usage, charge, usage_fields(facts.fields.get("usage"))),
        )
        exchange.answered(self)
        exchange.finish(self, outcome, usage, charge, finish_reason)

    def _finish_reason(self, facts: AnswerFacts) -> str:
        """Of all choices the worst: one that failed makes the answer a failure."""
        natives = facts.native_finish_reasons
        if len(natives) == 1:
            return self.dialect.finish_reason(natives[0])
        reasons = [self.dialect.finish_reason(native) for native in natives]
        for reason in ("error", ""):
            if reason in reasons:
                return reason
        return reasons[0]

    def durable(self) -> None:
        exchange = self.exchange
        lane = exchange.lane
        if lane is not None:
            lane.send_whole(200, b"content-type: application/json\r\n" + exchange.head_lines(self), self.rendered)
        exchange.close()


def _outcome(finish_reason: str, has_output: bool) -> Outcome:
    if finish_reason == "content_filter":
        return Outcome.FILTERED
    return Outcome.COMPLETE if has_output else Outcome.EMPTY

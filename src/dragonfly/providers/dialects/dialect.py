"""A dialect: how one family of providers deviates from OpenAI's chat completions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Raw

from dragonfly.core.tokens import TokenUsage
from dragonfly.providers.dialects import events, failures, finish, requests, usage
from dragonfly.providers.dialects.facts import EventFacts, UpstreamFailure
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules
from dragonfly.providers.dialects.usage import USUAL_RULES, UsageReading, UsageRules


@dataclass(frozen=True, slots=True)
class Dialect:
    """Rules as values; each family's file makes one. Nothing a provider says leaves through these methods."""

    name: str
    usage: UsageRules = USUAL_RULES
    failures: FailureRules = field(default_factory=FailureRules)
    requests: RequestRules = field(default_factory=RequestRules)
    hides_output: bool = False
    """May bill output that no event of a stream shows, such as reasoning that is kept back or summarised."""

    def read_usage(self, body: Mapping[str, object]) -> TokenUsage | None:
        """Usage of a chunk or a whole answer, its values decoded or Raw; None when it reports none."""
        reading = usage.read_usage(body, self.usage)
        return reading.usage if reading else None

    def audit_usage(self, body: Mapping[str, object]) -> UsageReading | None:
        """The same, and whether the report contradicts itself: worth the operator's attention."""
        return usage.read_usage(body, self.usage)

    def inspect_event(self, event: bytes) -> EventFacts:
        """The facts of one complete SSE event, given with all its lines."""
        return events.inspect(self.usage, self.failures, event)

    def inspect_answer(self, body: bytes) -> EventFacts:
        """The facts of a whole answer that is not streamed; `obj` is None when it is no JSON object."""
        return events.inspect_json(self.usage, self.failures, body)

    def classify(self, status: int, content_type: bytes, body: bytes) -> UpstreamFailure:
        """Why the provider refused. Also for a 200 whose body holds an error instead of an answer."""
        return failures.classify_body(self.failures, status, content_type, body)

    def failure_in(self, fields: Mapping[str, object]) -> UpstreamFailure | None:
        """The failure that the object of an answer with status 200 holds, in any of the known shapes."""
        return failures.failure_in(self.failures, fields)

    def finish_reason(self, native: str) -> str:
        """stop, length, tool_calls, content_filter or error; "" for none."""
        return finish.normalised(native)

    def prepare(self, fields: dict[str, Raw], streamed: bool) -> None:
        """Change outgoing top-level fields in place: ask for usage, spell the limit, drop what is refused."""
        requests.prepare_fields(self.requests, fields, streamed)

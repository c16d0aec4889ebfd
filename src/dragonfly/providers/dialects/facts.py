"""What a provider's words come down to: closed kinds of failure, and what one event of a stream holds."""

import enum
from typing import NamedTuple

from msgspec import Raw

from dragonfly.core.content import holds_content
from dragonfly.core.tokens import TokenUsage

NATIVE_LENGTH_MAX = 64


class FailureKind(enum.Enum):
    """Why a provider refused or broke off, by what is to be done about it."""

    BAD_KEY = "bad_key"
    """Our credential is refused: take it out of service."""
    NO_BALANCE = "no_balance"
    """Our account has no money: take it out of service, tell the operator; waiting does not help."""
    RATE_LIMITED = "rate_limited"
    """Too much at once: wait a little, or use another credential."""
    QUOTA_USED_UP = "quota_used_up"
    """A day's or a plan's allowance is gone: a long wait."""
    OVERLOADED = "overloaded"
    """The provider's own trouble: retry soon, or elsewhere."""
    BAD_REQUEST = "bad_request"
    """The caller's request is wrong."""
    CONTEXT_TOO_LONG = "context_too_long"
    """The prompt does not fit into the model."""
    CONTENT_REFUSED = "content_refused"
    """The provider's policy refuses the content: never retry."""
    MODEL_UNKNOWN = "model_unknown"
    """The catalogue names a model, or an address, that the provider does not have."""
    TOO_LARGE = "too_large"
    """The request body is larger than the provider takes."""
    OTHER = "other"


class UpstreamFailure(NamedTuple):
    """One refusal or break, without a word of the provider's."""

    kind: FailureKind
    retry_after_s: float | None
    """How long the provider asks to wait; None when it does not say."""
    status: int
    """The HTTP status, or what a mid-stream error names as its status; 200 when it names none."""


@holds_content
class EventFacts(NamedTuple):
    """What one SSE event means to the relay."""

    is_comment: bool = False
    """Nothing but comments or blank lines."""
    done: bool = False
    """The [DONE] marker."""
    finish_reason: str = ""
    """Of the choices that end in this event the worst one: stop, length, tool_calls, content_filter, error."""
    native_finish_reason: str = ""
    """The same in the provider's own word, cut to NATIVE_LENGTH_MAX."""
    usage: TokenUsage | None = None
    error: UpstreamFailure | None = None
    has_output: bool = False
    """Content, reasoning, a tool call or a refusal of at least one byte."""
    output_bytes: int = 0
    """Length of all that, as JSON text without its quotation marks."""
    choices_empty: bool = False
    """`choices` is there, and empty: the extra chunk that carries usage."""
    obj: dict[str, Raw] | None = None
    """The event's JSON object, its values undecoded."""
    finished_choices: tuple[int, ...] = ()
    """Indexes of the choices that end here; providers may repeat one in a later event."""
    usage_contradicts: bool = False
    """The usage does not add up, and was clamped or taken at the customer's favour."""

"""Failures on demand, so that people can see what their program does about them.

Ask for one with the request field `simulate` ("rate_limited") or with a model name ("simulated-rate-limited").
"""

import enum

MODEL_PREFIX = "simulated-"


class Fault(enum.Enum):
    """What goes wrong; the value is what a request writes."""

    BAD_KEY = "bad_key"
    """401, as for a wrong credential of the gateway's."""
    NO_BALANCE = "no_balance"
    """402, as for an account of the gateway's without money."""
    RATE_LIMITED = "rate_limited"
    """429 with Retry-After: 2."""
    OVERLOADED = "overloaded"
    """503."""
    SERVER_ERROR = "server_error"
    """500 with a page of HTML."""
    BAD_REQUEST = "bad_request"
    """400."""
    CONTEXT_TOO_LONG = "context_too_long"
    """400, prompt too long."""
    MODEL_UNKNOWN = "model_unknown"
    """404."""
    CONTENT_FILTER = "content_filter"
    """The answer ends early with finish_reason content_filter."""
    EMPTY = "empty"
    """A finished answer without a word."""
    CUT = "cut"
    """The connection is closed in the middle of the answer, without finish_reason."""
    RESET = "reset"
    """The connection is reset in the middle of the answer."""
    ERROR_MIDWAY = "error_midway"
    """A stream that holds an error instead of its second half."""
    OUT_OF_RESOURCES = "out_of_resources"
    """finish_reason insufficient_system_resource."""
    STALL = "stall"
    """No answer at all; the request is taken and nothing comes."""
    STALL_MIDWAY = "stall_midway"
    """The answer stops coming in the middle."""
    GARBAGE = "garbage"
    """Bytes that are not HTTP."""
    KEEP_ALIVE = "keep_alive"
    """Three comments before the answer, as DeepSeek sends while a request is queued. Not a failure."""
    NO_DONE = "no_done"
    """A whole answer without the [DONE] marker. Not a failure."""


def fault_of(model: str, simulate: object) -> Fault | None:
    """The fault that a request asks for, by its field first; None: nothing shall go wrong."""
    name = simulate if isinstance(simulate, str) else model.removeprefix(MODEL_PREFIX).replace("-", "_")
    try:
        return Fault(name)
    except ValueError:
        return None

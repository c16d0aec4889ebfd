"""Groq: the same usage up to three times; 413 is a prompt that is too long; 424 and 498 mean no capacity."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

_K = FailureKind

GROQ = Dialect(
    "groq",
    failures=FailureRules(
        statuses={413: _K.CONTEXT_TOO_LONG, 424: _K.OVERLOADED, 498: _K.OVERLOADED},
        words=(("tool_use_failed", _K.BAD_REQUEST),),
    ),
    requests=RequestRules(drop=frozenset(("service_tier", "store", "metadata"))),
    hides_output=True,
)

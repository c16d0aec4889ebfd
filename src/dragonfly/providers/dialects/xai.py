"""xAI: reasoning tokens stand outside completion_tokens; a bad key is 400 `{code, error: "text"}`."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules
from dragonfly.providers.dialects.usage import UsageRules

_K = FailureKind

XAI = Dialect(
    "xai",
    usage=UsageRules(reasoning_outside=True),
    failures=FailureRules(
        phrases=(
            ("^incorrect api key", _K.BAD_KEY),
            ("doesn't have any credits", _K.NO_BALANCE),
            ("used all available credits", _K.NO_BALANCE),
            ("spending limit", _K.NO_BALANCE),
        ),
    ),
    requests=RequestRules(drop=frozenset(("service_tier",))),
    hides_output=True,
)

"""Gemini's OpenAI-compatible layer: thinking is only in the total; usage stands in every chunk.

Errors come as an object or as a list of one; a bad key is 400 with the reason API_KEY_INVALID; limits name their
quota, and a day's allowance has PerDay in its name. RetryInfo says how long to wait.
"""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules
from dragonfly.providers.dialects.usage import UsageRules

_K = FailureKind

GEMINI = Dialect(
    "gemini",
    usage=UsageRules(thinking_in_total_only=True),
    failures=FailureRules(
        words=(
            ("*perday*", _K.QUOTA_USED_UP),
            ("permission_denied", _K.BAD_KEY),
            ("deadline_exceeded", _K.OVERLOADED),
        ),
        # Its rate limits say "exceeded your current quota" too.
        phrases=(("per day", _K.QUOTA_USED_UP), ("exceeded your current quota", _K.RATE_LIMITED)),
    ),
    requests=RequestRules(drop=frozenset(("service_tier", "store", "metadata"))),
    hides_output=True,
)

"""OpenRouter: usage on the second of two finish chunks; errors with numeric codes, also beside choices in a stream.

403 is its moderation of the prompt.
"""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

OPENROUTER = Dialect(
    "openrouter",
    failures=FailureRules(statuses={403: FailureKind.CONTENT_REFUSED}),
    requests=RequestRules(drop=frozenset(("service_tier",))),
    hides_output=True,
)

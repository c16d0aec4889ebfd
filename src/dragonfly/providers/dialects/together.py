"""Together: finish_reason twice, cached_tokens at the top level of usage; 403 is prompt plus max_tokens too long."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

TOGETHER = Dialect(
    "together",
    failures=FailureRules(statuses={403: FailureKind.CONTEXT_TOO_LONG}),
    requests=RequestRules(limit_field="max_tokens", drop=frozenset(("service_tier",))),
)

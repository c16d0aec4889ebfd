"""DeepSeek: usage on the finish chunk; bad key and empty account say `invalid_request_error` in `code`."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

DEEPSEEK = Dialect(
    "deepseek",
    failures=FailureRules(phrases=(("content exists risk", FailureKind.CONTENT_REFUSED),)),
    requests=RequestRules(limit_field="max_tokens", drop=frozenset(("service_tier",))),
)

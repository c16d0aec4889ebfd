"""SiliconFlow: flat errors `{code, message, data}` with numbers; a model that is not there is 404 in plain text."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

_K = FailureKind

SILICONFLOW = Dialect(
    "siliconflow",
    failures=FailureRules(words=(("20012", _K.MODEL_UNKNOWN), ("30001", _K.NO_BALANCE), ("30014", _K.BAD_KEY))),
    requests=RequestRules(limit_field="max_tokens", drop=frozenset(("service_tier",))),
)

"""Qwen (Model Studio): an account without money is 400 Arrearage; insufficient_quota may mean tokens per minute."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

_K = FailureKind

QWEN = Dialect(
    "qwen",
    failures=FailureRules(
        words=(
            ("arrearage", _K.NO_BALANCE),
            ("insufficient_quota", _K.RATE_LIMITED),
            ("throttling.allocationquota", _K.RATE_LIMITED),
            ("throttling*", _K.RATE_LIMITED),
            ("allocationquota*", _K.QUOTA_USED_UP),
            ("invalidapikey", _K.BAD_KEY),
            ("accessdenied.unpurchased", _K.MODEL_UNKNOWN),
            ("datainspectionfailed", _K.CONTENT_REFUSED),
            ("*inappropriatecontent*", _K.CONTENT_REFUSED),
        ),
        # Its rate limits say "exceeded your current quota" too.
        phrases=(("exceeded your current quota", _K.RATE_LIMITED),),
    ),
    requests=RequestRules(drop=frozenset(("service_tier",))),
)

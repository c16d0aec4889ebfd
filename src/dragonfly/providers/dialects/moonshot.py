"""Moonshot (Kimi): usage inside choices[0] of the finish chunk, cached_tokens at the top level of usage.

Errors have no code. An empty account is 429 exceeded_current_quota_error (the help centre says 403); a 429 whose
message names TPD means that the day's allowance is gone.
"""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

MOONSHOT = Dialect(
    "moonshot",
    failures=FailureRules(
        phrases=(
            ("suspended due to insufficient balance", FailureKind.NO_BALANCE),
            ("max tpd", FailureKind.QUOTA_USED_UP),
        ),
    ),
    requests=RequestRules(drop=frozenset(("service_tier",))),
)

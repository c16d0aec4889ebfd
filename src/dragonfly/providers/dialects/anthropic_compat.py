"""Anthropic's OpenAI-compatible layer; errors and usage of the Messages API are understood as well.

An empty account is 402 billing_error, 400 with a sentence about the credit balance, or 429 with the detail code
enforced_spend_limit_reached, which waiting does not cure. 529 means overloaded.
"""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

_K = FailureKind

ANTHROPIC_COMPAT = Dialect(
    "anthropic",
    failures=FailureRules(
        statuses={529: _K.OVERLOADED},
        words=(
            ("enforced_spend_limit_reached", _K.NO_BALANCE),
            ("permission_error", _K.BAD_KEY),
            ("request_too_large", _K.TOO_LARGE),
            ("rate_limit_error", _K.RATE_LIMITED),
        ),
        phrases=(("^your credit balance is too low", _K.NO_BALANCE),),
    ),
    requests=RequestRules(drop=frozenset(("service_tier",))),
    hides_output=True,
)

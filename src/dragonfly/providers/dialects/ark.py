"""Ark (Doubao, BytePlus ModelArk): an account without money is 403 AccountOverdueError; risk checks are 400."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

_K = FailureKind

ARK = Dialect(
    "ark",
    failures=FailureRules(
        words=(
            ("accountoverdueerror", _K.NO_BALANCE),
            ("accessdenied", _K.BAD_KEY),
            ("quotaexceeded", _K.QUOTA_USED_UP),
            ("setlimitexceeded", _K.QUOTA_USED_UP),
            ("*ratelimitexceeded*", _K.RATE_LIMITED),
            ("serveroverloaded", _K.OVERLOADED),
        ),
    ),
    requests=RequestRules(drop=frozenset(("service_tier",))),
)

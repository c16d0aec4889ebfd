"""MiniMax: numeric codes, often only in the message or in `base_resp`, under any status; 1008 is an empty account."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

_K = FailureKind
_CODES = (
    ("1000", _K.OVERLOADED),
    ("1001", _K.OVERLOADED),
    ("1002", _K.RATE_LIMITED),
    ("1004", _K.BAD_KEY),
    ("1008", _K.NO_BALANCE),
    ("1013", _K.OVERLOADED),
    ("1026", _K.CONTENT_REFUSED),
    ("1027", _K.CONTENT_REFUSED),
    ("1039", _K.RATE_LIMITED),
    ("2013", _K.BAD_REQUEST),
    ("2049", _K.BAD_KEY),
)

MINIMAX = Dialect(
    "minimax",
    failures=FailureRules(
        words=(*_CODES, ("insufficient_balance_error", _K.NO_BALANCE), ("authorized_error", _K.BAD_KEY)),
        phrases=tuple((f"({code})", kind) for code, kind in _CODES),
    ),
    requests=RequestRules(drop=frozenset(("service_tier",))),
)

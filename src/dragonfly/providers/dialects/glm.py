"""GLM (Z.ai, BigModel): numeric codes as text, nested or flat; an empty account is 429 with code 1113.

Source of the codes: docs.z.ai/api-reference/api-code and docs.bigmodel.cn/cn/api/api-code.
"""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.facts import FailureKind
from dragonfly.providers.dialects.failures import FailureRules
from dragonfly.providers.dialects.requests import RequestRules

_K = FailureKind

GLM = Dialect(
    "glm",
    failures=FailureRules(
        words=(
            ("1000", _K.BAD_KEY),
            ("1001", _K.BAD_KEY),
            ("1002", _K.BAD_KEY),
            ("1003", _K.BAD_KEY),
            ("1004", _K.BAD_KEY),
            ("1110", _K.BAD_KEY),
            ("1111", _K.BAD_KEY),
            ("1112", _K.BAD_KEY),
            ("1113", _K.NO_BALANCE),
            ("1120", _K.OVERLOADED),
            ("1121", _K.BAD_KEY),
            ("1211", _K.MODEL_UNKNOWN),
            ("121[02345]", _K.BAD_REQUEST),
            ("1220", _K.BAD_KEY),
            ("122[12]", _K.MODEL_UNKNOWN),
            ("1230", _K.OVERLOADED),
            ("1234", _K.OVERLOADED),
            ("1261", _K.CONTEXT_TOO_LONG),
            ("1301", _K.CONTENT_REFUSED),
            ("130[23]", _K.RATE_LIMITED),
            ("1304", _K.QUOTA_USED_UP),
            ("1305", _K.OVERLOADED),
            ("1312", _K.OVERLOADED),
            ("130[89]", _K.QUOTA_USED_UP),
            ("131?", _K.QUOTA_USED_UP),
            ("132[01]", _K.QUOTA_USED_UP),
        ),
    ),
    requests=RequestRules(limit_field="max_tokens", drop=frozenset(("service_tier",))),
)

"""StepFun: OpenAI's shapes without codes; content refusals are 451, an empty account 402."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.requests import RequestRules

STEPFUN = Dialect("stepfun", requests=RequestRules(limit_field="max_tokens", drop=frozenset(("service_tier",))))

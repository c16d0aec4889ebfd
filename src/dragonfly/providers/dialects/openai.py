"""OpenAI, Azure and everything that follows them to the letter.

An account without money answers 429 with the code insufficient_quota. `service_tier` is dropped: flex and
priority change what we are charged, and the catalogue prices the default.
"""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.requests import RequestRules

OPENAI = Dialect("openai", requests=RequestRules(drop=frozenset(("service_tier",))), hides_output=True)

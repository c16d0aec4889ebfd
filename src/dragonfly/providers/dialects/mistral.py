"""Mistral: unknown fields are refused with 422, stream_options and max_completion_tokens among them; usage comes
unasked on the finish chunk. Audio prompt tokens are in the total only."""

from dragonfly.providers.dialects.dialect import Dialect
from dragonfly.providers.dialects.requests import RequestRules
from dragonfly.providers.dialects.usage import UsageRules

MISTRAL = Dialect(
    "mistral",
    usage=UsageRules(audio_outside=True),
    requests=RequestRules(
        limit_field="max_tokens",
        stream_options=False,
        drop=frozenset(("service_tier", "store", "user", "metadata", "prompt_cache_key", "safety_identifier")),
    ),
)

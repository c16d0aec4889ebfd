"""What one request consumed, in tokens, in the one form that every provider's report is brought into."""

import enum
from typing import NamedTuple


class Basis(enum.Enum):
    """Where a count comes from; kept with every charge."""

    UPSTREAM = "upstream"
    COUNTED = "counted"
    ESTIMATED = "estimated"
    NONE = "none"


class TokenUsage(NamedTuple):
    """Token counts of one request. All are >= 0.

    `prompt_tokens` includes `cached_tokens` (read from the provider's cache) and `cache_write_tokens`;
    `completion_tokens` includes `reasoning_tokens`. Adapters convert providers that count otherwise.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    basis: Basis = Basis.UPSTREAM
    cache_write_1h_tokens: int = 0
    """The part of `cache_write_tokens` that the provider keeps for an hour, where it reports it apart."""


NO_TOKENS = TokenUsage(0, 0, basis=Basis.NONE)

"""The usage report as nearly all providers send it, read in one pass.

Anything out of the ordinary (other fields with counts, contradictions, odd types) gives None, and then the
careful reading of `usage` decides. This one costs 1 µs, the careful one 12 µs, for each request.
"""

import msgspec
from msgspec import Raw, Struct

from dragonfly.core.content import holds_content
from dragonfly.core.tokens import TokenUsage

COUNT_MAX = 1_000_000_000
"""A count above this is nonsense; it is cut, and the report marked as contradictory."""


@holds_content
class _PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_tokens: Raw | None = None
    cache_creation_input_tokens: Raw | None = None
    cache_creation: Raw | None = None
    audio_tokens: int | None = None


@holds_content
class _CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | None = None
    thinking_tokens: Raw | None = None


@holds_content
class _Report(Struct, gc=False):
    """Counts of the usual names; the last group holds what makes a report unusual."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    prompt_cache_miss_tokens: int | None = None
    cached_tokens: int | None = None

    input_tokens_details: Raw | None = None
    output_tokens_details: Raw | None = None
    reasoning_tokens: Raw | None = None
    cache_read_input_tokens: Raw | None = None
    cache_creation_input_tokens: Raw | None = None
    cache_write_tokens: Raw | None = None
    cache_creation: Raw | None = None
    prompt_audio_seconds: Raw | None = None


_decode = msgspec.json.Decoder(_Report).decode


def read_usual(report: Raw) -> TokenUsage | None:
    """The counts of a report without surprises; None for every other."""
    try:
        found = _decode(report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if (
        found.input_tokens_details is not None
        or found.output_tokens_details is not None
        or found.reasoning_tokens is not None
        or found.cache_read_input_tokens is not None
        or found.cache_creation_input_tokens is not None
        or found.cache_write_tokens is not None
        or found.cache_creation is not None
        or found.prompt_audio_seconds is not None
    ):
        return None
    prompt, completion = found.prompt_tokens, found.completion_tokens
    if prompt < 0 or completion < 0 or found.total_tokens != prompt + completion or found.total_tokens > COUNT_MAX:
        return None
    cached = _cached(found)
    reasoning = _reasoning(found.completion_tokens_details)
    if not (0 <= cached <= prompt and 0 <= reasoning <= completion):
        return None
    return TokenUsage(prompt, completion, cached, 0, reasoning)


def _cached(found: _Report) -> int:
    """Tokens read from the cache; -1 where the places disagree or anything else was written or heard."""
    cached = found.cached_tokens
    details = found.prompt_tokens_details
    if details is not None:
        if (
            details.cache_write_tokens
            or details.audio_tokens
            or details.cache_creation_tokens is not None
            or details.cache_creation_input_tokens is not None
            or details.cache_creation is not None
        ):
            return -1
        if details.cached_tokens is not None:
            if cached is not None and cached != details.cached_tokens:
                return -1
            cached = details.cached_tokens
    hit, miss = found.prompt_cache_hit_tokens, found.prompt_cache_miss_tokens
    if hit is not None:
        if (cached is not None and cached != hit) or (miss is not None and hit + miss != found.prompt_tokens):
            return -1
        cached = hit
    return cached or 0


def _reasoning(details: _CompletionDetails | None) -> int:
    if details is None:
        return 0
    return -1 if details.thinking_tokens is not None else details.reasoning_tokens or 0

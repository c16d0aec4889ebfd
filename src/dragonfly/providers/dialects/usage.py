"""Token counts out of every place and spelling in which providers report them.

The rules come from the providers' documents and from recorded traffic. Within one body the first position that
holds usage wins; over a stream the caller keeps the last, and never adds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from msgspec import Raw

from dragonfly.core.tokens import TokenUsage
from dragonfly.providers.dialects.usual import COUNT_MAX, read_usual

CHOICES_READ_MAX = 128
_NULL = Raw(b"null")
_decode_choices = msgspec.json.Decoder(list[dict[str, Raw]]).decode


class UsageReading(NamedTuple):
    """A report, and whether it contradicts itself."""

    usage: TokenUsage
    contradicts: bool


@dataclass(frozen=True, slots=True)
class UsageRules:
    """How one family deviates from "reasoning inside completion, cached inside prompt"."""

    reasoning_outside: bool = False
    """xAI: completion_tokens do not hold the reasoning tokens."""
    thinking_in_total_only: bool = False
    """Gemini: thinking is total - prompt - completion, and billed as output."""
    audio_outside: bool = False
    """Mistral: audio prompt tokens are in the total, not in prompt_tokens."""


USUAL_RULES = UsageRules()
"""No deviation."""

Report = Mapping[str, object]


def read_usage(body: Mapping[str, object], rules: UsageRules) -> UsageReading | None:
    """The report of a chunk or a whole answer; None when it holds none."""
    if rules is USUAL_RULES:
        raw = body.get("usage")
        usual = read_usual(raw) if isinstance(raw, Raw) and raw != _NULL else None
        if usual is not None:
            return UsageReading(usual, False)
    report = find_report(body)
    return read_report(report, rules) if report is not None else None


def find_report(body: Mapping[str, object]) -> Report | None:
    """The first non-null usage object: top level, x_groq, a choice, a Responses or a Messages envelope."""
    report = _mapping(body.get("usage"))
    if report is not None:
        return report
    for envelope in ("x_groq", "response", "message"):
        inner = _mapping(body.get(envelope))
        report = _mapping(inner.get("usage")) if inner is not None else None
        if report is not None:
            return report
    return _report_of_choices(body.get("choices"))


def _report_of_choices(choices: object) -> Report | None:
    """Moonshot: `choices[0].usage`."""
    listed = _choices(choices)
    for choice in listed[:CHOICES_READ_MAX]:
        inner = _mapping(choice)
        report = _mapping(inner.get("usage")) if inner is not None else None
        if report is not None:
            return report
    return None


def _choices(choices: object) -> list[object]:
    """The choices, what is in them still undecoded: the answer itself is nobody's business here."""
    if not isinstance(choices, Raw):
        return choices if isinstance(choices, list) else []
    try:
        return list(_decode_choices(choices))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []


def read_report(report: Report, rules: UsageRules) -> UsageReading | None:
    """Counts in our one form; None when the object holds no counts at all."""
    counts = _Counts(report)
    if counts.prompt is None and counts.completion is None:
        return None
    prompt, completion, reasoning = counts.prompt or 0, counts.completion or 0, counts.reasoning
    contradicts = counts.is_odd or counts.prompt is None
    total = counts.total
    if total is not None:
        hidden = total - prompt - completion
        if rules.thinking_in_total_only and hidden > 0:
            completion, reasoning = completion + hidden, max(reasoning, hidden)
        elif rules.audio_outside and hidden > 0 and counts.has_audio:
            prompt += hidden
        elif counts.completion is None and hidden > 0:
            completion += hidden
    if rules.reasoning_outside and total != prompt + completion:
        completion += reasoning
    # A separate total is a check, not a source: a customer must not pay for tokens that only the total knows.
    contradicts |= total is not None and total != prompt + completion
    return _within_bounds(counts, prompt, completion, reasoning, contradicts)


def _within_bounds(
    counts: "_Counts", prompt: int, completion: int, reasoning: int, contradicts: bool
) -> UsageReading:
    """Parts are never larger than their whole (OpenRouter once reported 11 reasoning of 10 completion tokens)."""
    contradicts |= max(prompt, completion) > COUNT_MAX
    prompt, completion = min(prompt, COUNT_MAX), min(completion, COUNT_MAX)
    cached = min(counts.cached, prompt)
    write = min(counts.cache_write, prompt - cached)
    write_1h = min(counts.cache_write_1h, write)
    inner_reasoning = min(reasoning, completion)
    contradicts |= (
        cached != counts.cached
        or write != counts.cache_write
        or write_1h != counts.cache_write_1h
        or inner_reasoning != reasoning
    )
    usage = TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=write,
        reasoning_tokens=inner_reasoning,
        cache_write_1h_tokens=write_1h,
    )
    return UsageReading(usage, contradicts)


class _Counts:
    """The numbers of one report, by meaning. Where two spellings disagree, the one that is cheaper for the
    customer holds (most read from the cache, least written and least reasoned), and the report is odd."""

    __slots__ = (
        "_is_odd",
        "cache_write",
        "cache_write_1h",
        "cached",
        "completion",
        "has_audio",
        "prompt",
        "reasoning",
        "total",
    )

    def __init__(self, report: Report) -> None:
        self._is_odd = False
        prompt_details = _first_mapping(report, "prompt_tokens_details", "input_tokens_details")
        completion_details = _first_mapping(report, "completion_tokens_details", "output_tokens_details")
        creation = _first_mapping(report, "cache_creation") or _first_mapping(prompt_details, "cache_creation")
        self.total = self._count(report, "total_tokens")
        self.completion = self._count(report, "completion_tokens", "output_tokens")
        self.reasoning = self._agreed(
            min,
            (completion_details, "reasoning_tokens"),
            (completion_details, "thinking_tokens"),
            (report, "reasoning_tokens"),
        )
        self.cached = self._agreed(
            max,
            (report, "prompt_cache_hit_tokens"),
            (report, "cached_tokens"),
            (prompt_details, "cached_tokens"),
            (report, "cache_read_input_tokens"),
        )
        self.cache_write = self._agreed(
            min,
            (prompt_details, "cache_write_tokens"),
            (prompt_details, "cache_creation_tokens"),
            (prompt_details, "cache_creation_input_tokens"),
            (report, "cache_creation_input_tokens"),
            (report, "cache_write_tokens"),
        )
        self.cache_write_1h = self._count(creation, "ephemeral_1h_input_tokens") or 0
        self.has_audio = bool(
            self._count(report, "prompt_audio_seconds") or self._count(prompt_details, "audio_tokens")
        )
        self.prompt = self._prompt(report)

    @property
    def is_odd(self) -> bool:
        return self._is_odd

    def _prompt(self, report: Report) -> int | None:
        prompt = self._count(report, "prompt_tokens")
        hit, miss = self._count(report, "prompt_cache_hit_tokens"), self._count(report, "prompt_cache_miss_tokens")
        if prompt is None and hit is not None and miss is not None:
            return hit + miss
        if prompt is None:
            prompt = self._count(report, "input_tokens")
            if prompt is not None and (
                "cache_read_input_tokens" in report or "cache_creation_input_tokens" in report
            ):
                # Messages API: what was read from and written to the cache stands outside input_tokens.
                return prompt + self.cached + self.cache_write
        if prompt is not None and hit is not None and miss is not None and hit + miss != prompt:
            self._is_odd = True
        return prompt

    def _count(self, report: Report | None, *names: str) -> int | None:
        """The first of the names that holds a number."""
        if report is None:
            return None
        for name in names:
            value = plain(report.get(name))
            if value is None:
                continue
            if isinstance(value, float) and value.is_integer() and abs(value) <= COUNT_MAX:
                value = int(value)
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
            self._is_odd = True
        return None

    def _agreed(self, choose: Callable[[list[int]], int], *places: tuple[Report | None, str]) -> int:
        found = [count for report, name in places if (count := self._count(report, name)) is not None]
        if not found:
            return 0
        self._is_odd |= min(found) != max(found)
        return choose(found)


def plain(value: object) -> object:
    """A decoded value, also of a Raw one; None for what is no JSON."""
    if not isinstance(value, Raw):
        return value
    if value == _NULL:
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _mapping(value: object) -> Mapping[str, object] | None:
    decoded = plain(value)
    return decoded if isinstance(decoded, dict) else None


def _first_mapping(report: Report | None, *names: str) -> Mapping[str, object] | None:
    if report is None:
        return None
    return next((found for name in names if (found := _mapping(report.get(name))) is not None), None)

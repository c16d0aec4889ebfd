"""Every transcript of ours, and every recording where there are some: usage, finish reasons, output, failures."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dragonfly.core.tokens import TokenUsage
from dragonfly.providers.channel import ChannelTimeouts
from dragonfly.providers.connection import Connection
from dragonfly.providers.dialects import DIALECTS, EventFacts, dialect, plain_events
from dragonfly.providers.dialects.finish import worst
from tests.fakes.calls import Collector
from tests.fakes.lines import Shelf, StillTransport
from tests.fakes.upstream import chunk

ROOT = Path(__file__).resolve().parents[2]
OURS = ROOT / "tests" / "transcripts"
RECORDINGS = ROOT.parent / "shared" / "recordings"
INDEX: list[dict[str, Any]] = json.loads((OURS / "index.json").read_text())
SPLIT_EVERY_BYTE_MAX = 4_000
STRIDE = 97


@dataclass
class Summary:
    """What a relay would keep of a stream."""

    usage: TokenUsage | None = None
    reasons: list[str] = field(default_factory=list)
    natives: list[str] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    output: str = ""
    has_output: bool = False
    comments: int = 0
    empty_choices: int = 0
    done: bool = False
    contradicts: bool = False
    errors: list[EventFacts] = field(default_factory=list)


def events_of(data: bytes) -> list[bytes]:
    """Events with their blank line; the last may have none."""
    parts = re.split(rb"((?:\r\n|\n|\r(?!\n)){2,})", data)
    pairs = zip(parts[::2], [*parts[1::2], b""], strict=True)
    return [event + blank for event, blank in pairs if event]


def summary_of(name: str, data: bytes) -> Summary:
    summary = Summary()
    for event in events_of(data):
        facts = dialect(name).inspect_event(event)
        summary.usage = facts.usage or summary.usage
        summary.contradicts |= facts.usage_contradicts
        if facts.finish_reason:
            summary.reasons.append(facts.finish_reason)
            summary.natives.append(facts.native_finish_reason)
            summary.finished.extend(facts.finished_choices)
        summary.comments += facts.is_comment
        summary.empty_choices += facts.choices_empty
        summary.done |= facts.done
        summary.has_output |= facts.has_output
        summary.output += content_of(facts)
        if facts.error is not None:
            summary.errors.append(facts)
    return summary


def content_of(facts: EventFacts) -> str:
    choices = json.loads(bytes(facts.obj["choices"])) if facts.obj and "choices" in facts.obj else None
    deltas = [choice.get("delta") or choice.get("message") or {} for choice in choices or []]
    return "".join(delta["content"] for delta in deltas if isinstance(delta.get("content"), str))


def usage_of(numbers: dict[str, int] | None) -> TokenUsage | None:
    return TokenUsage(**numbers) if numbers is not None else None


@pytest.mark.parametrize("expected", INDEX, ids=lambda one: one["file"])
def test_a_transcript_is_understood_as_its_index_says(expected: dict[str, Any]) -> None:
    data = (OURS / expected["file"]).read_bytes()
    summary = summary_of(expected["dialect"], data)
    assert summary.usage == usage_of(expected["usage"])
    assert worst(summary.reasons) == expected["finish_reason"]
    if expected["finish_reason"]:
        assert expected["native_finish_reason"] in summary.natives
    repeated = expected.get("output_repeats")
    assert summary.output == (repeated[0] * repeated[1] if repeated else expected["output"])
    assert summary.comments == expected["comments"]
    assert summary.empty_choices == expected.get("empty_choices", 0)
    assert summary.done == expected["done"]
    assert summary.contradicts == expected["contradicts"]
    kinds = {facts.error.kind.value for facts in summary.errors if facts.error}
    assert kinds == ({expected["error"]} if expected["error"] else set())
    if "error_status" in expected:
        assert expected["error_status"] in {facts.error.status for facts in summary.errors if facts.error}
    if "finished" in expected:
        assert summary.finished == expected["finished"]


def test_an_event_whose_data_stands_in_several_lines_is_one_object() -> None:
    event = (
        b'id: 7\nretry: 10\nevent: message\ndata: {"choices":[{"index":0,"delta":{"content":"x"},\n'
        b'data: "finish_reason":"stop"}],\ndata:"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    )
    facts = dialect("openai").inspect_event(event)
    assert (facts.finish_reason, facts.usage, facts.has_output) == ("stop", TokenUsage(3, 1), True)
    assert not plain_events(event)


def test_every_transcript_stands_in_the_index_and_every_dialect_has_one() -> None:
    assert {one["file"] for one in INDEX} == {path.name for path in OURS.glob("*.sse")}
    assert {one["dialect"] for one in INDEX} == set(DIALECTS)


def test_every_constructed_moonshot_transcript_says_so() -> None:
    of_moonshot = [one for one in INDEX if one["dialect"] == "moonshot"]
    assert of_moonshot
    assert all(one["shows"].startswith("CONSTRUCTED") for one in of_moonshot)


def streams() -> list[Path]:
    return [*sorted(OURS.glob("*.sse")), *sorted(RECORDINGS.rglob("*.sse"))]


@pytest.mark.parametrize("path", streams(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_stream_split_at_every_byte_passes_the_connection_unchanged(path: Path) -> None:
    data = path.read_bytes()
    pieces = b"".join(chunk(event) for event in events_of(data))
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + chunk(b"")
    stride = 1 if len(answer) <= SPLIT_EVERY_BYTE_MAX else STRIDE
    expected = b"".join(events_of(data))
    for position in range(1, len(answer), stride):
        transport = StillTransport()
        connection = Connection(Shelf(), ChannelTimeouts(), 0.0)
        connection.connection_made(transport)
        collector = Collector()
        connection.send(collector, b"POST / HTTP/1.1\r\n\r\n")
        connection.data_received(answer[:position])
        connection.data_received(answer[position:])
        assert collector.end == "end"
        assert collector.body == expected


@pytest.mark.parametrize("path", streams(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_called_plain_holds_nothing_for_any_dialect(path: Path) -> None:
    plain = 0
    for event in events_of(path.read_bytes()):
        if plain_events(event):
            plain += 1
            for one in DIALECTS.values():
                facts = one.inspect_event(event)
                assert facts._replace(has_output=False, output_bytes=0, obj=None, choices_empty=False) == EventFacts()
    if path.name.startswith("deepseek-text"):
        assert plain == 7, "ordinary chunks must take the short way"


RECORDED_USAGE = {
    "deepseek/chat-json-mode.json": TokenUsage(44, 9),
    "deepseek/chat-reasoning-stream-r1-2025.sse": TokenUsage(6, 212, reasoning_tokens=198),
    "deepseek/chat-text-stream.sse": TokenUsage(11, 8),
    "deepseek/chat-text.json": TokenUsage(11, 8),
    "deepseek/chat-thinking-high.json": TokenUsage(97, 17, reasoning_tokens=15),
    "deepseek/chat-tool-stream-1-call.sse": TokenUsage(348, 65),
    "deepseek/chat-tool-stream-2-answer.sse": TokenUsage(451, 21, cached_tokens=384),
    "deepseek/responses-stream.sse": TokenUsage(95, 14, reasoning_tokens=12),
    "deepseek/responses-text.json": TokenUsage(95, 17, reasoning_tokens=15),
    "openai/responses-text-stream.sse": TokenUsage(14, 8),
    "openrouter/claude-text-stream.sse": TokenUsage(15, 9),
    "anthropic/text-stream.sse": TokenUsage(15, 9),
    "anthropic/thinking-stream.sse": TokenUsage(80, 638, reasoning_tokens=353),
}
"""Read from the recordings by hand."""

RECORDED_FAILURES = {
    "anthropic/error-400-context.json": "context_too_long",
    "anthropic/error-401.json": "bad_key",
    "deepseek/error-400-context.json": "context_too_long",
    "deepseek/error-401-bad-key.json": "bad_key",
    "deepseek/responses-error-400.json": "bad_request",
    "openai/error-401-bad-key.json": "bad_key",
    "openai/error-404-model.json": "model_unknown",
    "openrouter/error-400-context.json": "context_too_long",
    "openrouter/error-429.json": "rate_limited",
}

recorded = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not here")


@recorded
def test_every_recording_is_accounted_for() -> None:
    transcribed = {"transcribed-errors.json", "moonshot/transcribed-final-chunks.json"}
    files = {one["file"] for one in json.loads((RECORDINGS / "index.json").read_text())}
    assert files == set(RECORDED_USAGE) | set(RECORDED_FAILURES) | transcribed


@recorded
@pytest.mark.parametrize("name", RECORDED_USAGE)
def test_the_usage_of_a_recording_is_read_exactly(name: str) -> None:
    data = (RECORDINGS / name).read_bytes()
    family = name.partition("/")[0]
    if name.endswith(".sse"):
        summary = summary_of(family, data)
        assert (summary.usage, summary.contradicts, summary.errors) == (RECORDED_USAGE[name], False, [])
        if "chat" in name or "openrouter" in name:
            assert summary.done
            assert summary.has_output
            assert worst(summary.reasons) == ("tool_calls" if "1-call" in name else "stop")
    else:
        facts = dialect(family).inspect_answer(b"\n\n" + data)
        assert (facts.usage, facts.usage_contradicts, facts.error) == (RECORDED_USAGE[name], False, None)


@recorded
@pytest.mark.parametrize("name", RECORDED_FAILURES)
def test_the_failure_of_a_recording_is_classified(name: str) -> None:
    entry = next(one for one in json.loads((RECORDINGS / "index.json").read_text()) if one["file"] == name)
    content_type = entry["headers"]["content-type"].encode()
    body = (RECORDINGS / name).read_bytes()
    failure = dialect(name.partition("/")[0]).classify(entry["status"], content_type, body)
    assert (failure.kind.value, failure.status) == (RECORDED_FAILURES[name], entry["status"])


@recorded
def test_the_transcribed_moonshot_chunks_give_their_usage() -> None:
    chunks = json.loads((RECORDINGS / "moonshot/transcribed-final-chunks.json").read_text())["chunks"]
    facts = [dialect("moonshot").inspect_event(b"data: " + json.dumps(one["chunk"]).encode()) for one in chunks]
    assert [one.usage for one in facts] == [
        TokenUsage(8, 11, cached_tokens=8),
        TokenUsage(1336, 31, cached_tokens=1280),
        TokenUsage(39, 211),
    ]
    assert [one.finish_reason for one in facts] == ["stop"] * 3


@recorded
def test_the_transcribed_errors_are_classified() -> None:
    kinds = []
    for one in json.loads((RECORDINGS / "transcribed-errors.json").read_text())["errors"]:
        family = {"zai": "glm"}.get(one["provider"], one["provider"])
        failure = dialect(family).classify(one["status"], b"application/json", json.dumps(one["body"]).encode())
        kinds.append((family, failure.kind.value, failure.retry_after_s))
    assert kinds == [
        ("deepseek", "no_balance", None),
        ("moonshot", "rate_limited", 1.0),
        ("moonshot", "rate_limited", 1.0),
        ("moonshot", "overloaded", None),
        ("moonshot", "no_balance", None),
        ("moonshot", "context_too_long", None),
        ("moonshot", "bad_request", None),
        ("glm", "rate_limited", None),
        ("glm", "no_balance", None),
        ("minimax", "no_balance", None),
        ("siliconflow", "bad_key", None),
        ("stepfun", "bad_key", None),
    ]

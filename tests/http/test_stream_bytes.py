"""Streams leave as they came: every transcript, every recording, split at every position."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly.core.outcomes import Outcome
from tests.http.desk import Desk

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = ROOT.parent / "shared" / "recordings"
DONE = b"data: [DONE]\n\n"
SHORT_BYTES = 12_000
"""Up to this length a stream is split at every single position."""


def chat_streams() -> list[Path]:
    """Our transcripts, and the recordings where they are present, of complete chat completion streams."""
    ours = sorted((ROOT / "tests" / "transcripts").rglob("*.sse"))
    recorded = [path for path in sorted(RECORDINGS.rglob("*.sse")) if is_recorded_chat(path)]
    return [path for path in ours if is_complete_chat(path.read_bytes())] + recorded


def is_recorded_chat(path: Path) -> bool:
    return path.parent.name != "anthropic" and "responses" not in path.name


def is_complete_chat(data: bytes) -> bool:
    """Finished in order: has a finish reason that is no failure, and no error."""
    reasons = [
        choice.get("finish_reason")
        for value in values(data)
        if isinstance(value, dict)
        for choice in value.get("choices") or []
    ]
    failures = {"error", "insufficient_system_resource", "network_error"}
    has_error = b'"error"' in data or b"event: error" in data or b"\nerror:" in data or data.startswith(b"error:")
    return any(reasons) and not failures.intersection(reasons) and not has_error


def values(data: bytes) -> list[object]:
    """The JSON values of all data lines."""
    found: list[object] = []
    for line in data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        text = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and text != b"[DONE]":
            found.append(json.loads(text))
    return found


OURS = {row["file"]: row["dialect"] for row in json.loads((ROOT / "tests/transcripts/index.json").read_text())}
UNPAID = {
    "empty-answer.sse": Outcome.EMPTY,
    "gemini-no-completion.sse": Outcome.EMPTY,
    "glm-sensitive.sse": Outcome.FILTERED,
}
"""Transcripts of answers that end in order and are free all the same."""


def dialect_of(path: Path) -> str:
    if path.parent.name == "transcripts":
        return str(OURS[path.name])
    return {"openrouter": "openrouter", "deepseek": "deepseek"}.get(path.parent.name, "openai")


def is_extra(value: object) -> bool:
    """The chunk that only a client that asked for usage gets."""
    return isinstance(value, dict) and not value.get("choices") and bool(value.get("usage"))


STREAMS = chat_streams()
named = pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}/{path.name}")


@named
def test_a_client_that_did_not_ask_for_usage_gets_the_same_bytes(path: Path) -> None:
    data = path.read_bytes()
    got = Desk(dialect=dialect_of(path)).play(data)
    if any(is_extra(value) for value in values(data)):
        assert [value for value in values(data) if not is_extra(value)] == values(got)
    elif b"[DONE]" in data:
        assert got.rstrip(b"\r\n") == data.rstrip(b"\r\n")
    else:
        assert got == data.rstrip(b"\r\n") + b"\n\n" + DONE or got == data + DONE
    assert got.count(b"[DONE]") == 1


@named
def test_a_client_that_asked_gets_the_same_bytes_but_for_the_last_chunk_which_holds_the_cost(path: Path) -> None:
    data = path.read_bytes()
    desk = Desk(dialect=dialect_of(path), stream_options={"include_usage": True})
    got = desk.play(data)
    (settlement,) = desk.purse.settlements
    assert settlement.outcome is UNPAID.get(path.name, Outcome.COMPLETE)
    costed = [value for value in values(got) if isinstance(value, dict) and "cost" in (value.get("usage") or {})]
    assert len(costed) == 1
    (last,) = costed
    assert last["model"] == "deepseek/deepseek-flash"
    assert last["usage"]["prompt_tokens"] == settlement.usage.prompt_tokens
    assert last["usage"]["completion_tokens"] == settlement.usage.completion_tokens
    assert float(last["usage"]["cost"]) == last["usage"]["cost_usd"] == settlement.charge.cost_nusd / 1e9
    head = data.split(b"\n\n")[:-4]
    assert got.startswith(b"\n\n".join(head)), "everything before the tail is untouched"


@named
def test_no_split_changes_what_the_client_gets(path: Path) -> None:
    data = path.read_bytes()
    dialect = dialect_of(path)
    expected = Desk(dialect=dialect).play(data)
    step = 1 if len(data) <= SHORT_BYTES else len(data) // 500
    for position in range(1, len(data), step):
        assert Desk(dialect=dialect).play(data[:position], data[position:]) == expected, position
    assert Desk(dialect=dialect).play(*(bytes((byte,)) for byte in data)) == expected


@given(choice=st.integers(min_value=0), cuts=st.lists(st.integers(min_value=0), max_size=40))
def test_no_way_of_splitting_changes_what_the_client_gets(choice: int, cuts: list[int]) -> None:
    path = STREAMS[choice % len(STREAMS)]
    data = path.read_bytes()
    positions = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    pieces = [data[start:end] for start, end in itertools.pairwise(positions)]
    dialect = dialect_of(path)
    assert Desk(dialect=dialect).play(*pieces) == Desk(dialect=dialect).play(data)


@named
def test_a_stream_cut_at_any_byte_ends_in_an_error_or_complete_and_is_charged_accordingly(path: Path) -> None:
    data = path.read_bytes()
    step = max(1, len(data) // 400)
    for position in range(0, len(data), step):
        desk = Desk(dialect=dialect_of(path))
        got = desk.play(data[:position])
        (settlement,) = desk.purse.settlements
        if not desk.lane.head:
            assert desk.lane.whole is not None
            assert desk.lane.whole[0] == 502, "nothing had been sent: a plain error"
            assert settlement.outcome is Outcome.UPSTREAM_ERROR
            continue
        if settlement.outcome is Outcome.COMPLETE:
            assert settlement.charge.cost_nusd > 0
            assert b'"error"' not in got
        else:
            assert settlement.outcome in (Outcome.UPSTREAM_BROKE, Outcome.EMPTY, Outcome.FILTERED)
            assert settlement.charge.cost_nusd == 0
            assert settlement.outcome is not Outcome.UPSTREAM_BROKE or b'"finish_reason":"stop"' not in got
        assert got.endswith(DONE) or got.rstrip(b" \r\n").endswith(b"[DONE]")
        assert desk.lane.ended

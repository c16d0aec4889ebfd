"""The bytes that the mock upstream sends, rendered once per mode.

Every content chunk carries the text `tokNNNNNN:SSSSSSSSSSSSSSSSSSS ` (number of the chunk, then the
monotonic nanosecond at which the mock wrote it), so that the reader can prove order and completeness and
can tell how long each chunk was on its way, whatever the gateway rewrites around it.
"""

import json
from dataclasses import dataclass

from bench.modes import Fault, Kind, Mode

CREATED_S = 1_700_000_000
ANSWER_ID = "chatcmpl-bench0000000000000000000000"
PROMPT_TOKENS = 25
STAMP_DIGITS = 19
TOKEN_MARK = b"tok"
LAST_CHUNK = b"0\r\n\r\n"
DONE_EVENT = b"data: [DONE]\n\n"
CUT_CHUNKS = 8

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_REASONS = {200: "OK", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway"}


def framed(data: bytes) -> bytes:
    """`data` as one chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, content_type: str, body: bytes, extra: str = "") -> bytes:
    """A complete answer with Content-Length."""
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {content_type}\r\n{extra}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def usage(completion_tokens: int) -> dict[str, object]:
    """The usage object of an answer."""
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion_tokens,
        "total_tokens": PROMPT_TOKENS + completion_tokens,
    }


def json_body(model: str, answer_bytes: int) -> bytes:
    """A chat completion of about `answer_bytes` bytes (never below the smallest one that is complete)."""

    def render(content: str) -> bytes:
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        fields = {"id": "bench", "object": "chat.completion", "created": 1_700_000, "model": model}
        return _compact({**fields, "choices": [choice], "usage": usage(8)})

    empty = render("")
    text = "A plain answer, said in plain words. " * (answer_bytes // 37 + 1)
    return render(text[: max(2, answer_bytes - len(empty))])


def _event(model: str, choices: list[dict[str, object]], extra: dict[str, object]) -> bytes:
    fields: dict[str, object] = {
        "id": ANSWER_ID,
        "object": "chat.completion.chunk",
        "created": CREATED_S,
        "model": model,
        "choices": choices,
    }
    return b"data: " + _compact({**fields, **extra}) + b"\n\n"


def _choice(delta: dict[str, object], finish_reason: str | None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """The parts of a streamed answer, already in chunked framing.

    `before + number and stamp + after` is a content chunk; `opening` precedes the first, `ending` follows
    the last and closes the body.
    """

    opening: bytes
    before: bytes
    after: bytes
    ending: bytes

    def chunk(self, number: int, stamp_ns: int) -> bytes:
        """Content chunk `number` (from 0), stamped."""
        return b"%b%06d:%019d%b" % (self.before, number, stamp_ns, self.after)


def stream_answer(mode: Mode) -> StreamAnswer:
    """Render the stream of a mode."""
    assert mode.is_stream
    model = mode.name
    opening = _event(model, [_choice({"role": "assistant", "content": ""}, None)], {})
    blank = b"0" * 6 + b":" + b"0" * STAMP_DIGITS
    text = (TOKEN_MARK + blank + b" ").decode()
    before, after = framed(_event(model, [_choice({"content": text}, None)], {})).split(blank)
    finish = _choice({"content": ""}, "stop")
    if mode.kind is Kind.SSE:
        events = [_event(model, [finish], {"usage": usage(mode.chunks)})]
    else:
        events = [_event(model, [finish], {}), _event(model, [], {"usage": usage(mode.chunks)})]
    ending = b"".join(framed(event) for event in (*events, DONE_EVENT)) + LAST_CHUNK
    return StreamAnswer(_STREAM_HEAD + framed(opening), before, after, ending)


def at_once(mode: Mode, answer: StreamAnswer) -> bytes:
    """The whole stream in one piece; stamps are zero."""
    chunks = b"".join(answer.chunk(number, 0) for number in range(mode.chunks))
    return answer.opening + chunks + answer.ending


def fault_answer(fault: Fault) -> bytes:
    """What a faulty mode sends before it closes or falls silent; empty when it sends nothing."""
    error = {"error": {"message": "The mock upstream was asked to fail.", "type": "server_error", "code": None}}
    match fault:
        case Fault.RATE_LIMITED:
            return whole(429, "application/json", _compact(error), "retry-after: 1\r\n")
        case Fault.BROKEN:
            return whole(500, "application/json", _compact(error))
        case Fault.HTML:
            return whole(502, "text/html", b"<html><body><h1>502 Bad Gateway</h1></body></html>")
        case Fault.GARBAGE:
            return b"\x00\x01 this is not HTTP at all\r\n\r\n"
        case Fault.CUT:
            mode = Mode("bench-fault-cut", Kind.SSE, chunks=CUT_CHUNKS)
            answer = stream_answer(mode)
            return answer.opening + b"".join(answer.chunk(number, 0) for number in range(CUT_CHUNKS))
        case Fault.RESET | Fault.SILENT:
            return b""

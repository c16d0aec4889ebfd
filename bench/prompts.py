"""Pre-rendered requests: one body per mode and size, wrapped for a target."""

import json
from dataclasses import dataclass

PROMPT_BYTES = 1_024
OUTPUT_TOKENS = 1_024

_PROSE = (
    "The gate stands at the end of the lane, and whoever comes by leaves a word with the keeper: where from, "
    "where to, and what the load may weigh. Nothing of it is written down but the weight. "
)
_CODE = 'def keep(word: str) -> int:\n\t"""Weigh, don\'t read."""\n\treturn len(word)  # C:\\gate\\lane\n'


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go and how the mode is named there."""

    name: str
    host: str
    port: int
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    model_prefix: str = ""
    """Put before the mode's name to make the model's name."""
    fixed_model: str = ""
    """For gateways that know no model but their own: the model is this, the mode stands in the field `user`."""
    pid: int = 0
    """Root of the process tree whose CPU time counts; 0: none."""


def prompt_text(prompt_bytes: int) -> str:
    """Prose with some code in it (quotes, backslashes, tabs), about `prompt_bytes` bytes once it is JSON."""
    block = _PROSE * 4 + _CODE
    rendered = len(json.dumps(block)) - 2
    return (block * (prompt_bytes // rendered + 1))[: max(1, int(prompt_bytes * len(block) / rendered))]


def body(names: dict[str, str], *, streamed: bool, prompt_bytes: int = PROMPT_BYTES) -> bytes:
    """The JSON of one request, about `prompt_bytes` bytes in all; `names` are the fields that name the mode."""

    def render(text: str) -> bytes:
        system = {"role": "system", "content": "Answer briefly and in plain words."}
        fields: dict[str, object] = {
            **names,
            "messages": [system, {"role": "user", "content": text}],
            "max_tokens": OUTPUT_TOKENS,
            "temperature": 0.7,
        }
        if streamed:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(fields, separators=(",", ":")).encode()

    return render(prompt_text(prompt_bytes - len(render(""))))


def request(target: Target, mode: str, *, prompt_bytes: int = PROMPT_BYTES) -> bytes:
    """Head and body, ready to be written as they are."""
    streamed = mode.startswith(("bench-sse", "bench-openai", "bench-fault-cut"))
    names = {"model": target.model_prefix + mode}
    if target.fixed_model:
        names = {"model": target.fixed_model, "user": mode}
    payload = body(names, streamed=streamed, prompt_bytes=prompt_bytes)
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"host: {target.host}:{target.port}",
        "content-type: application/json",
        "accept: */*",
        *(f"{name}: {value}" for name, value in target.headers),
        f"content-length: {len(payload)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload

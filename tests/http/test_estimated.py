"""How far an estimate is from the count: streams whose usage is known are cut, and what is charged is compared."""

import json
from collections.abc import Iterator

import pytest

from dragonfly.admission.estimates import Estimates
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import Basis
from dragonfly.providers.simulated.answers import Answer, answer_to, chunk, deltas, whole
from tests.fakes.upstream import answer as http_answer
from tests.http.desk import Desk
from tests.http.rig import Rig, chat_body

TAUGHT = 12
ERROR_MAX = {"English": 0.05, "Chinese": 0.05, "both in turn": 0.25}
"""Of one answer of some dozens of tokens or more. A channel's customers may write several languages."""
QUESTIONS = {
    "English": [f"Tell me about lakes, part {number}" for number in range(2 * TAUGHT)],
    "Chinese": [f"请讲讲湖泊的故事，第{number}部分" for number in range(2 * TAUGHT)],
    "both in turn": [f"{('Tell me of lakes', '请讲讲湖泊')[number % 2]} {number}" for number in range(2 * TAUGHT)],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "parameters": {
                "type": "object",
                "properties": {f"field_{number}": {"type": "string"} for number in range(12)},
                "required": [f"field_{number}" for number in range(12)],
            },
        },
    }
]


def events(answer: Answer, *, per_event: int = 1) -> Iterator[bytes]:
    """The stream up to its finish reason; `per_event` tokens of content in one event."""
    found = deltas(answer)
    if per_event > 1:
        content = answer.content
        found = [{"content": "".join(content[i : i + per_event])} for i in range(0, len(content), per_event)]
    for delta in found:
        yield b"data: " + json.dumps(chunk(answer, 1, delta, None), ensure_ascii=False).encode() + b"\n\n"


def answers(questions: list[str], **fields: object) -> list[Answer]:
    base = {"model": "x", "stream": True, "stream_options": {"include_usage": True}, **fields}
    return [answer_to({**base, "messages": [{"role": "user", "content": question}]}) for question in questions]


def charged_after_a_cut(answer: Answer, estimates: Estimates, per_event: int) -> int:
    """Output that is charged when the client leaves just before the end."""
    desk = Desk()
    desk.purse.estimates = estimates
    desk.play(*events(answer, per_event=per_event), end=False)
    desk.exchange.client_gone()
    (settlement,) = desk.purse.settlements
    assert settlement.outcome is Outcome.CLIENT_GONE
    assert settlement.usage.basis is Basis.ESTIMATED
    return settlement.usage.completion_tokens


def errors(found: list[Answer], *, per_event: int) -> list[float]:
    """Relative errors of the second half, after the first half has taught."""
    estimates = Estimates()
    for answer in found[:TAUGHT]:
        desk = Desk(stream_options={"include_usage": True})
        desk.purse.estimates = estimates
        last = b"data: " + json.dumps(chunk(answer, 1, {}, "stop")).encode() + b"\n\ndata: [DONE]\n\n"
        desk.play(*events(answer), last)
        assert desk.purse.settlements[0].usage.completion_tokens == answer.tokens_out
    return [
        charged_after_a_cut(answer, estimates, per_event)
        / (answer.tokens_out - len(answer.reasoning) * (per_event > 1))
        - 1
        for answer in found[TAUGHT:]
    ]


@pytest.mark.parametrize("per_event", [1, 7], ids=["token by token", "several tokens an event"])
@pytest.mark.parametrize("language", QUESTIONS)
def test_an_estimate_lies_close_to_the_count(language: str, per_event: int) -> None:
    found = errors(answers(QUESTIONS[language]), per_event=per_event)
    assert max(map(abs, found)) <= ERROR_MAX[language], found


def test_an_estimate_of_a_call_lies_close_to_the_count() -> None:
    found = errors(answers(QUESTIONS["English"], tools=TOOLS, tool_choice="required"), per_event=1)
    assert max(map(abs, found)) <= ERROR_MAX["English"], found


async def test_an_answer_without_usage_counts_its_content_and_not_what_stands_around_it() -> None:
    (answer,) = answers(["Tell me about lakes"])
    body = whole(answer, 1)
    del body["usage"]
    body["padding"] = "x" * 10_000
    async with Rig([http_answer(200, json.dumps(body).encode())]) as rig:
        await rig.ask(chat_body())
        (settlement,) = rig.purse.settlements
        assert settlement.usage.basis is Basis.ESTIMATED
        output_bytes = len(json.dumps("".join(answer.content))) - 2
        assert settlement.usage.completion_tokens == round(output_bytes / 4)

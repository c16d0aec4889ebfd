"""/metrics tells the operator what happens, and nothing of anybody."""

import asyncio
import re
from collections.abc import Mapping

import pytest

from dragonfly.api.metrics import Family, Sample, exposition
from dragonfly.privacy.outside import METRIC_LABELS
from tests.http.rig import Answer
from tests.system.program import Program
from tests.system.served import MODEL, Served, chat, served

TOKEN = "a-token-for-tests"
LINE = re.compile(r"(dragonfly_\w+)\{([^}]*)\} (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Metrics = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def page(one: Served, token: str) -> Answer:
    return await one.get("/metrics", key=token)


def parsed(text: str) -> Metrics:
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            matched = LINE.fullmatch(line)
            assert matched, line
            found[matched[1], frozenset(LABEL.findall(matched[2]))] = float(matched[3])
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics[name, frozenset({"worker": "0", **labels}.items())]


async def test_numbers_of_what_happened_without_anybody_in_them(program: Program) -> None:
    async with served(program, server=f'metrics_token = "{TOKEN}"') as one:
        assert (await page(one, one.key)).status == 401
        for _ in range(3):
            answer = await one.ask(chat())
        assert (await one.ask(chat(stream=True))).status == 200
        assert (await one.ask(b"{")).status == 400
        async with asyncio.timeout(10):
            while value(metrics := parsed(text := (await page(one, TOKEN)).body.decode()), "dragonfly_grants_open"):
                await asyncio.sleep(0.02)
        where = {"model": MODEL, "provider": "acme"}
        assert value(metrics, "dragonfly_requests_total", **where, outcome="complete") == 4
        assert value(metrics, "dragonfly_tokens_total", **where, kind="prompt") == 120
        assert value(metrics, "dragonfly_duration_seconds_count", provider="acme") == 4
        assert value(metrics, "dragonfly_duration_seconds_bucket", provider="acme", le="+Inf") == 4
        assert value(metrics, "dragonfly_refused_total", code="invalid_json") == 1
        assert value(metrics, "dragonfly_resident_bytes") > 10_000_000
        labels = {name for _, labels in metrics for name, _ in labels}
        assert labels == set(METRIC_LABELS), "the inventory has every label, and no other"
        for secret in (one.key, one.key[6:16], one.account_of(one.key), answer.headers["x-request-id"], TOKEN):
            assert secret not in text


async def test_without_a_token_there_is_no_page(program: Program) -> None:
    async with served(program) as one:
        assert (await page(one, "")).status == 404


def test_a_short_token_is_refused_at_the_start(program: Program) -> None:
    (program.folder / "dragonfly.toml").write_text('[server]\nmetrics_token = "short"\n')
    assert "server.metrics_token" in program.run("serve").errors


@pytest.mark.parametrize(("value", "shown"), [('a"b', 'a\\"b'), ("a\\b", "a\\\\b"), ("a\nb", "a\\nb")])
def test_values_of_labels_are_escaped(value: str, shown: str) -> None:
    family = Family("dragonfly_a", "gauge", "What", (Sample({"model": value}, 1.5),))
    assert exposition([family]).splitlines()[2] == f'dragonfly_a{{model="{shown}"}} 1.5'

"""A key's routing profile: a request can narrow it, never widen it, and an unmet data policy sends nothing."""

import json
from dataclasses import replace

import pytest

from dragonfly.core.routing import RoutingRules, Sort
from tests.http.rig import MODEL, chat_body
from tests.http.test_failover import OK, rig


@pytest.mark.parametrize(
    ("rules", "wishes", "expected"),
    [
        (RoutingRules(only=("beta",)), None, "beta"),
        (RoutingRules(ignore=("alpha",)), {"order": ["alpha"]}, "beta"),
        (RoutingRules(order=("beta",)), None, "beta"),
        (RoutingRules(order=("beta",)), {"order": ["alpha"]}, "alpha"),
        (RoutingRules(sort=Sort.PRICE), None, "alpha"),
        (RoutingRules(only=("alpha", "beta")), {"only": [f"{MODEL}@beta"]}, "beta"),
        (RoutingRules(prompt_nusd_per_mtok_max=150_000_000), {"max_price": {"prompt": 100}}, "alpha"),
    ],
)
async def test_the_profile_decides_and_the_request_narrows(
    rules: RoutingRules, wishes: dict[str, object] | None, expected: str
) -> None:
    async with rig(a=OK, b=OK) as one:
        one.purse.policy = replace(one.purse.policy, routing=rules)
        got = await one.ask(chat_body(provider=wishes) if wishes else chat_body())
        assert got.headers["x-dragonfly-provider"] == expected


@pytest.mark.parametrize(
    ("rules", "wishes"),
    [
        (RoutingRules(only=("alpha",)), {"only": ["beta"]}),
        (RoutingRules(ignore=("alpha",)), {"ignore": ["beta"]}),
        (RoutingRules(completion_nusd_per_mtok_max=1), {"max_price": {"completion": 1_000}}),
    ],
)
async def test_a_request_cannot_widen_its_profile(rules: RoutingRules, wishes: dict[str, object]) -> None:
    async with rig(a=OK, b=OK) as one:
        one.purse.policy = replace(one.purse.policy, routing=rules)
        got = await one.ask(chat_body(provider=wishes))
        assert (got.status, got.code) == (503, "no_route")
        assert not one.upstream.requests


@pytest.mark.parametrize(
    ("rules", "wishes"),
    [
        (None, {"data_collection": "deny"}),
        (None, {"zdr": True}),
        (RoutingRules(deny_data_collection=True), None),
        (RoutingRules(zero_retention=True), {"zdr": False, "data_collection": "allow"}),
    ],
)
async def test_an_unmet_data_policy_is_named_and_nothing_is_sent(
    rules: RoutingRules | None, wishes: dict[str, object] | None
) -> None:
    async with rig(a=OK, b=OK) as one:
        one.purse.policy = replace(one.purse.policy, routing=rules)
        got = await one.ask(chat_body(provider=wishes) if wishes else chat_body())
        assert (got.status, got.code) == (403, "privacy_restricted")
        assert ("`zdr`" in got.json()["error"]["message"]) == (
            rules == RoutingRules(zero_retention=True) or wishes == {"zdr": True}
        )
        assert not one.upstream.requests


async def test_an_unknown_data_collection_is_refused() -> None:
    async with rig(a=OK, b=OK) as one:
        got = await one.ask(chat_body(provider={"data_collection": "sometimes"}))
        assert (got.status, got.code) == (400, "invalid_parameter")
        assert "sometimes" not in json.dumps(got.json())

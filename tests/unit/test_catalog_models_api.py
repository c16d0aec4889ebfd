"""GET /v1/models and its children: OpenRouter's fields, exact decimal strings, bounded queries."""

import json
from decimal import Decimal
from typing import Any

import pytest

from dragonfly.admission.errors import ModelNotFound, ModelUnpriced
from dragonfly.admission.grants import KeyPolicy
from dragonfly.api.models import ChannelFigures, ModelPages, Percentiles, QueryInvalid
from dragonfly.catalog.build import build_catalog
from dragonfly.catalog.builtin import load_builtin
from dragonfly.core.ids import AccountId, KeyId
from dragonfly.settings import CatalogSettings

KNOWN = load_builtin()
KEYS = {provider.api_key_env: "a-key-for-tests" for provider in KNOWN.providers.values()}
OFF_PEAK_S = 1_795_435_200
"""Monday 2026-11-23, 20:00 in Beijing."""
PEAK_S = OFF_PEAK_S - 10 * 3_600
SIMULATED = {
    "providers": {"demo": {"base_url": "http://127.0.0.1:9", "api_key": "", "simulated": True}},
    "models": [
        {
            "id": "demo/echo",
            "context_tokens": 8_192,
            "channels": [
                {"provider": "demo", "model": "echo", "prices": [{"prompt": "0.1", "completion": "0.2"}]},
            ],
        },
        {"id": "demo/unpriced", "context_tokens": 8_192, "channels": [{"provider": "demo", "model": "unpriced"}]},
    ],
}


class StandingClock:
    def __init__(self, now_s: int) -> None:
        self.now_s = now_s

    def now_ns(self) -> int:
        return self.now_s * 10**9

    def monotonic_s(self) -> float:
        return 0.0


class FixedFigures:
    """Figures for one channel only, as if the others had not been used yet."""

    def figures(self, channel_id: str) -> ChannelFigures | None:
        if channel_id != "deepseek/deepseek-flash@deepseek":
            return None
        return ChannelFigures(
            uptime_last_30m=99.5, latency_ms=Percentiles(p50=320.0), tokens_per_s=Percentiles(p50=61.0)
        )


def pages(
    clock: StandingClock | None = None, *, markup: str = "0", tables: dict[str, object] | None = None
) -> ModelPages:
    catalog = build_catalog(CatalogSettings(markup_percent=markup), tables or {}, KEYS, KNOWN)
    return ModelPages(catalog, clock or StandingClock(OFF_PEAK_S), FixedFigures())


def key(models: frozenset[str] | None = None) -> KeyPolicy:
    return KeyPolicy(KeyId("key-a"), AccountId("acc-alice"), True, 0, 0, models, None)


async def listing(shown: ModelPages, **query: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await shown.page(key(), {}, query))
    return answer


async def detail(shown: ModelPages, model: str) -> dict[str, Any]:
    author, _, slug = model.partition("/")
    answer: dict[str, Any] = json.loads(await shown.detail(key(), {"author": author, "slug": slug}, {}))
    return answer


async def endpoints(shown: ModelPages, model: str) -> dict[str, Any]:
    author, _, slug = model.partition("/")
    answer: dict[str, Any] = json.loads(await shown.endpoints(key(), {"author": author, "slug": slug}, {}))
    return answer


async def test_the_list_has_the_fields_of_openai_and_openrouter() -> None:
    answer = await listing(pages())
    assert answer["object"] == "list"
    assert answer["total_count"] == len(answer["data"]) == 63
    assert answer["links"] == {"next": None}
    flash = answer["data"][0]
    assert (flash["id"], flash["object"], flash["owned_by"]) == ("deepseek/deepseek-flash", "model", "deepseek")
    assert isinstance(flash["created"], int)
    assert flash["context_length"] == 1_048_565
    assert flash["architecture"]["modality"] == "text+image->text"
    assert flash["top_provider"] == {
        "context_length": 1_048_565,
        "max_completion_tokens": 393_216,
        "is_moderated": False,
    }
    assert {"tools", "response_format", "reasoning_effort"} <= set(flash["supported_parameters"])
    assert flash["reasoning"]["supported_efforts"] == ["max", "high", "low"]
    assert flash["links"]["details"] == "/v1/models/deepseek/deepseek-flash/endpoints"


async def test_prices_are_decimal_strings_per_token_with_the_markup_in_them() -> None:
    flash = (await listing(pages(markup="5.5")))["data"][0]
    # 0.15 USD per million x 1.055.
    assert flash["pricing"]["prompt"] == "0.00000015825"
    assert flash["pricing"]["completion"] == "0.000000633"
    assert flash["pricing"]["input_cache_read"] == "0.000000003165"
    assert flash["pricing"]["request"] == "0"


async def test_every_price_string_is_exactly_the_price_that_is_billed() -> None:
    shown = pages(markup="3.333333")
    for entry in (await listing(shown))["data"]:
        price = shown._catalog.listing(entry["id"], OFF_PEAK_S * 10**9)
        assert price is not None
        current = next(
            p.price for p in price.channels if p.price and p.price.id == entry["pricing_now"]["price_version"]
        )
        exact = current.customer_rate(current.rates.prompt)
        text = Decimal(entry["pricing_now"]["prompt"])
        assert text * 10**15 * exact.denominator == exact.numerator
        assert "E" not in entry["pricing_now"]["prompt"].upper()


async def test_windows_are_overrides_in_utc_and_the_price_of_this_moment_stands_beside_them() -> None:
    clock = StandingClock(OFF_PEAK_S)
    shown = pages(clock)
    calm = (await listing(shown))["data"][0]
    overrides = calm["pricing"]["overrides"]
    assert [(o["utc_start"], o["utc_end"], o["prompt"]) for o in overrides] == [
        ("01:00", "04:00", "0.0000003"),
        ("06:00", "10:00", "0.0000003"),
    ]
    assert overrides[0]["weekdays"] == ["mon", "tue", "wed", "thu", "fri"]
    assert (overrides[0]["zone"], overrides[0]["except_holidays"]) == ("Asia/Shanghai", "china")
    assert calm["pricing_now"]["prompt"] == "0.00000015"
    assert calm["pricing_now"]["holds_until"] == "2026-11-23T16:00:00Z"
    clock.now_s = PEAK_S
    busy = (await listing(shown))["data"][0]
    assert busy["pricing"]["prompt"] == "0.00000015", "the list price stays; the override says when it does not hold"
    assert busy["pricing_now"]["prompt"] == "0.0000003"
    assert busy["pricing_now"]["holds_until"] == "2026-11-23T04:00:00Z"


async def test_tiers_are_overrides_that_begin_with_the_first_dearer_prompt() -> None:
    model = await detail(pages(), "openai/gpt-6-luna")
    (override,) = model["pricing"]["overrides"]
    assert (override["min_prompt_tokens"], override["prompt"], override["completion"]) == (
        272_001,
        "0.0000002",
        "0.00000075",
    )


async def test_scheduled_prices_stand_in_the_history_before_they_hold() -> None:
    (endpoint,) = (await endpoints(pages(), "google/gemini-4-argon"))["data"]["endpoints"]
    now, later = endpoint["price_versions"]
    assert (now["valid_to"], now["pricing"]["prompt"]) == ("2026-12-01T00:00:00Z", "0.000002")
    assert (later["valid_from"], later["pricing"]["prompt"]) == ("2026-12-01T00:00:00Z", "0.000004")
    assert later["source"].startswith("https://ai.google.dev/")
    assert later["checked_on"] == "2026-11-23"
    assert endpoint["pricing_now"]["holds_until"] == "2026-12-01T00:00:00Z"


async def test_each_channel_has_its_own_endpoint_with_its_provider_and_figures() -> None:
    data = (await endpoints(pages(), "deepseek/deepseek-flash"))["data"]
    direct, hosted = data["endpoints"]
    assert (direct["tag"], hosted["tag"]) == ("deepseek", "together")
    assert direct["channel_id"] == "deepseek/deepseek-flash@deepseek"
    assert direct["provider"]["headquarters"] == "CN"
    assert direct["provider"]["privacy_policy_url"].startswith("https://")
    assert direct["uptime_last_30m"] == 99.5
    assert direct["latency_last_30m"] == {"p50": 320.0, "p75": None, "p90": None, "p99": None}
    assert direct["uptime_last_5m"] is None
    assert hosted["uptime_last_30m"] is None
    assert hosted["latency_last_30m"] is None
    assert hosted["throughput_last_30m"] is None
    assert direct["status"] == hosted["status"] == 0
    assert direct["supports_implicit_caching"]


async def test_a_model_is_found_by_alias_and_by_an_id_in_one_path_segment() -> None:
    shown = pages()
    asked = await detail(shown, "deepseek/deepseek-v4-flash")
    assert (asked["id"], asked["alias_target"]) == ("deepseek/deepseek-flash", "deepseek/deepseek-flash")
    assert asked["data"]["id"] == "deepseek/deepseek-flash"
    segment = json.loads(await shown.detail(key(), {"model": "deepseek/deepseek-flash"}, {}))
    assert (segment["id"], segment["alias_target"]) == ("deepseek/deepseek-flash", None)


async def test_a_simulated_model_is_labelled_everywhere() -> None:
    shown = pages(tables=SIMULATED)
    entry = (await listing(shown, q="demo/"))["data"][0]
    assert entry["simulated"]
    assert entry["providers"][0]["simulated"]
    (endpoint,) = (await endpoints(shown, "demo/echo"))["data"]["endpoints"]
    assert endpoint["provider"]["simulated"]
    assert endpoint["max_completion_tokens"] is None


async def test_an_unpriced_model_is_not_listed_and_says_why() -> None:
    shown = pages(tables=SIMULATED)
    assert [entry["id"] for entry in (await listing(shown, q="demo"))["data"]] == ["demo/echo"]
    with pytest.raises(ModelUnpriced):
        await detail(shown, "demo/unpriced")
    (endpoint,) = (await endpoints(shown, "demo/unpriced"))["data"]["endpoints"]
    assert (endpoint["status"], endpoint["pricing"], endpoint["pricing_now"]) == (-1, None, None)


async def test_a_key_with_a_model_list_sees_only_those_models() -> None:
    shown = pages()
    narrow = key(frozenset({"deepseek/deepseek-flash"}))
    answer = json.loads(await shown.page(narrow, {}, {}))
    assert [entry["id"] for entry in answer["data"]] == ["deepseek/deepseek-flash"]
    with pytest.raises(ModelNotFound):
        await shown.detail(narrow, {"author": "deepseek", "slug": "deepseek-v4-pro"}, {})
    with pytest.raises(ModelNotFound):
        await shown.endpoints(narrow, {"author": "deepseek", "slug": "deepseek-v4-pro"}, {})


@pytest.mark.parametrize("model", ["deepseek/nothing", "nobody/deepseek-flash", "deepseek/../x"])
async def test_an_unknown_model_is_not_found(model: str) -> None:
    with pytest.raises(ModelNotFound):
        await detail(pages(), model)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"q": "kimi"}, 6),
        ({"q": "KIMI K3.1"}, 2),
        ({"q": " no such model "}, 0),
        ({"supported_parameters": "tools"}, 63),
        ({"supported_parameters": "tools, logit_bias"}, 2),
        ({"supported_parameters": "telepathy"}, 0),
        ({"input_modalities": "image", "q": "deepseek"}, 1),
        ({"output_modalities": "text"}, 63),
        ({"output_modalities": "audio"}, 0),
        ({"context": "1048576", "q": "kimi"}, 3),
    ],
)
async def test_filters_narrow_the_list(query: dict[str, str], count: int) -> None:
    assert (await listing(pages(), **query))["total_count"] == count


async def test_pages_join_to_the_whole_list() -> None:
    shown = pages()
    whole = [entry["id"] for entry in (await listing(shown))["data"]]
    joined: list[str] = []
    query = {"limit": "20", "q": ""}
    while True:
        answer = await listing(shown, **query)
        joined += [entry["id"] for entry in answer["data"]]
        assert answer["total_count"] == 63
        if answer["links"]["next"] is None:
            break
        following = answer["links"]["next"].partition("?")[2]
        query = dict(part.split("=") for part in following.split("&"))
    assert joined == whole
    assert (await listing(shown, offset="1000"))["data"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "-1"},
        {"limit": "1e3"},
        {"limit": "٣"},
        {"limit": "9" * 5_000},
        {"offset": "1000001"},
        {"context": "x"},
        {"q": "x" * 201},
        {"supported_parameters": ",".join("abcdefghijklmnopqrstuvwxyz")},
        {"colour": "red"},
    ],
    ids=str,
)
async def test_a_query_that_is_not_understood_is_refused_without_repeating_it(query: dict[str, str]) -> None:
    with pytest.raises(QueryInvalid) as refusal:
        await listing(pages(), **query)
    assert refusal.value.code == "invalid_parameter"
    assert "red" not in refusal.value.message
    assert "colour" not in refusal.value.message
    assert len(refusal.value.message) < 200


async def test_the_readers_stand_under_their_paths() -> None:
    assert list(pages().readers()) == [
        "/v1/models",
        "/v1/models/{model}",
        "/v1/models/{author}/{slug}",
        "/v1/models/{author}/{slug}/endpoints",
    ]

"""What is sold at a moment, kept until the next border of a price, and what is billed when another model answers."""

import timeit
from datetime import datetime

import pytest

from dragonfly.catalog.build import build_catalog
from dragonfly.catalog.builtin import load_builtin
from dragonfly.catalog.catalog import Answered, Catalog, Listing, Supply
from dragonfly.catalog.schedule import instant_ns
from dragonfly.settings import CatalogSettings

KNOWN = load_builtin()
KEYS = {provider.api_key_env: "a-key-for-tests" for provider in KNOWN.providers.values()}
FLASH = "deepseek/deepseek-flash"
CALL_SECONDS_MAX = 20e-6
"""Generous: a call takes a fraction of a microsecond, and a busy machine must not fail the test."""


@pytest.fixture
def catalog() -> Catalog:
    return build_catalog(CatalogSettings(), {}, KEYS, KNOWN)


def at(text: str) -> int:
    return instant_ns(datetime.fromisoformat(text))


def listed(catalog: Catalog, model: str, now_ns: int) -> Listing:
    listing = catalog.listing(model, now_ns)
    assert listing is not None
    return listing


def supply(catalog: Catalog, model: str, provider: str) -> Supply:
    found = catalog.model(model)
    assert found is not None
    return next(supply for supply in found.supplies if supply.provider.slug == provider)


def test_a_listing_is_the_same_object_until_the_next_border(catalog: Catalog) -> None:
    peak = at("2026-11-23T09:00:00+08:00")
    before = listed(catalog, FLASH, peak - 2)
    assert listed(catalog, FLASH, peak - 1) is before
    during = listed(catalog, FLASH, peak)
    assert during is not before
    assert listed(catalog, FLASH, at("2026-11-23T12:00:00+08:00") - 1) is during
    assert listed(catalog, FLASH, at("2026-11-23T12:00:00+08:00")) is not during


def test_a_clock_that_is_set_back_gets_the_prices_of_its_own_time(catalog: Catalog) -> None:
    peak = at("2026-11-23T09:00:00+08:00")
    dear = listed(catalog, FLASH, peak).channels[0].price
    cheap = listed(catalog, FLASH, peak - 1).channels[0].price
    assert dear is not None
    assert cheap is not None
    assert (dear.rates.prompt, cheap.rates.prompt) == (300_000_000, 150_000_000)


def test_price_versions_have_ids_that_name_channel_validity_and_window(catalog: Catalog) -> None:
    peak = listed(catalog, FLASH, at("2026-11-23T10:00:00+08:00")).channels[0].price
    later = listed(catalog, FLASH, at("2026-11-23T12:30:00+08:00")).channels[0].price
    assert peak is not None
    assert later is not None
    assert peak.id.startswith("deepseek/deepseek-flash@deepseek:20260909T1600Z:peak:")
    assert later.id.startswith("deepseek/deepseek-flash@deepseek:20260909T1600Z:base:")


def test_ids_of_price_versions_differ_with_the_markup_and_stay_the_same_over_restarts() -> None:
    def ids(markup: str) -> list[str]:
        built = build_catalog(CatalogSettings(markup_percent=markup), {}, KEYS, KNOWN)
        prices = [listed(built, name, at("2026-11-23T20:00:00+08:00")).channels[0].price for name in built.names()]
        return [price.id for price in prices if price is not None]

    plain, again, dearer = ids("0"), ids("0"), ids("5.5")
    assert plain == again
    assert set(plain).isdisjoint(dearer)
    assert len(set(plain)) == len(plain) == 63


def test_an_alias_is_the_model_that_it_names(catalog: Catalog) -> None:
    now_ns = at("2026-11-23T20:00:00+08:00")
    assert listed(catalog, "deepseek/deepseek-v4-flash", now_ns) == listed(catalog, FLASH, now_ns)
    assert "deepseek/deepseek-v4-flash" not in catalog.names()


@pytest.mark.parametrize(
    "name", ["", "deepseek-flash", "deepseek/", "DEEPSEEK/DEEPSEEK-FLASH", FLASH + " ", "a" * 10_000]
)
def test_an_unknown_model_is_none_and_is_not_remembered(catalog: Catalog, name: str) -> None:
    remembered = catalog._remembered
    for number in range(100):
        assert catalog.listing(name + "x" * number, 1) is None
    assert not remembered


def test_a_model_without_a_valid_price_has_channels_without_one(catalog: Catalog) -> None:
    between = listed(catalog, FLASH, at("2026-08-20T00:00:00+08:00"))
    assert [priced.price is None for priced in between.channels] == [True, False]
    assert between.channels[0].channel.provider == "deepseek"


def test_an_answer_by_the_model_that_was_asked_keeps_the_held_price(catalog: Catalog) -> None:
    flash = supply(catalog, FLASH, "deepseek").channel
    now_ns = at("2026-11-23T20:00:00+08:00")
    for name in ("deepseek-flash", "deepseek-v4-flash", "deepseek-v4.1-flash", "deepseek-flash-20260910", ""):
        assert catalog.answered(flash, name, now_ns) == Answered(None, True), name


@pytest.mark.parametrize(
    ("moment", "prompt_nusd"),
    [("2026-11-23T20:00:00+08:00", 150_000_000), ("2026-11-23T10:00:00+08:00", 300_000_000)],
)
def test_an_answer_by_another_model_bills_that_models_price_of_the_same_moment(
    catalog: Catalog, moment: str, prompt_nusd: int
) -> None:
    pro = supply(catalog, "deepseek/deepseek-v4-pro", "deepseek").channel
    answered = catalog.answered(pro, "deepseek-v4-flash", at(moment))
    assert answered.is_known
    assert answered.price is not None
    assert answered.price.rates.prompt == prompt_nusd


@pytest.mark.parametrize("name", ["deepseek-v9", "gpt-6-sol", "deepseek-flash-2026", "-20260910", "deepseek-v4-pro "])
def test_an_answer_by_an_unknown_model_keeps_the_held_price_and_is_flagged(catalog: Catalog, name: str) -> None:
    flash = supply(catalog, FLASH, "deepseek").channel
    assert catalog.answered(flash, name, at("2026-11-23T20:00:00+08:00")) == Answered(None, False)


def test_an_id_means_what_its_own_provider_means_by_it(catalog: Catalog) -> None:
    hosted = supply(catalog, "deepseek/deepseek-v4-pro", "together").channel
    now_ns = at("2026-11-23T20:00:00+08:00")
    assert catalog.answered(hosted, "deepseek-flash", now_ns) == Answered(None, False)
    flash = catalog.answered(hosted, "deepseek-ai/DeepSeek-V4.1-Flash", now_ns)
    assert flash.price is not None
    assert flash.price.rates.prompt == 300_000_000


def test_dated_snapshots_of_a_model_are_that_model(catalog: Catalog) -> None:
    mini = supply(catalog, "openai/gpt-4o-mini", "openai").channel
    now_ns = at("2026-11-23T20:00:00+08:00")
    assert catalog.answered(mini, "gpt-4o-mini-2024-07-18", now_ns) == Answered(None, True)
    other = catalog.answered(mini, "gpt-4.1-2025-04-14", now_ns)
    assert other.price is not None
    assert other.price.rates.prompt == 2_000_000_000


def test_looking_up_and_pricing_stay_cheap_enough_for_the_hot_path(catalog: Catalog) -> None:
    now_ns = at("2026-11-23T20:00:00+08:00")
    rounds = 2_000
    best = min(timeit.repeat(lambda: catalog.listing(FLASH, now_ns), number=rounds, repeat=5)) / rounds
    assert best < CALL_SECONDS_MAX

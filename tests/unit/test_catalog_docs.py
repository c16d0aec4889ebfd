"""The pages about the catalogue say what it does: their examples load, their tables name what exists."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from dragonfly.api.models import (
    PAGE_DEFAULT,
    PAGE_MAX,
    ChannelFigures,
    QueryInvalid,
    endpoint_shown,
    model_shown,
    read_filters,
)
from dragonfly.catalog.build import build_catalog
from dragonfly.catalog.builtin import load_builtin
from dragonfly.catalog.catalog import Catalog
from dragonfly.catalog.check import CHECKED_DAYS_MAX
from dragonfly.catalog.config import ChannelOverlay, ModelOverlay, ProviderOverlay
from dragonfly.catalog.schema import PriceTable
from dragonfly.providers.dialects import DIALECTS
from dragonfly.settings import CatalogSettings

ROOT = Path(__file__).resolve().parents[2]
OPERATE = (ROOT / "docs/operate/catalog.md").read_text()
USE = (ROOT / "docs/use/models.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", OPERATE, re.DOTALL)
KNOWN = load_builtin()
NOW_NS = 1_795_435_200 * 10**9


def section(text: str, title: str) -> str:
    """A part of a page, from its title to the next of any rank."""
    start = text.index(f"{title}\n") + len(title)
    return re.split(r"^#", text[start:], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The code words in the first column of a part's tables."""
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def whole() -> Catalog:
    keys = {provider.api_key_env: "a-key-for-tests" for provider in KNOWN.providers.values()}
    return build_catalog(CatalogSettings(), {}, keys, KNOWN)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_is_a_catalogue_that_loads(number: int) -> None:
    environ = {"DEEPSEEK_API_KEY": "k", "GPU_API_KEY": "k"}
    catalog = build_catalog(CatalogSettings(), tomllib.loads(EXAMPLES[number]), environ, KNOWN)
    for name in catalog.names():
        listing = catalog.listing(name, NOW_NS)
        assert listing is not None
        assert all(priced.price is not None for priced in listing.channels)


def test_the_table_of_providers_is_the_packaged_one() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| `([A-Z_]+)` \| (\S+) \|", OPERATE, re.MULTILINE)
    assert rows == [
        (slug, provider.api_key_env, provider.base_url.removeprefix("https://").rstrip("/"))
        for slug, provider in KNOWN.providers.items()
    ]


def test_every_name_of_the_tables_is_described_and_exists() -> None:
    assert set(first_cells(section(OPERATE, "### `[providers.<slug>]`"))) == set(ProviderOverlay.model_fields)
    models = section(OPERATE, "### `[[models]]`")
    assert set(first_cells(models)) == set(ModelOverlay.model_fields)
    for name in ChannelOverlay.model_fields:
        assert f"`{name}`" in models, name
    prices = section(OPERATE, "## Prices")
    assert set(first_cells(prices)) == set(PriceTable.model_fields)


def test_the_dialects_that_are_named_exist() -> None:
    row = next(line for line in OPERATE.splitlines() if line.startswith("| `dialect`"))
    named = set(re.findall(r"`([^`]+)`", row)) - {"dialect"}
    builtin = {provider.dialect for provider in KNOWN.providers.values()}
    assert named | builtin == set(DIALECTS)


def test_numbers_in_the_pages_are_those_of_the_code() -> None:
    assert f"has looked at for {CHECKED_DAYS_MAX} days" in OPERATE.replace("\n", " ")
    assert f"`limit` is {PAGE_DEFAULT} unless set, at most {PAGE_MAX:,}" in USE
    days = KNOWN.calendars["china"].days_off
    assert f"the {sum(day.year == 2026 for day in days)} days off of 2026" in OPERATE


def test_the_filters_that_are_described_are_those_that_are_read() -> None:
    described = first_cells(section(USE, "## The list"))
    for name in described:
        read_filters({name: "1"})
    with pytest.raises(QueryInvalid) as refusal:
        read_filters({"x": "1"})
    assert set(re.findall(r"[a-z_]+", refusal.value.message.partition("only")[2].partition(".")[0])) == set(described)


def test_the_fields_that_are_described_are_shown() -> None:
    catalog = whole()
    model = catalog.model("deepseek/deepseek-flash")
    listing = catalog.listing("deepseek/deepseek-flash", NOW_NS)
    assert model is not None
    assert listing is not None
    shown = json.dumps(model_shown(model, listing, NOW_NS))
    endpoint = endpoint_shown(model, model.supplies[0], ChannelFigures(), NOW_NS)
    pricing = endpoint["pricing"]
    assert isinstance(pricing, dict)
    assert set(first_cells(section(USE, "## Prices"))) == set(pricing)
    assert set(first_cells(section(USE, "## Who answers"))) <= set(endpoint)
    for name in ("pricing_now", "providers", "simulated", "utc_start", "utc_end", "weekdays", "open_today"):
        assert f"`{name}`" in USE
        assert f'"{name}"' in shown

"""Mistakes in the operator's tables: all of them told at once, with their path, and never with their value."""

import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly.catalog.build import build_catalog
from dragonfly.catalog.builtin import load_builtin
from dragonfly.catalog.errors import CatalogInvalid
from dragonfly.settings import CatalogSettings

KNOWN = load_builtin()
DEEPSEEK = {"DEEPSEEK_API_KEY": "sk-deepseek"}
OLLAMA = """
[providers.ollama]
base_url = "http://localhost:11434/v1"
api_key = ""

[[models]]
id = "local/llama-3.3-70b"
context_tokens = 131_072

  [[models.channels]]
  provider = "ollama"
  model = "llama3.3:70b"
  prices = [{ prompt = "0", completion = "0", free = true }]
"""


def problems_of(toml: str, environ: dict[str, str] | None = None, *, markup: str = "0") -> list[str]:
    with pytest.raises(CatalogInvalid) as failure:
        build_catalog(CatalogSettings(markup_percent=markup), tomllib.loads(toml), environ or {}, KNOWN)
    assert failure.value.message == "\n".join(failure.value.problems)
    return list(failure.value.problems)


EVERYTHING_WRONG = """
[providers.Ollama]
base_url = "http://localhost"

[providers.vllm]
base_url = "localhost:8000/v1"
api_ky = "sk-very-secret-1"
dialect = "klingon"

[providers.gpu]
base_url = "http://user:sk-very-secret-2@gpu/v1"
api_key = "sk-very secret-3"

[providers.two]
base_url = "https://two.example/v1/chat/completions"
api_key = "sk-very-secret-4"
api_key_env = "TWO"

[providers.bare]

[providers.moonshot]
site = "china"

[providers.minimax]
site = "mars"
api_key = "k"

[providers.z-ai]
site = "china"
api_key = "k"

[providers.slow]
base_url = "https://slow.example"
api_key = ""
concurrency_max = 0
timeouts = { idle_s = -1, hed_s = 5 }

[[models]]
id = "llama"

[[models]]
id = "local/a"
context_tokens = 0
markup_percent = 5
channels = [
  { provider = "slo", model = "a", prices = [{ prompt = 0.15, completion = "0.3" }] },
  { provider = "slow", model = "b", prices = [{ prompt = "0", completion = "0.3" }] },
  { provider = "slow", model = "c", prices = [{ prompt = "-1", completion = "1e3", cache_read = "nan" }] },
  { provider = "slow", model = "d", prices = [{ prompt = "1", completion = "2", cache_read = "0" }] },
  { model = "e" },
]

[[models]]
id = "local/b"

  [[models.channels]]
  provider = "slow"
  model = "a"
  [[models.channels.prices]]
  prompt = "1"
  completion = "2"
  [[models.channels.prices.windows]]
  name = "x"
  when = { zone = "Moon/Base", hours = [["22:00", "06:00"]] }
  prompt = "1"
  completion = "2"

  [[models.channels]]
  provider = "slow"
  model = "b"
  prices = [
    { prompt = "1", completion = "2", valid_from = 2026-09-10T00:00:00 },
    { prompt = "1", completion = "2", currency = "EUR", checked_on = "today" },
  ]

  [[models.channels]]
  provider = "slow"
  model = "c"
  context_tokens = 5
  [[models.channels.prices]]
  prompt = "1"
  completion = "2"
  [[models.channels.prices.windows]]
  name = "x"
  when = { zone = "UTC", hours = [["00:00", "06:00"]], except_holidays = "elves" }
  prompt = "1"
  completion = "2"

  [[models.channels]]
  provider = "slow"
  model = "c"
  context_tokens = 5
  prices = [{ prompt = "1", completion = "2" }]

  [[models.channels]]
  provider = "slow"
  model = "f"
  context_tokens = 5
  prices = [{ prompt = "1" }]

  [[models.channels]]
  provider = "slow"
  model = "g"
  context_tokens = 5
  prices = [
    { prompt = "1", completion = "2", valid_from = 2026-02-01 },
    { prompt = "1", completion = "2", valid_from = 2026-01-01 },
  ]

  [[models.channels]]
  provider = "slow"
  model = "h"
  context_tokens = 5
  prices = [{ prompt = "1", completion = "2", valid_from = 2026-02-01, valid_to = 2026-01-01 }]

  [[models.channels]]
  provider = "slow"
  model = "i"
  context_tokens = 5
  [[models.channels.prices]]
  prompt = "1"
  completion = "2"
  tiers = [
    { above_prompt_tokens = 9, prompt = "1", completion = "2" },
    { above_prompt_tokens = 9, prompt = "1", completion = "2" },
  ]

  [[models.channels]]
  provider = "slow"
  model = "j"
  context_tokens = 5
  [[models.channels.prices]]
  prompt = "1"
  completion = "2"
  [[models.channels.prices.windows]]
  name = "x"
  when = { zone = "UTC", hours = [["22:00", "06:00"]] }
  prompt = "1"
  completion = "2"

[[models]]
id = "local/b"

[[models]]
id = "local/c"
"""


def test_everything_wrong_is_reported_at_once_with_its_path_and_what_to_write() -> None:
    problems = problems_of(EVERYTHING_WRONG, markup="-3")
    decimal_text = 'write the price of a million tokens as a decimal string between "0" and "10000", such as "0.15".'
    assert set(problems) == {
        "providers.Ollama: name it with small letters, digits, dots and hyphens.",
        "providers.vllm.base_url: write a web address that begins with https:// (or http://).",
        "providers.vllm.api_ky: there is no such name; did you mean api_key?",
        'providers.vllm: needs its key; write api_key_env = "NAME_OF_A_VARIABLE", or api_key = "" for a server'
        " without keys.",
        "providers.gpu.base_url: write the plain address, without user name, key, ? or #.",
        "providers.gpu.api_key: a key is visible ASCII without spaces, at most 4096 characters.",
        "providers.two.base_url: leave /chat/completions out; it is added.",
        "providers.two: keep one of api_key and api_key_env.",
        'providers.bare: needs its key; write api_key_env = "NAME_OF_A_VARIABLE", or api_key = "" for a server'
        " without keys.",
        "providers.bare.base_url: is missing; write the address before /chat/completions, such as"
        ' "http://localhost:8000/v1".',
        "providers.moonshot: is not built in; did you mean moonshotai? A provider of your own needs its base_url.",
        "providers.minimax.site: write one of the known sites (china).",
        'providers.z-ai.usd_per_cny: write what one CNY costs you in USD, such as "0.1412".',
        "providers.slow.concurrency_max: needs more than 0.",
        "providers.slow.timeouts.idle_s: needs more than 0.",
        "providers.slow.timeouts.hed_s: there is no such name; did you mean head_s?",
        'models[1].id: write the public id as "author/model", such as "local/llama".',
        "models[2].context_tokens: needs more than 0.",
        'models[2].markup_percent: write the percentage as decimal text between "0" and "1000", such as "5.5".',
        f"models[2].channels[1].prices[1].prompt: {decimal_text}",
        "models[2].channels[1].provider: there is no such provider; did you mean slow?",
        'models[2].channels[2].prices[1]: a price of "0" needs free = true beside it; an unknown price is left out'
        " instead.",
        f"models[2].channels[3].prices[1].prompt: {decimal_text}",
        f"models[2].channels[3].prices[1].completion: {decimal_text}",
        f"models[2].channels[3].prices[1].cache_read: {decimal_text}",
        'models[2].channels[4].prices[1]: a cache price of "0" needs its name in free_classes, such as'
        ' ["cache_read"].',
        "models[2].channels[5].provider: is missing.",
        "models[3].channels[1].prices[1].windows[1].when.zone: write the name of a time zone such as"
        ' "Asia/Shanghai" or "UTC".',
        "models[3].channels[1].context_tokens: is missing; write it here or beside the model's id.",
        "models[3].channels[2].prices[1].valid_from: write an instant with its offset, such as"
        " 2026-09-10T00:00:00+08:00, without quotes.",
        "models[3].channels[2].prices[2].currency: needs 'USD' or 'CNY'.",
        "models[3].channels[2].prices[2].checked_on: needs a date such as 2026-11-23, without quotes.",
        "models[3].channels[2].context_tokens: is missing; write it here or beside the model's id.",
        "models[3].channels[3].prices: except_holidays names an unknown calendar; write one of china, or add a table"
        " under [[calendars]].",
        "models[3].channels[4]: stands in this list already; keep one of the two.",
        "models[3].channels[5]: prices: completion is missing; write the price of a million tokens of output.",
        "models[3].channels[6]: prices: write them in the order of valid_from, one valid at a time.",
        "models[3].channels[7].prices[1]: valid_to: has to be later than valid_from.",
        "models[3].channels[8].prices[1]: tiers: above_prompt_tokens has to grow from tier to tier.",
        "models[3].channels[9].prices[1].windows[1].when: hours: write spans that ascend and do not touch; split one"
        " that passes midnight in two.",
        "models[4].id: stands in models[3] too; merge the two.",
        "models[5].channels: needs an entry with provider and model, because the id is not built in.",
        'catalog.markup_percent: write the percentage as decimal text between "0" and "1000", such as "5.5".',
    }
    assert len(problems) == len(set(problems))


def test_no_sentence_shows_a_key_or_any_other_value() -> None:
    text = "\n".join(problems_of(EVERYTHING_WRONG, markup="-3"))
    assert "secret" not in text
    for value in ("klingon", "Moon/Base", "EUR", "elves", "0.3"):
        assert value not in text


@pytest.mark.parametrize(
    "amount",
    [
        '"-0.15"',
        '"0,15"',
        '".5"',
        '"5."',
        '"1e-3"',
        '"NaN"',
        '"Infinity"',
        '" 1"',
        '"1 "',
        '""',
        '"10000.1"',
        '"10001"',
        '"0.0000000001"',
        '"9999999999"',
        '"٣"',
        '"１"',
        "0.15",
        "1",
        "nan",
        "inf",
        "true",
        "[]",
        "{}",
        "2026-01-01",
    ],
)
def test_an_amount_that_is_no_plain_decimal_is_refused(amount: str) -> None:
    toml = OLLAMA.replace('prompt = "0", completion = "0", free = true', f'prompt = {amount}, completion = "1"')
    (sentence,) = problems_of(toml)
    assert sentence.startswith("models[1].channels[1].prices[1].prompt: write the price of a million tokens")


@given(st.text(max_size=12))
def test_whatever_stands_for_an_amount_the_price_is_right_or_refused(amount: str) -> None:
    tables = tomllib.loads(OLLAMA)
    tables["models"][0]["channels"][0]["prices"] = [{"prompt": amount, "completion": "1"}]
    try:
        catalog = build_catalog(CatalogSettings(), tables, {}, KNOWN)
    except CatalogInvalid:
        return
    listing = catalog.listing("local/llama-3.3-70b", 0)
    assert listing is not None
    price = listing.channels[0].price
    assert price is not None
    assert price.rates.prompt == Fraction(amount) * 10**9 > 0


@pytest.mark.parametrize("percent", ["-1", "1001", "1e1", "5,5", "nan", "", " 5", "0.0000001"])
def test_a_markup_that_is_no_plain_percentage_is_refused(percent: str) -> None:
    (sentence,) = problems_of("", markup=percent)
    assert sentence.startswith("catalog.markup_percent: write the percentage")


@pytest.mark.parametrize("rate", ['"0"', '"0.0"', '"-1.0"', "0.14", '"1000.5"', '"nan"'])
def test_an_exchange_rate_that_gives_money_away_is_refused(rate: str) -> None:
    problems = problems_of(f'[providers.z-ai]\nsite = "china"\nusd_per_cny = {rate}\n', {"ZAI_API_KEY": "k"})
    assert problems == [
        'providers.z-ai.usd_per_cny: write what one CNY costs you in USD as a decimal string, such as "0.1412".'
    ]


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"providers": []}, "providers: write at most 200 tables such as [providers.ollama]."),
        ({"models": {}}, "models: write at most 5000 tables, each under [[models]]."),
        ({"calendars": 3}, "calendars: write tables, each under [[calendars]]."),
        ({"models": ["x"]}, "models[1]: needs a table."),
        ({"providers": {"x": 1}}, "providers.x: needs a table."),
        ({"model": []}, "model: is not a table of the catalogue."),
    ],
)
def test_tables_of_the_wrong_kind_are_refused(tables: dict[str, object], sentence: str) -> None:
    with pytest.raises(CatalogInvalid) as failure:
        build_catalog(CatalogSettings(), tables, {}, KNOWN)
    assert failure.value.problems == (sentence,)


def test_a_key_in_a_variable_cannot_end_the_header_that_carries_it() -> None:
    (sentence,) = problems_of("", {"DEEPSEEK_API_KEY": "sk-a\r\nx-evil: 1"})
    assert sentence.startswith("providers.deepseek: DEEPSEEK_API_KEY: a key is visible ASCII")


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_key_file_that_is_missing_or_empty_is_a_fault(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    (sentence,) = problems_of(OLLAMA.replace('api_key = ""', f'api_key_file = "{path}"'))
    assert sentence.startswith("providers.ollama.api_key_file: ")
    assert str(path) not in sentence


def test_an_alias_that_means_two_models_is_refused() -> None:
    toml = OLLAMA.replace("context_tokens", 'public_aliases = ["deepseek/deepseek-v4-flash"]\ncontext_tokens')
    (sentence,) = problems_of(toml, DEEPSEEK)
    assert sentence == "public_aliases: deepseek/deepseek-v4-flash means two models; keep it at one of them."

"""The built-in catalogue is whole, says where its prices come from, and has the prices that were checked."""

import tomllib
from datetime import date, datetime
from importlib import resources

import pytest

from dragonfly.catalog.build import build_catalog
from dragonfly.catalog.builtin import FILES, Builtin, load_builtin, parse_builtin
from dragonfly.catalog.catalog import Catalog, PricedChannel
from dragonfly.catalog.errors import CatalogInvalid
from dragonfly.catalog.schedule import instant_ns
from dragonfly.providers.dialects import DIALECTS
from dragonfly.settings import CatalogSettings

KNOWN = load_builtin()
KEYS = {provider.api_key_env: "a-key-for-tests" for provider in KNOWN.providers.values()}
OFF_PEAK = "2026-11-23T20:00:00+08:00"
PEAK = "2026-11-23T10:00:00+08:00"
ENTRIES = [(slug, model) for slug, model in KNOWN.models]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return build_catalog(CatalogSettings(), {}, KEYS, KNOWN)


def sold(catalog: Catalog, model: str, provider: str, moment: str = OFF_PEAK) -> PricedChannel:
    listing = catalog.listing(model, instant_ns(datetime.fromisoformat(moment)))
    assert listing is not None
    return next(priced for priced in listing.channels if priced.channel.provider == provider)


def in_usd(priced: PricedChannel, prompt_tokens: int = 1) -> tuple[float, ...]:
    """prompt, cache read, completion, cache write, one-hour write: USD per million tokens."""
    assert priced.price is not None
    rates = priced.price.rates_reached(prompt_tokens)
    shown = (rates.prompt, rates.cache_read, rates.completion, rates.cache_write, rates.cache_write_1h)
    return tuple(rate / 1e9 for rate in shown)


def test_every_file_of_the_folder_is_read() -> None:
    folder = resources.files("dragonfly.catalog") / "data"
    assert sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml")) == sorted(
        f"{name}.toml" for name in FILES
    )


def test_each_provider_is_enabled_by_its_own_variable() -> None:
    assert {slug: provider.api_key_env for slug, provider in KNOWN.providers.items()} == {
        "deepseek": "DEEPSEEK_API_KEY",
        "moonshotai": "MOONSHOT_API_KEY",
        "alibaba": "DASHSCOPE_API_KEY",
        "z-ai": "ZAI_API_KEY",
        "minimax": "MINIMAX_API_KEY",
        "openai": "OPENAI_API_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
        "google-ai-studio": "GEMINI_API_KEY",
        "xai": "XAI_API_KEY",
        "mistral": "MISTRAL_API_KEY",
        "groq": "GROQ_API_KEY",
        "together": "TOGETHER_API_KEY",
    }
    assert {provider.dialect for provider in KNOWN.providers.values()} <= set(DIALECTS)


@pytest.mark.parametrize(("slug", "variable"), [(s, p.api_key_env) for s, p in KNOWN.providers.items()])
def test_one_key_enables_one_provider_and_nothing_else(slug: str, variable: str) -> None:
    enabled = build_catalog(CatalogSettings(), {}, {variable: "a-key-for-tests"}, KNOWN)
    assert [provider.slug for provider in enabled.providers()] == [slug]
    assert enabled.notes == ()


def test_without_keys_nothing_is_sold() -> None:
    assert build_catalog(CatalogSettings(), {}, {"DEEPSEEK_API_KEY": "  "}, KNOWN).names() == ()


@pytest.mark.parametrize(
    ("slug", "model"), ENTRIES, ids=[f"{slug}:{model.upstream_model}" for slug, model in ENTRIES]
)
def test_every_price_has_its_source_and_the_day_it_was_checked(slug: str, model: object) -> None:
    entry = next(entry for name, entry in KNOWN.models if name == slug and entry is model)
    assert entry.prices
    for price in entry.prices:
        assert price.source.startswith("https://")
        assert price.checked_on is not None
        assert price.checked_on <= date(2026, 11, 23)
    assert any(price.currency == "USD" for price in entry.prices)


def test_models_are_described_once_by_their_maker_or_first_host() -> None:
    ids = [(slug, entry.id) for slug, entry in KNOWN.models]
    assert len(set(ids)) == len(ids)
    upstream = [(slug, entry.upstream_model) for slug, entry in KNOWN.models]
    assert len(set(upstream)) == len(upstream)
    for slug, entry in KNOWN.models:
        aliases = [
            alias for name, other in KNOWN.models if name == slug and other is not entry for alias in other.aliases
        ]
        assert entry.upstream_model not in aliases


def test_everything_listed_is_sold_today(catalog: Catalog) -> None:
    now_ns = instant_ns(datetime.fromisoformat(OFF_PEAK))
    assert len(catalog.names()) == 63
    for name in catalog.names():
        listing = catalog.listing(name, now_ns)
        assert listing is not None
        assert all(priced.price is not None for priced in listing.channels), name
        assert listing.output_tokens_max <= listing.context_tokens_max


@pytest.mark.parametrize(
    ("model", "provider", "expected"),
    [
        ("deepseek/deepseek-flash", "deepseek", (0.15, 0.003, 0.60, 0.15, 0.15)),
        ("deepseek/deepseek-v4-pro", "deepseek", (0.66, 0.022, 1.98, 0.66, 0.66)),
        ("deepseek/deepseek-flash", "together", (0.3, 0.006, 1.2, 0.3, 0.3)),
        ("deepseek/deepseek-v4-pro", "together", (1.32, 0.13, 3.96, 1.32, 1.32)),
        ("moonshotai/kimi-k3.1-pro", "moonshotai", (2, 0.2, 10, 2, 4)),
        ("moonshotai/kimi-k3.1-pro", "together", (2, 0.2, 10, 2, 2)),
        ("moonshotai/kimi-k3.1-pro-highspeed", "moonshotai", (4, 0.2, 20, 4, 8)),
        ("moonshotai/kimi-k3", "moonshotai", (3, 0.3, 15, 3, 6)),
        ("moonshotai/kimi-k2.7-code", "moonshotai", (0.95, 0.19, 4, 0.95, 0.95)),
        ("moonshotai/kimi-k2.7-code-highspeed", "moonshotai", (1.9, 0.38, 8, 1.9, 1.9)),
        ("moonshotai/kimi-k2.6", "moonshotai", (0.95, 0.16, 4, 0.95, 0.95)),
        ("z-ai/glm-5.3", "z-ai", (1.4, 0.26, 4.4, 1.4, 1.4)),
        ("z-ai/glm-5.3-flash", "z-ai", (0.15, 0.03, 0.5, 0.15, 0.15)),
        ("z-ai/glm-5.3-flashx", "z-ai", (0.37, 0.075, 1.25, 0.37, 0.37)),
        ("z-ai/glm-5", "z-ai", (1, 0.2, 3.2, 1, 1)),
        ("z-ai/glm-4.6", "z-ai", (0.6, 0.11, 2.2, 0.6, 0.6)),
        ("z-ai/glm-4.5-flash", "z-ai", (0, 0, 0, 0, 0)),
        ("qwen/qwen3.8-max", "alibaba", (2, 0.25, 6, 2.5, 2.5)),
        ("qwen/qwen3.8-flash", "alibaba", (0.15, 0.016, 0.47, 0.2, 0.2)),
        ("qwen/qwen3.7-max", "alibaba", (2.5, 0.5, 7.5, 3.125, 3.125)),
        ("minimax/minimax-m2.7", "minimax", (0.3, 0.06, 1.2, 0.375, 0.375)),
        ("minimax/minimax-m3.1-flash", "minimax", (0.15, 0.015, 0.6, 0.15, 0.15)),
        ("openai/gpt-6-astra", "openai", (10, 1, 50, 12.5, 12.5)),
        ("openai/gpt-5.5", "openai", (5, 0.5, 30, 5, 5)),
        ("openai/gpt-4o-mini", "openai", (0.15, 0.075, 0.6, 0.15, 0.15)),
        ("anthropic/claude-fable-5.2", "anthropic", (8, 0.2, 40, 10, 16)),
        ("anthropic/claude-opus-5.5", "anthropic", (4, 0.2, 20, 5, 8)),
        ("anthropic/claude-haiku-4.5", "anthropic", (1, 0.1, 5, 1.25, 2)),
        ("google/gemini-2.5-flash", "google-ai-studio", (0.3, 0.03, 2.5, 0.3, 0.3)),
        ("x-ai/grok-4.7", "xai", (2, 0.5, 6, 2, 2)),
        ("x-ai/grok-4.1-fast", "xai", (0.2, 0.05, 0.5, 0.2, 0.2)),
        ("mistralai/mistral-large-4", "mistral", (0.7, 0.07, 2.1, 0.7, 0.7)),
        ("openai/gpt-oss-20b", "groq", (0.075, 0.0375, 0.3, 0.075, 0.075)),
        # Without a price for cached input, cached input costs what input costs.
        ("meta-llama/llama-3.3-70b-instruct", "groq", (0.59, 0.59, 0.79, 0.59, 0.59)),
    ],
)
def test_prices_are_those_that_were_checked(
    catalog: Catalog, model: str, provider: str, expected: tuple[float, ...]
) -> None:
    assert in_usd(sold(catalog, model, provider)) == expected


def test_deepseek_doubles_at_peak(catalog: Catalog) -> None:
    assert in_usd(sold(catalog, "deepseek/deepseek-flash", "deepseek", PEAK))[:3] == (0.30, 0.006, 1.20)
    assert in_usd(sold(catalog, "deepseek/deepseek-v4-pro", "deepseek", PEAK))[:3] == (1.32, 0.044, 3.96)


@pytest.mark.parametrize(
    ("model", "provider", "prompt_tokens", "expected"),
    [
        ("openai/gpt-6.1-sol", "openai", 272_000, (2, 0.1, 10, 2.5, 2.5)),
        ("openai/gpt-6.1-sol", "openai", 272_001, (4, 0.2, 15, 5, 5)),
        ("openai/gpt-6-luna", "openai", 272_001, (0.2, 0.02, 0.75, 0.25, 0.25)),
        ("openai/gpt-4.1", "openai", 1_000_000, (2, 0.5, 8, 2, 2)),
        ("anthropic/claude-haiku-5.5", "anthropic", 100_000, (0.1, 0.01, 0.5, 0.125, 0.2)),
        ("anthropic/claude-haiku-5.5", "anthropic", 100_001, (0.5, 0.05, 2.5, 0.625, 1)),
        ("google/gemini-3.1-pro-preview", "google-ai-studio", 200_000, (2, 0.2, 12, 2, 2)),
        ("google/gemini-3.1-pro-preview", "google-ai-studio", 200_001, (4, 0.4, 18, 4, 4)),
        # At xAI the border itself is dear.
        ("x-ai/grok-4.5", "xai", 199_999, (2, 0.3, 6, 2, 2)),
        ("x-ai/grok-4.5", "xai", 200_000, (4, 0.6, 12, 4, 4)),
        ("qwen/qwen3.7-plus", "alibaba", 256_000, (0.4, 0.08, 1.6, 0.5, 0.5)),
        ("qwen/qwen3.7-plus", "alibaba", 256_001, (1.2, 0.24, 4.8, 1.5, 1.5)),
        ("minimax/minimax-m3", "minimax", 512_000, (0.3, 0.06, 1.2, 0.3, 0.3)),
        ("minimax/minimax-m3", "minimax", 512_001, (0.6, 0.12, 2.4, 0.6, 0.6)),
    ],
)
def test_long_prompts_cost_more_above_the_border(
    catalog: Catalog, model: str, provider: str, prompt_tokens: int, expected: tuple[float, ...]
) -> None:
    assert in_usd(sold(catalog, model, provider), prompt_tokens) == expected


@pytest.mark.parametrize(
    ("model", "provider", "moment", "expected"),
    [
        ("google/gemini-4-argon", "google-ai-studio", "2026-11-30T23:59:59+00:00", (2, 0.1, 10)),
        ("google/gemini-4-argon", "google-ai-studio", "2026-12-01T00:00:00+00:00", (4, 0.2, 20)),
        ("google/gemini-3.8-flash", "google-ai-studio", "2026-12-31T23:59:59+00:00", (0.75, 0.075, 3.75)),
        ("google/gemini-3.8-flash", "google-ai-studio", "2027-01-01T00:00:00+00:00", (1.5, 0.15, 7.5)),
        ("google/gemini-3.5-flash", "google-ai-studio", "2027-01-01T00:00:00+00:00", (1.5, 0.15, 9)),
        ("deepseek/deepseek-flash", "deepseek", "2026-08-16T15:59:59+00:00", (0.14, 0.0028, 0.28)),
        ("deepseek/deepseek-v4-pro", "deepseek", "2026-08-16T15:59:59+00:00", (0.435, 0.003625, 0.87)),
        ("mistralai/mistral-large-4", "mistral", "2026-10-28T00:00:00+00:00", (1.36, 0.14, 4.18)),
    ],
)
def test_prices_change_on_the_announced_day(
    catalog: Catalog, model: str, provider: str, moment: str, expected: tuple[float, ...]
) -> None:
    assert in_usd(sold(catalog, model, provider, moment))[:3] == expected


def test_providers_are_reached_where_their_documents_say(catalog: Catalog) -> None:
    reached = {}
    for name in catalog.names():
        model = catalog.model(name)
        assert model is not None
        for supply in model.supplies:
            origin = supply.channel.origin
            assert origin.tls
            assert origin.port == 443
            reached[supply.provider.slug] = origin.host + supply.channel.path
    assert reached == {
        "deepseek": "api.deepseek.com/chat/completions",
        "moonshotai": "api.moonshot.ai/v1/chat/completions",
        "alibaba": "dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions",
        "z-ai": "api.z.ai/api/paas/v4/chat/completions",
        "minimax": "api.minimax.io/v1/chat/completions",
        "openai": "api.openai.com/v1/chat/completions",
        "anthropic": "api.anthropic.com/v1/chat/completions",
        "google-ai-studio": "generativelanguage.googleapis.com/v1beta/openai/chat/completions",
        "xai": "api.x.ai/v1/chat/completions",
        "mistral": "api.mistral.ai/v1/chat/completions",
        "groq": "api.groq.com/openai/v1/chat/completions",
        "together": "api.together.xyz/v1/chat/completions",
    }


def test_known_limits_stand_in_the_channels(catalog: Catalog) -> None:
    flash = sold(catalog, "deepseek/deepseek-flash", "deepseek").channel
    pro = sold(catalog, "deepseek/deepseek-v4-pro", "deepseek").channel
    assert (flash.concurrency_max, pro.concurrency_max) == (2_500, 500)
    kimi = sold(catalog, "moonshotai/kimi-k3", "moonshotai").channel
    assert kimi.drop_fields == {"temperature", "top_p", "presence_penalty", "frequency_penalty"}
    assert kimi.max_tokens_field == "max_completion_tokens"


def test_embeddings_are_known_but_not_sold_as_chat(catalog: Catalog) -> None:
    embeddings = {entry.id for _, entry in KNOWN.models if entry.kind == "embedding"}
    assert len(embeddings) == 4
    assert embeddings.isdisjoint(catalog.names())


def test_a_damaged_file_stops_everything_and_names_every_fault() -> None:
    texts = [(name, resources.files("dragonfly.catalog").joinpath(f"data/{name}.toml").read_text()) for name in FILES]
    damaged = [
        (name, text.replace('prompt = "0.15"', "prompt = 0.15") if name == "deepseek" else text)
        for name, text in texts
    ]
    damaged = [(name, text + "]" if name == "groq" else text) for name, text in damaged]
    with pytest.raises(CatalogInvalid) as failure:
        parse_builtin(damaged)
    assert len(failure.value.problems) == 2
    assert failure.value.problems[0].startswith("deepseek.toml.models[1].prices[2].prompt: write the price")
    assert failure.value.problems[1] == "groq.toml: is not valid TOML."


def test_amounts_are_written_as_text_so_that_nothing_rounds_them() -> None:
    for name in FILES:
        text = resources.files("dragonfly.catalog").joinpath(f"data/{name}.toml").read_text()
        assert not list(floats_in(tomllib.loads(text))), name


def floats_in(value: object) -> list[float]:
    if isinstance(value, dict):
        return [found for inner in value.values() for found in floats_in(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in floats_in(inner)]
    return [value] if isinstance(value, float) else []


def test_a_catalogue_of_ones_own_can_stand_in_for_the_packaged_one() -> None:
    assert build_catalog(CatalogSettings(), {}, KEYS, Builtin({}, (), {})).names() == ()

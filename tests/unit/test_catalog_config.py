"""What the operator's tables can say."""

import tomllib
from fractions import Fraction
from pathlib import Path

from dragonfly.catalog.build import build_catalog
from dragonfly.catalog.builtin import load_builtin
from dragonfly.catalog.catalog import Catalog, PricedChannel
from dragonfly.core.tokens import TokenUsage
from dragonfly.settings import CatalogSettings

KNOWN = load_builtin()
NOW_NS = 1_795_435_200 * 10**9
"""Monday 2026-11-23, 20:00 in Beijing: off-peak."""
DEEPSEEK = {"DEEPSEEK_API_KEY": "sk-deepseek"}
OLLAMA = """
[providers.ollama]
base_url = "http://localhost:11434/v1"
api_key = ""
dialect = "ollama"

[[models]]
id = "local/llama-3.3-70b"
context_tokens = 131_072

  [[models.channels]]
  provider = "ollama"
  model = "llama3.3:70b"
  prices = [{ prompt = "0", completion = "0", free = true }]
"""


def catalog_of(
    toml: str, environ: dict[str, str] | None = None, *, markup: str = "0", builtin: bool = True
) -> Catalog:
    settings = CatalogSettings(markup_percent=markup, builtin=builtin)
    return build_catalog(settings, tomllib.loads(toml), environ or {}, KNOWN)


def channels(catalog: Catalog, model: str) -> list[PricedChannel]:
    listing = catalog.listing(model, NOW_NS)
    assert listing is not None
    return list(listing.channels)


def test_a_server_without_keys_is_a_provider() -> None:
    catalog = catalog_of(OLLAMA)
    assert catalog.names() == ("local/llama-3.3-70b",)
    (priced,) = channels(catalog, "local/llama-3.3-70b")
    channel = priced.channel
    assert (channel.origin.host, channel.origin.port, channel.origin.tls) == ("localhost", 11434, False)
    assert (channel.path, channel.upstream_model, channel.dialect) == (
        "/v1/chat/completions",
        "llama3.3:70b",
        "ollama",
    )
    assert not channel.credential
    assert priced.price is not None
    assert priced.price.is_free
    assert catalog.notes == ()


def test_the_largest_output_is_the_context_where_nobody_says_otherwise() -> None:
    listing = catalog_of(OLLAMA).listing("local/llama-3.3-70b", NOW_NS)
    assert listing is not None
    assert (listing.context_tokens_max, listing.output_tokens_max) == (131_072, 131_072)


def test_a_simulated_upstream_is_a_provider_like_any_other_and_says_so() -> None:
    catalog = catalog_of(OLLAMA.replace('dialect = "ollama"', "simulated = true"))
    (priced,) = channels(catalog, "local/llama-3.3-70b")
    assert priced.channel.simulated
    assert [provider.simulated for provider in catalog.providers()] == [True]


def test_keys_come_from_the_file_a_variable_or_a_file_of_their_own(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("sk-from-a-file\n")
    for line, expected in (
        ('api_key = "sk-written-here"', "sk-written-here"),
        ('api_key_env = "MY_KEY"', "sk-from-the-environment"),
        (f'api_key_file = "{key_file}"', "sk-from-a-file"),
    ):
        catalog = catalog_of(OLLAMA.replace('api_key = ""', line), {"MY_KEY": "sk-from-the-environment\n"})
        (priced,) = channels(catalog, "local/llama-3.3-70b")
        assert priced.channel.credential.reveal() == expected


def test_a_provider_without_its_variable_is_left_out_and_the_operator_is_told() -> None:
    catalog = catalog_of(OLLAMA.replace('api_key = ""', 'api_key_env = "MY_KEY"'))
    assert catalog.names() == ()
    assert catalog.notes == (
        "providers.ollama: is left out, because MY_KEY is not set.",
        "models[1].channels[1]: is left out, because its provider is not enabled.",
    )


def test_a_provider_can_be_switched_off_although_its_key_is_there() -> None:
    assert catalog_of("[providers.deepseek]\nenabled = false\n", DEEPSEEK).names() == ()


def test_the_built_in_models_can_be_left_out_altogether() -> None:
    assert catalog_of(OLLAMA, DEEPSEEK, builtin=False).names() == ("local/llama-3.3-70b",)


def test_a_built_in_model_can_be_hidden() -> None:
    hidden = catalog_of('[[models]]\nid = "deepseek/deepseek-v4-pro"\nenabled = false\n', DEEPSEEK)
    assert hidden.names() == ("deepseek/deepseek-flash",)


def test_timeouts_and_limits_of_a_provider_reach_its_channels() -> None:
    catalog = catalog_of(
        """
        [providers.deepseek]
        concurrency_max = 7
        timeouts = { head_s = 30, idle_s = 5.5 }
        """,
        DEEPSEEK,
    )
    (priced,) = channels(catalog, "deepseek/deepseek-flash")
    assert (priced.channel.timeouts.connect_s, priced.channel.timeouts.head_s) == (5.0, 30.0)
    assert priced.channel.timeouts.idle_s == 5.5
    # The model's own limit is the narrower fact: it is DeepSeek's, per model.
    assert priced.channel.concurrency_max == 2_500


def test_a_second_channel_takes_the_model_of_a_built_in_one() -> None:
    catalog = catalog_of(
        OLLAMA
        + """
        [[models]]
        id = "deepseek/deepseek-flash"

          [[models.channels]]
          provider = "ollama"
          model = "deepseek-flash"
          prices = [{ prompt = "0.05", completion = "0.10" }]
        """,
        DEEPSEEK,
    )
    own, builtin = channels(catalog, "deepseek/deepseek-flash")
    assert (own.channel.id, builtin.channel.id) == (
        "deepseek/deepseek-flash@ollama",
        "deepseek/deepseek-flash@deepseek",
    )
    assert own.price is not None
    assert own.price.rates.prompt == 50_000_000
    model = catalog.model("deepseek/deepseek-v4-flash")
    assert model is not None
    assert model.name == "DeepSeek: DeepSeek V4.1 Flash"
    assert model.supplies[0].context_tokens == 1_048_565, "the model's context, since the channel gives none"


def test_the_operators_price_replaces_the_built_in_one_of_the_same_channel() -> None:
    catalog = catalog_of(
        """
        [[models]]
        id = "deepseek/deepseek-flash"

          [[models.channels]]
          provider = "deepseek"
          model = "deepseek-flash"
          prices = [{ prompt = "0.10", completion = "0.40", cache_read = "0.001" }]
        """,
        DEEPSEEK,
    )
    (priced,) = channels(catalog, "deepseek/deepseek-flash")
    assert priced.price is not None
    assert priced.price.rates[:3] == (100_000_000, 400_000_000, 1_000_000)
    assert priced.channel.concurrency_max == 2_500, "what the operator does not say stays as it is built in"


def test_a_model_of_ones_own_may_use_a_built_in_channel_at_its_built_in_price() -> None:
    catalog = catalog_of(
        """
        [[models]]
        id = "acme/assistant"
        name = "The assistant"
        markup_percent = "10"
        channels = [{ provider = "deepseek", model = "deepseek-flash" }]
        """,
        DEEPSEEK,
    )
    (priced,) = channels(catalog, "acme/assistant")
    assert priced.price is not None
    assert priced.price.rates.prompt == 150_000_000
    assert priced.price.markup == Fraction(11, 10)


def test_a_channel_without_any_price_is_shown_and_not_sold() -> None:
    catalog = catalog_of(OLLAMA.replace("  prices =", "  # prices ="))
    (priced,) = channels(catalog, "local/llama-3.3-70b")
    assert priced.price is None
    assert catalog.notes == ("local/llama-3.3-70b@ollama: is shown but not sold, because it has no price in USD.",)


def test_two_deployments_of_one_provider_are_two_channels() -> None:
    catalog = catalog_of(
        OLLAMA.replace(
            "  [[models.channels]]",
            '  [[models.channels]]\n  provider = "ollama"\n  model = "llama3.3:70b-q4"\n'
            '  prices = [{ prompt = "0.01", completion = "0.02" }]\n\n  [[models.channels]]',
        )
    )
    assert [priced.channel.id for priced in channels(catalog, "local/llama-3.3-70b")] == [
        "local/llama-3.3-70b@ollama",
        "local/llama-3.3-70b@ollama:llama3.3-70b",
    ]


def test_markup_comes_from_the_model_else_from_the_settings() -> None:
    catalog = catalog_of(
        '[[models]]\nid = "deepseek/deepseek-v4-pro"\nmarkup_percent = "0"\n', DEEPSEEK, markup="5.5"
    )
    (flash,), (pro,) = channels(catalog, "deepseek/deepseek-flash"), channels(catalog, "deepseek/deepseek-v4-pro")
    assert flash.price is not None
    assert pro.price is not None
    assert (flash.price.markup, pro.price.markup) == (Fraction(211, 200), Fraction(1))
    assert flash.price.cost(TokenUsage(1_000_000, 0))[:2] == (158_250_000, 150_000_000)


def test_a_site_in_china_is_paid_in_cny_at_the_operators_rate() -> None:
    catalog = catalog_of('[providers.z-ai]\nsite = "china"\nusd_per_cny = "0.1412"\n', {"ZAI_API_KEY": "k"})
    (priced,) = channels(catalog, "z-ai/glm-5.3")
    assert priced.channel.origin.host == "open.bigmodel.cn"
    assert priced.price is not None
    # 8 / 2 / 28 CNY x 0.1412.
    rates = priced.price.rates
    assert (rates.prompt, rates.cache_read, rates.completion) == (1_129_600_000, 282_400_000, 3_953_600_000)
    # Models without a known price in CNY are not sold there.
    assert channels(catalog, "z-ai/glm-5.2")[0].price is None
    assert any("glm-5.2@z-ai: is shown but not sold" in note for note in catalog.notes)


def test_a_converted_price_is_rounded_up_so_that_it_never_falls_below_the_providers() -> None:
    catalog = catalog_of('[providers.z-ai]\nsite = "china"\nusd_per_cny = "0.141234567"\n', {"ZAI_API_KEY": "k"})
    (priced,) = channels(catalog, "z-ai/glm-5.3-flash")
    assert priced.price is not None
    # 0.23 CNY x 0.141234567 = 0.03248395041 USD.
    assert priced.price.rates.cache_read == 32_483_951


def test_deepseek_paid_in_cny_keeps_its_peak_hours() -> None:
    catalog = catalog_of('[providers.deepseek]\nsite = "china"\nusd_per_cny = "0.14"\n', DEEPSEEK)
    peak = catalog.listing("deepseek/deepseek-v4-pro", NOW_NS - 10 * 3_600 * 10**9)
    assert peak is not None
    price = peak.channels[0].price
    assert price is not None
    assert (price.rates.prompt, price.rates.completion) == (1_260_000_000, 3_780_000_000)


def test_windows_and_tiers_can_be_written_by_the_operator() -> None:
    catalog = catalog_of(
        OLLAMA.replace(
            '  prices = [{ prompt = "0", completion = "0", free = true }]',
            """
  [[models.channels.prices]]
  prompt = "1"
  completion = "2"
  tier_kind = "marginal"
  tiers = [{ above_prompt_tokens = 1_000, prompt = "2", completion = "4" }]

    [[models.channels.prices.windows]]
    name = "night"
    when = { zone = "Europe/Berlin", hours = [["00:00", "06:00"], ["22:00", "24:00"]], except_holidays = "own" }
    prompt = "0.5"
    completion = "1"

[[calendars]]
name = "own"
complete_from = 2026-01-01
complete_to = 2026-12-31
source = "our own"
days_off = [2026-11-24]
""",
        )
    )
    evening = channels(catalog, "local/llama-3.3-70b")[0].price
    assert evening is not None
    assert evening.is_marginal
    assert evening.cost(TokenUsage(2_000, 0)).customer_nusd == 1_000_000 + 2_000_000
    night = catalog.listing("local/llama-3.3-70b", NOW_NS + 10 * 3_600 * 10**9)  # 23:00 in Berlin
    day_off = catalog.listing("local/llama-3.3-70b", NOW_NS + 12 * 3_600 * 10**9)  # 01:00 on the 24th
    assert night is not None
    assert day_off is not None
    assert night.channels[0].price is not None
    assert night.channels[0].price.rates.prompt == 500_000_000
    assert day_off.channels[0].price is evening


def test_a_calendar_of_the_operators_replaces_the_packaged_one_of_the_same_name() -> None:
    toml = """
    [[calendars]]
    name = "china"
    complete_from = 2026-01-01
    complete_to = 2027-12-31
    source = "a later notice"
    days_off = [2026-11-23]
    """
    peak_ns = NOW_NS - 10 * 3_600 * 10**9
    for text, expected in (("", 300_000_000), (toml, 150_000_000)):
        listing = catalog_of(text, DEEPSEEK).listing("deepseek/deepseek-flash", peak_ns)
        assert listing is not None
        assert listing.channels[0].price is not None
        assert listing.channels[0].price.rates.prompt == expected


def test_plain_http_to_another_machine_is_noted_because_key_and_prompts_are_readable_there() -> None:
    toml = OLLAMA.replace("localhost", "gpu.internal").replace('api_key = ""', 'api_key = "k"')
    assert "plain http" in catalog_of(toml).notes[0]

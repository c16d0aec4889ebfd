"""The comparison with somebody else's prices: what it finds, and what it finds today."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import pytest

from dragonfly.catalog.builtin import Builtin, load_builtin, parse_builtin
from dragonfly.catalog.check import Drift, Finding, GenaiPrices, PricesMissing, TheirRate, check_catalog
from dragonfly.catalog.schedule import instant_ns

NOW_NS = instant_ns(datetime.fromisoformat("2026-11-23T00:00:00+00:00"))
FILE = """
schema_version = 1

[provider]
slug = "acme"
name = "Acme"
authors = ["acme"]
base_url = "https://api.acme.example/v1"
api_key_env = "ACME_API_KEY"
dialect = "openai"

[[models]]
id = "acme/one"
upstream_model = "one"
name = "One"
context_tokens = 1_000
listed_on = 2026-11-23

  [[models.prices]]
  prompt = "1"
  completion = "2"
  cache_read = "0.1"
  source = "https://acme.example"
  checked_on = 2026-11-01
  tiers = [{ above_prompt_tokens = 500, prompt = "2", completion = "4", cache_read = "0.2" }]

  [[models.prices]]
  valid_from = 2027-03-01
  prompt = "3"
  completion = "6"
  source = "https://acme.example"
  checked_on = 2026-11-01
"""


def rate(base: str, *tiers: tuple[int, str]) -> TheirRate:
    return TheirRate(Decimal(base), tuple((start, Decimal(price)) for start, price in tiers))


AGREEING = {
    "prompt": rate("1", (500, "2")),
    "completion": rate("2", (500, "4")),
    "cache_read": rate("0.1", (500, "0.2")),
}


@dataclass
class PaperBook:
    """A price list on paper: model -> rates before and from March 2027."""

    rates_now: dict[str, dict[str, TheirRate]]
    rates_later: dict[str, dict[str, TheirRate]] = field(default_factory=dict)
    source: str = "paper"

    def covers(self, provider: str) -> bool:
        return provider == "acme"

    def models(self, provider: str) -> tuple[str, ...]:
        return tuple(self.rates_now)

    def find(self, provider: str, model: str) -> str | None:
        return model if model in self.rates_now else None

    def rates(self, provider: str, model: str, moment: datetime) -> Mapping[str, TheirRate]:
        later = self.rates_later.get(model, {"prompt": rate("3"), "completion": rate("6")})
        return later if (moment.year, moment.month) >= (2027, 3) else self.rates_now[model]


def acme(text: str = FILE) -> Builtin:
    return parse_builtin([("acme", text)])


def test_prices_that_agree_now_and_later_are_a_clean_report() -> None:
    report = check_catalog(acme(), PaperBook({"one": AGREEING}), NOW_NS)
    assert (report.source, report.compared, report.drifts) == ("paper", 1, ())
    assert report.is_clean


def test_each_class_that_differs_is_one_line_with_both_prices() -> None:
    theirs = {**AGREEING, "completion": rate("2.5", (500, "4")), "cache_write": rate("1.25", (500, "2"))}
    report = check_catalog(acme(), PaperBook({"one": theirs}), NOW_NS)
    assert not report.is_clean
    assert [(d.rate_class, d.above_prompt_tokens, d.ours, d.theirs) for d in report.drifts] == [
        ("completion", 0, "2", "2.5"),
        ("cache_write", 0, "1", "1.25"),
    ]
    assert "of 169 sampled hours, first 2026-11-23T00:00:00Z" in report.drifts[0].when


def test_a_border_that_stands_elsewhere_is_found_on_both_sides_of_it() -> None:
    theirs = {**AGREEING, "prompt": rate("1", (600, "2"))}
    report = check_catalog(acme(), PaperBook({"one": theirs}), NOW_NS)
    assert [(d.rate_class, d.above_prompt_tokens, d.ours, d.theirs) for d in report.drifts] == [
        ("prompt", 500, "2", "1"),
    ]


def test_a_class_that_only_we_price_is_compared_with_what_they_would_bill() -> None:
    theirs = {name: price for name, price in AGREEING.items() if name != "cache_read"}
    report = check_catalog(acme(), PaperBook({"one": theirs}), NOW_NS)
    assert {(d.rate_class, d.above_prompt_tokens, d.ours, d.theirs) for d in report.drifts} == {
        ("cache_read", 0, "0.1", "1"),
        ("cache_read", 500, "0.2", "2"),
    }


def test_a_scheduled_price_that_differs_is_found_before_it_holds() -> None:
    book = PaperBook({"one": AGREEING}, {"one": {"prompt": rate("4"), "completion": rate("6")}})
    (drift,) = check_catalog(acme(), book, NOW_NS).drifts
    assert (drift.rate_class, drift.ours, drift.theirs) == ("prompt", "3", "4")
    assert drift.when == "1 of 169 sampled hours, first 2027-03-01T01:00:00Z"


def test_models_that_only_one_side_knows_are_named() -> None:
    report = check_catalog(acme(), PaperBook({"two": AGREEING}), NOW_NS)
    assert set(report.drifts) == {
        Drift(Finding.UNKNOWN_THERE, "acme", "one"),
        Drift(Finding.UNKNOWN_HERE, "acme", "two"),
    }
    assert report.is_clean, "an unlisted model is no wrong price"


def test_a_provider_that_they_do_not_know_is_said_to_be_unchecked() -> None:
    other = acme(FILE.replace('slug = "acme"', 'slug = "other"'))
    report = check_catalog(other, PaperBook({"one": AGREEING}), NOW_NS)
    assert (report.compared, report.drifts) == (0, (Drift(Finding.NOT_COVERED, "other", "one"),))


@pytest.mark.parametrize(("days", "stale"), [(22, 0), (21, 2)])
def test_prices_that_nobody_looked_at_for_long_are_stale(days: int, stale: int) -> None:
    now_ns = instant_ns(datetime.fromisoformat("2026-11-23T00:00:00+00:00"))
    report = check_catalog(acme(), PaperBook({"one": AGREEING}), now_ns, checked_days_max=days)
    assert [drift.finding for drift in report.drifts] == [Finding.STALE] * stale


def test_a_price_that_is_over_is_not_stale() -> None:
    ended = FILE.replace('  prompt = "1"', '  valid_to = 2026-11-10\n  prompt = "1"').replace(
        "2027-03-01", "2026-11-10"
    )
    book = PaperBook({"one": {"prompt": rate("3"), "completion": rate("6")}})
    report = check_catalog(acme(ended), book, NOW_NS, checked_days_max=1)
    assert [drift.finding for drift in report.drifts] == [Finding.STALE]


def test_a_holiday_calendar_that_ends_soon_is_reported() -> None:
    book = PaperBook({})
    early = instant_ns(datetime.fromisoformat("2026-10-31T00:00:00+00:00"))
    late = instant_ns(datetime.fromisoformat("2026-11-01T00:00:00+00:00"))
    ends = [
        [
            drift
            for drift in check_catalog(load_builtin(), book, moment).drifts
            if drift.finding is Finding.CALENDAR_ENDS
        ]
        for moment in (early, late)
    ]
    assert ends == [[], [Drift(Finding.CALENDAR_ENDS, "", "china", when="complete to 2026-12-31")]]


def test_a_missing_package_is_a_clear_refusal() -> None:
    with pytest.raises(PricesMissing) as refusal:
        GenaiPrices("no_such_package")
    assert "pip install 'dragonfly-gateway[prices]'" in refusal.value.message


def test_the_packaged_prices_agree_with_genai_prices_except_where_the_document_explains() -> None:
    pytest.importorskip("genai_prices")
    book = GenaiPrices()
    if book.source != "genai-prices 0.2.3":
        pytest.skip("the exceptions below are those of another version")
    report = check_catalog(load_builtin(), book, NOW_NS)
    assert report.compared == 65
    different = {(d.provider, d.model, d.rate_class) for d in report.drifts if d.finding is Finding.DIFFERENT}
    weekends = {
        ("deepseek", model, name)
        for model in ("deepseek-flash", "deepseek-v4-pro")
        for name in ("prompt", "completion", "cache_read")
    }
    assert different == weekends | {
        ("minimax", "MiniMax-M2.7-highspeed", "cache_read"),
        ("minimax", "MiniMax-M2.7-highspeed", "cache_write"),
    }
    # Seven peak hours on each of two weekend days is all that the other side gets wrong about DeepSeek.
    assert {d.when for d in report.drifts if d.provider == "deepseek" and d.finding is Finding.DIFFERENT} == {
        "14 of 168 sampled hours, first 2026-11-28T01:00:00Z"
    }

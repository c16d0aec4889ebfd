"""`dragonfly models` and `catalog`: what this installation sells, and whether its prices are still right."""

import os
from fractions import Fraction

import typer

from dragonfly.app.setup import configure
from dragonfly.catalog.builtin import load_builtin
from dragonfly.catalog.catalog import Catalog, Listing, PricedChannel
from dragonfly.catalog.check import Drift, DriftReport, Finding, GenaiPrices, check_catalog
from dragonfly.catalog.prices import PriceVersion
from dragonfly.cli.failures import REFUSED
from dragonfly.cli.opening import ConfigFile
from dragonfly.cli.output import AsJson, JsonValue, show_json, show_line, show_table, warn
from dragonfly.core.clock import SystemClock
from dragonfly.core.money import usd_text

catalog_commands = typer.Typer(no_args_is_help=True, help="The built-in catalogue: check its prices.")

_QUIET = (Finding.UNKNOWN_HERE, Finding.UNKNOWN_THERE, Finding.NOT_COVERED)
"""Findings that are no drift; shown as counts, and in full as JSON."""


def models(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the models on offer and what they cost.

    Prices are those of this moment, with the markup, in USD per million tokens. A built-in provider is on
    offer when its key is in the environment.

    \b
    Examples:
      dragonfly models
      DEEPSEEK_API_KEY=… dragonfly models --json
    """
    catalog = configure(os.environ, config).catalog
    listings = _listings(catalog, SystemClock().now_ns())
    if as_json:
        show_json({"models": [_fields(listing) for listing in listings], "notes": list(catalog.notes)})
        return
    for note in catalog.notes:
        warn(note)
    if not listings:
        warn(
            "Nothing is on offer. Set a provider's key, e.g. DEEPSEEK_API_KEY, or write [[models]] in dragonfly.toml."
        )
        return
    show_table(
        ("MODEL", "CONTEXT", "INPUT $/M", "OUTPUT $/M", "PROVIDERS"),
        [
            (listing.model, listing.context_tokens_max, *_price_range(listing), ", ".join(_providers(listing)))
            for listing in listings
        ],
    )


@catalog_commands.command("check")
def catalog_check(as_json: AsJson = False) -> None:
    """Compare the built-in prices with genai-prices.

    Prints where they differ, what nobody has checked for long, and calendars that end soon. Nothing is fetched and
    nothing is changed: a difference is news, not a correction. Exit code 1 when there is any. Needs the package
    genai-prices: pip install 'dragonfly-gateway[prices]'.

    \b
    Example:
      dragonfly catalog check --json
    """
    report = check_catalog(load_builtin(), GenaiPrices(), SystemClock().now_ns())
    if as_json:
        show_json(_report_fields(report))
    else:
        _show_report(report)
    if not report.is_clean:
        raise typer.Exit(REFUSED)


def _show_report(report: DriftReport) -> None:
    drifts = [drift for drift in report.drifts if drift.finding not in _QUIET]
    counts = [sum(drift.finding is finding for drift in report.drifts) for finding in _QUIET]
    show_line(f"Compared {report.compared} models with {report.source}: {len(drifts)} findings.")
    show_line("Not here: {}, not there: {}, providers not covered there: {} models.".format(*counts))
    if drifts:
        show_table(
            ("FINDING", "PROVIDER", "MODEL", "PRICE", "ABOVE TOKENS", "OURS $/M", "THEIRS $/M", "WHEN"),
            [
                (
                    drift.finding.value,
                    drift.provider,
                    drift.model,
                    drift.rate_class,
                    drift.above_prompt_tokens or "",
                    drift.ours,
                    drift.theirs,
                    drift.when,
                )
                for drift in drifts
            ],
        )


def _report_fields(report: DriftReport) -> dict[str, JsonValue]:
    return {
        "source": report.source,
        "compared": report.compared,
        "clean": report.is_clean,
        "findings": [_drift_fields(drift) for drift in report.drifts],
    }


def _drift_fields(drift: Drift) -> dict[str, JsonValue]:
    return {**drift._asdict(), "finding": drift.finding.value}


def _listings(catalog: Catalog, now_ns: int) -> list[Listing]:
    found = (catalog.listing(name, now_ns) for name in catalog.names())
    return [listing for listing in found if listing is not None]


def _providers(listing: Listing) -> list[str]:
    return list(dict.fromkeys(priced.channel.provider for priced in listing.channels))


def _price_range(listing: Listing) -> tuple[str, str]:
    """The cheapest channel's prices; "-" when nothing is sold at the moment."""
    prices = [priced.price for priced in listing.channels if priced.price is not None]
    if not prices:
        return "-", "-"
    cheapest = min(prices, key=lambda price: price.rates.prompt * 3 + price.rates.completion)
    return _per_million(cheapest, cheapest.rates.prompt), _per_million(cheapest, cheapest.rates.completion)


def _fields(listing: Listing) -> dict[str, JsonValue]:
    return {
        "model": listing.model,
        "context_tokens": listing.context_tokens_max,
        "output_tokens_max": listing.output_tokens_max,
        "channels": [_channel_fields(priced) for priced in listing.channels],
    }


def _channel_fields(priced: PricedChannel) -> dict[str, JsonValue]:
    price = priced.price
    return {
        "channel": priced.channel.id,
        "provider": priced.channel.provider,
        "simulated": priced.channel.simulated,
        "price_version": price.id if price else None,
        "prompt_usd_per_million": _per_million(price, price.rates.prompt) if price else None,
        "cached_usd_per_million": _per_million(price, price.rates.cache_read) if price else None,
        "completion_usd_per_million": _per_million(price, price.rates.completion) if price else None,
    }


def _per_million(price: PriceVersion, rate: int) -> str:
    """What the customer pays for a million tokens, rounded up to a nano-dollar for display."""
    exact: Fraction = price.customer_rate(rate)
    return usd_text(-(-exact.numerator // exact.denominator))

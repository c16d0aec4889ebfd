"""`dragonfly models`: what this installation sells, at which price, through whom."""

import os
from fractions import Fraction

from dragonfly.app.setup import configure
from dragonfly.catalog.catalog import Catalog, Listing, PricedChannel
from dragonfly.catalog.prices import PriceVersion
from dragonfly.cli.opening import ConfigFile
from dragonfly.cli.output import AsJson, JsonValue, show_json, show_table, warn
from dragonfly.core.clock import SystemClock
from dragonfly.core.money import usd_text


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
    show_table(
        ("MODEL", "CONTEXT", "INPUT $/M", "OUTPUT $/M", "PROVIDERS"),
        [
            (listing.model, listing.context_tokens_max, *_price_range(listing), ", ".join(_providers(listing)))
            for listing in listings
        ],
    )


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

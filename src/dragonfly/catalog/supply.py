"""Makes one channel with its prices out of the layers that describe it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from dragonfly.catalog.catalog import Supply
from dragonfly.catalog.config import ChannelOverlay
from dragonfly.catalog.connect import Connected, Report
from dragonfly.catalog.pricing import NOTHING_FOR_SALE, Terms, calendar_names, price_sheet
from dragonfly.catalog.schedule import Calendar, PriceSheet
from dragonfly.catalog.schema import PriceTable
from dragonfly.providers.channel import Channel

Value = TypeVar("Value")
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Offered:
    """One channel to be."""

    public_id: str
    where: str
    """Where it stands in the operator's file, for sentences."""
    layers: tuple[ChannelOverlay, ...]
    """What is said about it, the most specific first: the operator's channel, their model, the built-in entry."""
    own_prices: tuple[PriceTable, ...] | None
    """The operator's; None: the built-in ones hold."""

    @property
    def provider(self) -> str:
        return self.layers[0].provider

    @property
    def upstream_model(self) -> str:
        return self.layers[0].model


@dataclass(frozen=True, slots=True)
class Sale:
    """What all channels of one model share."""

    markup: Fraction
    calendars: Mapping[str, Calendar]


def first(*values: Value | None) -> Value | None:
    """The first that is given."""
    return next((value for value in values if value is not None), None)


def make_supply(
    offered: Offered, connected: Connected, sale: Sale, report: Report, *, taken_ids: set[str]
) -> Supply | None:
    """The channel with its prices; None when something is missing, which is then in the report."""
    layers = offered.layers
    context_tokens = first(*(layer.context_tokens for layer in layers))
    output_tokens_max = first(*(layer.output_tokens_max for layer in layers))
    if context_tokens is None:
        report.problems.append(f"{offered.where}.context_tokens: is missing; write it here or beside the model's id.")
    channel = _channel(offered, connected, taken_ids)
    sheet = _sheet(offered, channel.id, connected, sale, report)
    if context_tokens is None:
        return None
    parameters = first(*(layer.supported_parameters for layer in layers))
    return Supply(
        channel=channel,
        provider=connected.public,
        sheet=sheet,
        context_tokens=context_tokens,
        output_tokens_max=None if output_tokens_max is None else min(output_tokens_max, context_tokens),
        prompt_tokens_max=first(*(layer.prompt_tokens_max for layer in layers)),
        supported_parameters=connected.supported_parameters if parameters is None else parameters,
        implicit_caching=bool(first(*(layer.implicit_caching for layer in layers))),
        aliases=tuple(alias for layer in layers for alias in layer.aliases),
    )


def _channel(offered: Offered, connected: Connected, taken_ids: set[str]) -> Channel:
    layers = offered.layers
    drop_fields = first(*(layer.drop_fields for layer in layers))
    channel_id = f"{offered.public_id}@{offered.provider}"
    if channel_id in taken_ids:
        channel_id += ":" + _NOT_IN_IDS.sub("-", offered.upstream_model)
    return Channel(
        id=channel_id,
        provider=connected.public.slug,
        upstream_model=offered.upstream_model,
        origin=connected.origin,
        path=connected.path,
        credential=connected.credential,
        dialect=connected.dialect,
        concurrency_max=first(*(layer.concurrency_max for layer in layers), connected.concurrency_max),
        drop_fields=frozenset(connected.drop_fields if drop_fields is None else drop_fields),
        max_tokens_field=first(*(layer.max_tokens_field for layer in layers)) or connected.max_tokens_field,
        simulated=connected.public.simulated,
        may_train=connected.public.trains,
        may_retain=connected.public.retains,
        timeouts=connected.timeouts,
    )


def _sheet(offered: Offered, channel_id: str, connected: Connected, sale: Sale, report: Report) -> PriceSheet:
    """The prices in the currency that this provider charges; nothing is for sale where there are none."""
    tables = _tables(offered, connected)
    if not tables:
        report.notes.append(f"{channel_id}: is shown but not sold, because it has no price in {connected.currency}.")
        return NOTHING_FOR_SALE
    currencies = {table.currency for table in tables}
    if len(currencies) > 1:
        report.problems.append(f"{offered.where}.prices: write all of them in one currency.")
        return NOTHING_FOR_SALE
    usd_per_unit = Fraction(1) if currencies == {"USD"} else connected.usd_per_cny
    if usd_per_unit is None:
        report.problems.append(
            f'providers.{offered.provider}.usd_per_cny: write what one CNY costs you in USD, such as "0.1412".'
        )
        return NOTHING_FOR_SALE
    unknown = calendar_names(tables) - set(sale.calendars)
    if unknown:
        report.problems.append(
            f"{offered.where}.prices: except_holidays names an unknown calendar; write one of"
            f" {', '.join(sorted(sale.calendars))}, or add a table under [[calendars]]."
        )
        return NOTHING_FOR_SALE
    return price_sheet(channel_id, tables, Terms(sale.markup, usd_per_unit, sale.calendars))


def _tables(offered: Offered, connected: Connected) -> tuple[PriceTable, ...]:
    """The operator's own prices hold as they are written; built-in ones only in the provider's currency."""
    if offered.own_prices is not None:
        return offered.own_prices
    builtin = first(*(layer.prices for layer in offered.layers)) or ()
    return tuple(table for table in builtin if table.currency == connected.currency)

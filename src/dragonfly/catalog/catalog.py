"""What is sold at this moment: models, their channels and prices, held in memory and never changed.

A new catalogue replaces an old one whole. The only thing that moves inside is a memory of the last answer per
model, which stays right until the next border of a price.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from dragonfly.catalog.prices import PriceVersion
from dragonfly.catalog.schedule import FOREVER_NS, PriceSheet
from dragonfly.providers.channel import Channel

_SNAPSHOT = re.compile(r"-([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})$")
"""Providers answer with a dated snapshot of the id that was asked for."""


class PricedChannel(NamedTuple):
    """A channel with what it costs now; None: not sold at this moment."""

    channel: Channel
    price: PriceVersion | None


class Listing(NamedTuple):
    """What is sold under one public model id at one moment."""

    model: str
    """The public id, also when an alias was asked for."""
    channels: tuple[PricedChannel, ...]
    context_tokens_max: int
    """The largest of the channels'."""
    output_tokens_max: int
    """The largest of the channels': an upper bound for what an answer can cost."""


class Answered(NamedTuple):
    """What to bill when a provider names the model that answered."""

    price: PriceVersion | None
    """None: the held price stays."""
    is_known: bool
    """False: the id is in no list of ours; the operator should hear of it."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers, as far as the public may know it."""

    slug: str
    name: str
    simulated: bool = False
    headquarters: str | None = None
    """Two-letter country code."""
    privacy_policy_url: str | None = None
    terms_of_service_url: str | None = None
    status_page_url: str | None = None
    trains: bool = True
    """On what it is sent. Unknown counts as yes."""
    retains: bool = True
    """Something of what it is sent, after the answer. Unknown counts as yes."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How a model thinks, in the words of the model list."""

    supported_efforts: tuple[str, ...] = ()
    default_effort: str | None = None
    default_enabled: bool = True
    mandatory: bool = False
    supports_max_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Supply:
    """One channel of a model with its prices over time and what this provider offers of the model."""

    channel: Channel
    provider: Provider
    sheet: PriceSheet
    """Without any price: the channel is shown but not sold."""
    context_tokens: int
    output_tokens_max: int | None = None
    """None: not published; the context bounds it."""
    prompt_tokens_max: int | None = None
    supported_parameters: tuple[str, ...] = ()
    implicit_caching: bool = False
    aliases: tuple[str, ...] = ()
    """Further ids of this provider for the same model at the same price."""


@dataclass(frozen=True, slots=True)
class Model:
    """One public model; `supplies` are in the order of the configuration, never empty."""

    id: str
    name: str
    supplies: tuple[Supply, ...]
    description: str = ""
    listed_on: date = date(2026, 11, 23)
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    reasoning: Reasoning | None = None
    expires_on: date | None = None
    public_aliases: tuple[str, ...] = ()


class _Remembered(NamedTuple):
    from_ns: int
    until_ns: int
    listing: Listing


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every model that is offered. Built by `dragonfly.catalog.build.build_catalog`, or by hand in tests."""

    models: Mapping[str, Model]
    """By public id, in the order in which they are listed."""
    notes: tuple[str, ...] = ()
    """What is left out and why, one sentence each, for the operator."""
    _ids: dict[str, str] = field(init=False, repr=False, compare=False)
    """Public ids and their aliases -> public id."""
    _upstream: dict[tuple[str, str], Supply] = field(init=False, repr=False, compare=False)
    """(provider slug, id or alias at the provider) -> what is billed when that id answers."""
    _remembered: dict[str, _Remembered] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {alias: model.id for model in self.models.values() for alias in model.public_aliases}
        object.__setattr__(self, "_ids", ids | {model_id: model_id for model_id in self.models})
        object.__setattr__(self, "_upstream", _by_upstream_id(self.models.values()))
        object.__setattr__(self, "_remembered", {})

    def names(self) -> tuple[str, ...]:
        """Public ids, without aliases, in the order in which they are listed."""
        return tuple(self.models)

    def model(self, model: str) -> Model | None:
        """By public id or alias."""
        model_id = self._ids.get(model)
        return None if model_id is None else self.models[model_id]

    def providers(self) -> tuple[Provider, ...]:
        """Every provider that may receive a request, once each."""
        supplies = (supply for model in self.models.values() for supply in model.supplies)
        return tuple({supply.provider.slug: supply.provider for supply in supplies}.values())

    def listing(self, model: str, now_ns: int) -> Listing | None:
        """What is sold under `model` (an id or an alias) at `now_ns`; None: no such model."""
        remembered = self._remembered.get(model)
        if remembered is not None and remembered.from_ns <= now_ns < remembered.until_ns:
            return remembered.listing
        model_id = self._ids.get(model)
        if model_id is None:
            return None
        listing, until_ns = _listing(self.models[model_id], now_ns)
        self._remembered[model] = _Remembered(now_ns, until_ns, listing)
        return listing

    def answered(self, channel: Channel, upstream_model: str, at_ns: int) -> Answered:
        """The price to bill when `channel` answered as `upstream_model`, at the instant of the hold.

        An id that is not in the catalogue keeps the held price and is flagged: it may be a model that nobody
        priced. An id of a priced model bills that model's price, whatever was asked for.
        """
        if upstream_model == channel.upstream_model or not upstream_model:
            return Answered(None, True)
        supply = self._upstream.get((channel.provider, upstream_model))
        if supply is None:
            supply = self._upstream.get((channel.provider, _SNAPSHOT.sub("", upstream_model)))
        if supply is None:
            return Answered(None, False)
        if supply.channel.id == channel.id:
            return Answered(None, True)
        price = supply.sheet.at(at_ns).price
        return Answered(price, price is not None)


def _by_upstream_id(models: Iterable[Model]) -> dict[tuple[str, str], Supply]:
    """Ids before aliases: an alias that is also somebody's own id means its owner."""
    found: dict[tuple[str, str], Supply] = {}
    supplies = [supply for model in models for supply in model.supplies]
    for supply in supplies:
        found.setdefault((supply.provider.slug, supply.channel.upstream_model), supply)
    for supply in supplies:
        for alias in supply.aliases:
            found.setdefault((supply.provider.slug, alias), supply)
    return found


def _listing(model: Model, now_ns: int) -> tuple[Listing, int]:
    quotes = [(supply, supply.sheet.at(now_ns)) for supply in model.supplies]
    listing = Listing(
        model=model.id,
        channels=tuple(PricedChannel(supply.channel, quote.price) for supply, quote in quotes),
        context_tokens_max=max(supply.context_tokens for supply in model.supplies),
        output_tokens_max=max(supply.output_tokens_max or supply.context_tokens for supply in model.supplies),
    )
    return listing, min((quote.until_ns for _, quote in quotes), default=FOREVER_NS)

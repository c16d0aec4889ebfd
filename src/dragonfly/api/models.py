"""GET /v1/models, /v1/models/{author}/{slug} and …/endpoints: what is sold, by whom, at which price, how it fares.

The fields are those of OpenRouter's list, so that its clients work; what OpenRouter does not have stands beside
them: the price at this moment, the history of prices, and who the provider is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol
from urllib.parse import urlencode

import msgspec

from dragonfly.admission.errors import ModelNotFound, ModelUnpriced
from dragonfly.admission.grants import KeyPolicy
from dragonfly.catalog.catalog import Catalog, Listing, Model, Provider, Supply
from dragonfly.catalog.quotes import dated_shown, moment_text, price_shown, version_shown
from dragonfly.catalog.schedule import FOREVER_NS
from dragonfly.core.clock import Clock
from dragonfly.core.errors import DragonflyError

PAGE_DEFAULT = 500
PAGE_MAX = 1_000
OFFSET_MAX = 1_000_000
TEXT_MAX = 200
NAMES_MAX = 20
RENDERED_PER_TURN = 50
"""Models rendered before other requests get their turn."""
STATUS_SOLD = 0
STATUS_NOT_SOLD = -1

Reader = Callable[[KeyPolicy, dict[str, str], dict[str, str]], Awaitable[bytes]]


class QueryInvalid(DragonflyError):
    """400: a filter that is not understood is refused, because leaving it out would answer another question."""

    code = "invalid_parameter"
    status = 400

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Percentiles(NamedTuple):
    """Of the last 30 minutes; None where the data is thin."""

    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p99: float | None = None


class ChannelFigures(NamedTuple):
    """How one channel fares. Uptime is a percentage: good answers among good answers and failures."""

    uptime_last_5m: float | None = None
    uptime_last_30m: float | None = None
    uptime_last_1d: float | None = None
    latency_ms: Percentiles | None = None
    """To the first token."""
    tokens_per_s: Percentiles | None = None
    """Output tokens from the request to the end of the answer."""


class FigureSource(Protocol):
    """Measured figures by channel id; None: nothing was measured yet."""

    def figures(self, channel_id: str) -> ChannelFigures | None: ...


class Filters(NamedTuple):
    """The query of a list, checked."""

    offset: int
    limit: int
    text: str
    parameters: frozenset[str]
    input_modalities: frozenset[str]
    output_modalities: frozenset[str]
    context_tokens_min: int


class ModelPages:
    """Renders the catalogue. What a model looks like is kept until the next border of one of its prices."""

    def __init__(self, catalog: Catalog, clock: Clock, figures: FigureSource) -> None:
        self._catalog = catalog
        self._clock = clock
        self._figures = figures
        self._rendered: dict[str, tuple[Listing, msgspec.Raw]] = {}

    def readers(self) -> dict[str, Reader]:
        """The paths and who answers them; an SDK may send the id's slash as %2F, which is one path segment."""
        return {
            "/v1/models": self.page,
            "/v1/models/{model}": self.detail,
            "/v1/models/{author}/{slug}": self.detail,
            "/v1/models/{author}/{slug}/endpoints": self.endpoints,
        }

    async def page(self, key: KeyPolicy, params: dict[str, str], query: dict[str, str]) -> bytes:
        """What this key may call and what has a price now; unpriced models are not for sale and not listed."""
        filters = read_filters(query)
        now_ns = self._clock.now_ns()
        found = [
            model for model in self._allowed(key) if _matches(model, filters) and _is_sold(self._now(model, now_ns))
        ]
        data = []
        for number, model in enumerate(found[filters.offset : filters.offset + filters.limit], start=1):
            data.append(self._render(model, now_ns))
            if number % RENDERED_PER_TURN == 0:
                await asyncio.sleep(0)
        following = filters.offset + filters.limit
        link = None
        if following < len(found):
            link = "/v1/models?" + urlencode({**query, "offset": str(following), "limit": str(filters.limit)})
        return msgspec.json.encode(
            {"object": "list", "data": data, "total_count": len(found), "links": {"next": link}}
        )

    async def detail(self, key: KeyPolicy, params: dict[str, str], query: dict[str, str]) -> bytes:
        """One model, by its id or an alias: flat for OpenAI's SDK, under `data` for OpenRouter's."""
        now_ns = self._clock.now_ns()
        model, asked = self._find(key, params)
        if not _is_sold(self._now(model, now_ns)):
            raise ModelUnpriced
        shown = model_shown(model, self._now(model, now_ns), now_ns)
        shown["alias_target"] = model.id if asked != model.id else None
        return msgspec.json.encode({**shown, "data": shown})

    async def endpoints(self, key: KeyPolicy, params: dict[str, str], query: dict[str, str]) -> bytes:
        """Every channel of a model, also those without a price, with the history of its prices."""
        now_ns = self._clock.now_ns()
        model, _ = self._find(key, params)
        data = {
            "id": model.id,
            "name": model.name,
            "created": _created(model),
            "description": model.description,
            "architecture": _architecture(model),
            "endpoints": [
                endpoint_shown(model, supply, self._figures.figures(supply.channel.id) or ChannelFigures(), now_ns)
                for supply in model.supplies
            ],
        }
        return msgspec.json.encode({"data": data})

    def _allowed(self, key: KeyPolicy) -> list[Model]:
        models = self._catalog.models.values()
        return [model for model in models if key.models is None or model.id in key.models]

    def _find(self, key: KeyPolicy, params: Mapping[str, str]) -> tuple[Model, str]:
        asked = params["model"] if "model" in params else f"{params['author']}/{params['slug']}"
        model = self._catalog.model(asked)
        if model is None or (key.models is not None and model.id not in key.models):
            raise ModelNotFound
        return model, asked

    def _now(self, model: Model, now_ns: int) -> Listing:
        listing = self._catalog.listing(model.id, now_ns)
        assert listing is not None, "a model of the catalogue has a listing"
        return listing

    def _render(self, model: Model, now_ns: int) -> msgspec.Raw:
        listing = self._now(model, now_ns)
        kept = self._rendered.get(model.id)
        if kept is not None and kept[0] is listing:
            return kept[1]
        raw = msgspec.Raw(msgspec.json.encode(model_shown(model, listing, now_ns)))
        self._rendered[model.id] = (listing, raw)
        return raw


def read_filters(query: Mapping[str, str]) -> Filters:
    """The query of a list. Raises QueryInvalid, with the name of the parameter but never its value."""
    known = ("offset", "limit", "q", "supported_parameters", "input_modalities", "output_modalities", "context")
    for name in query:
        if name not in known:
            raise QueryInvalid(f"GET /v1/models takes only {', '.join(known)}. Remove the other parameters.")
    text = query.get("q", "")
    if len(text) > TEXT_MAX:
        raise QueryInvalid(f"q: write at most {TEXT_MAX} characters.", "q")
    return Filters(
        offset=_whole(query, "offset", 0, 0, OFFSET_MAX),
        limit=_whole(query, "limit", PAGE_DEFAULT, 1, PAGE_MAX),
        text=text.casefold().strip(),
        parameters=_names(query, "supported_parameters"),
        input_modalities=_names(query, "input_modalities"),
        output_modalities=_names(query, "output_modalities"),
        context_tokens_min=_whole(query, "context", 0, 0, 2**31 - 1),
    )


def model_shown(model: Model, listing: Listing, now_ns: int) -> dict[str, object]:
    """One entry of the list; price and context are those of the cheapest channel that sells now."""
    supply = _cheapest(model, listing)
    quote = supply.sheet.at(now_ns)
    assert quote.price is not None, "only what is sold is listed"
    assert quote.dated is not None, "a price belongs to a version"
    return {
        "id": model.id,
        "object": "model",
        "canonical_slug": model.id,
        "name": model.name,
        "created": _created(model),
        "owned_by": model.id.partition("/")[0],
        "description": model.description,
        "context_length": listing.context_tokens_max,
        "architecture": _architecture(model),
        "pricing": dated_shown(quote.dated, now_ns),
        "pricing_now": _price_now(supply, now_ns),
        "top_provider": {
            "context_length": supply.context_tokens,
            "max_completion_tokens": supply.output_tokens_max,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": sorted(_parameters(model)),
        "default_parameters": {},
        "reasoning": _reasoning(model),
        "expiration_date": model.expires_on.isoformat() if model.expires_on else None,
        "knowledge_cutoff": None,
        "hugging_face_id": None,
        "alias_target": None,
        "links": {"details": f"/v1/models/{model.id}/endpoints"},
        "simulated": all(supply.provider.simulated for supply in model.supplies),
        "providers": [provider_shown(provider) for provider in _providers(model)],
    }


def endpoint_shown(model: Model, supply: Supply, figures: ChannelFigures, now_ns: int) -> dict[str, object]:
    """One channel: what it offers, what it costs and costed, how it fares."""
    quote = supply.sheet.at(now_ns)
    return {
        "name": f"{supply.provider.name} | {model.id}",
        "tag": supply.provider.slug,
        "channel_id": supply.channel.id,
        "model_id": model.id,
        "model_name": model.name,
        "provider_name": supply.provider.name,
        "provider": provider_shown(supply.provider),
        "context_length": supply.context_tokens,
        "max_prompt_tokens": supply.prompt_tokens_max,
        "max_completion_tokens": supply.output_tokens_max,
        "quantization": "unknown",
        "pricing": dated_shown(quote.dated, now_ns) if quote.dated else None,
        "pricing_now": _price_now(supply, now_ns),
        "price_versions": [version_shown(dated, now_ns) for dated in supply.sheet.prices],
        "supported_parameters": sorted(supply.supported_parameters),
        "status": STATUS_SOLD if quote.price else STATUS_NOT_SOLD,
        "supports_implicit_caching": supply.implicit_caching,
        "uptime_last_5m": figures.uptime_last_5m,
        "uptime_last_30m": figures.uptime_last_30m,
        "uptime_last_1d": figures.uptime_last_1d,
        "latency_last_30m": figures.latency_ms._asdict() if figures.latency_ms else None,
        "throughput_last_30m": figures.tokens_per_s._asdict() if figures.tokens_per_s else None,
    }


def provider_shown(provider: Provider) -> dict[str, object]:
    """Who receives a request, as far as it is known; null is "not known", never "nothing to tell"."""
    return {
        "name": provider.name,
        "slug": provider.slug,
        "simulated": provider.simulated,
        "headquarters": provider.headquarters,
        "privacy_policy_url": provider.privacy_policy_url,
        "terms_of_service_url": provider.terms_of_service_url,
        "status_page_url": provider.status_page_url,
        "data_policy": {"training": provider.trains, "retains_prompts": provider.retains},
    }


def _price_now(supply: Supply, now_ns: int) -> dict[str, object] | None:
    """What a request costs that begins at this moment, and how long that stays so."""
    quote = supply.sheet.at(now_ns)
    if quote.price is None:
        return None
    until = moment_text(quote.until_ns) if quote.until_ns < FOREVER_NS else None
    return {**price_shown(quote.price), "price_version": quote.price.id, "holds_until": until}


def _cheapest(model: Model, listing: Listing) -> Supply:
    sold = {priced.channel.id: priced.price for priced in listing.channels if priced.price is not None}
    supplies = [supply for supply in model.supplies if supply.channel.id in sold]
    return min(supplies, key=lambda supply: sum(sold[supply.channel.id].rates[:2]) * sold[supply.channel.id].markup)


def _is_sold(listing: Listing) -> bool:
    return any(priced.price is not None for priced in listing.channels)


def _matches(model: Model, filters: Filters) -> bool:
    if filters.text and filters.text not in f"{model.id} {model.name}".casefold():
        return False
    if not filters.input_modalities <= set(model.input_modalities):
        return False
    if not filters.output_modalities <= set(model.output_modalities):
        return False
    if max(supply.context_tokens for supply in model.supplies) < filters.context_tokens_min:
        return False
    return any(filters.parameters <= set(supply.supported_parameters) for supply in model.supplies)


def _parameters(model: Model) -> set[str]:
    return {name for supply in model.supplies for name in supply.supported_parameters}


def _providers(model: Model) -> list[Provider]:
    return list({supply.provider.slug: supply.provider for supply in model.supplies}.values())


def _created(model: Model) -> int:
    day = model.listed_on
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _architecture(model: Model) -> dict[str, object]:
    return {
        "modality": f"{'+'.join(model.input_modalities)}->{'+'.join(model.output_modalities)}",
        "input_modalities": model.input_modalities,
        "output_modalities": model.output_modalities,
        "tokenizer": None,
        "instruct_type": None,
    }


def _reasoning(model: Model) -> dict[str, object] | None:
    thinking = model.reasoning
    if thinking is None:
        return None
    return {
        "supported_efforts": thinking.supported_efforts,
        "default_effort": thinking.default_effort,
        "default_enabled": thinking.default_enabled,
        "mandatory": thinking.mandatory,
        "supports_max_tokens": thinking.supports_max_tokens,
    }


def _whole(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise QueryInvalid(f"{name}: write a whole number from {low} to {high}.", name)
    return int(text)


def _names(query: Mapping[str, str], name: str) -> frozenset[str]:
    names = frozenset(part.strip() for part in query.get(name, "").split(",") if part.strip())
    if len(names) > NAMES_MAX or any(len(part) > TEXT_MAX for part in names):
        raise QueryInvalid(f"{name}: write at most {NAMES_MAX} names, separated by commas.", name)
    return names

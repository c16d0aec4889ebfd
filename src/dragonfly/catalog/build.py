"""Builds the catalogue from the packaged files, the operator's tables and the keys in the environment."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction

from dragonfly.catalog.builtin import Builtin, load_builtin
from dragonfly.catalog.catalog import Catalog, Model, Reasoning, Supply
from dragonfly.catalog.config import (
    UNREADABLE,
    ChannelOverlay,
    ModelOverlay,
    OperatorTables,
    ProviderOverlay,
    markup_factor,
    read_tables,
)
from dragonfly.catalog.connect import Connected, Report, connect
from dragonfly.catalog.errors import CatalogInvalid, shown
from dragonfly.catalog.pricing import calendars_of
from dragonfly.catalog.schedule import Calendar
from dragonfly.catalog.schema import ModelTable
from dragonfly.catalog.supply import Offered, Sale, first, make_supply
from dragonfly.settings import CatalogSettings


@dataclass(frozen=True, slots=True)
class _Parts:
    """Everything that models are made from."""

    known: Builtin
    read: OperatorTables
    connected: dict[str, Connected | None]
    """Every provider that anybody named; None: it is switched off, without its key, or wrong."""
    calendars: dict[str, Calendar]
    markup: Fraction
    report: Report


def build_catalog(
    settings: CatalogSettings,
    tables: Mapping[str, object],
    environ: Mapping[str, str],
    builtin: Builtin | None = None,
) -> Catalog:
    """The catalogue of this start. `tables` holds the raw [providers.*], [[models]] and [[calendars]].

    Raises CatalogInvalid with everything that is wrong. What is merely left out is in the catalogue's notes.
    """
    report = Report()
    known = builtin or load_builtin()
    read = read_tables(tables, report.problems)
    parts = _Parts(
        known=known,
        read=read,
        connected=_connect_all(known, read, environ, report),
        calendars=calendars_of({**known.calendars, **read.calendars}.values()),
        markup=_markup(settings, report),
        report=report,
    )
    models = _models(parts, [*_operators(parts), *(_builtins(parts) if settings.builtin else ())])
    _check_public_aliases(models, report)
    if report.problems:
        raise CatalogInvalid(tuple(dict.fromkeys(report.problems)))
    return Catalog(models, tuple(dict.fromkeys(report.notes)))


def _markup(settings: CatalogSettings, report: Report) -> Fraction:
    try:
        return markup_factor(settings.markup_percent)
    except ValueError as failure:
        report.problems.append(f"catalog.markup_percent: {failure}")
        return Fraction(1)


def _connect_all(
    known: Builtin, read: OperatorTables, environ: Mapping[str, str], report: Report
) -> dict[str, Connected | None]:
    connected: dict[str, Connected | None] = dict.fromkeys(read.broken_providers)
    for slug in dict.fromkeys([*read.providers, *known.providers]):
        overlay = read.providers.get(slug)
        if slug in read.broken_providers or (overlay is not None and not overlay.enabled):
            connected[slug] = None
        elif (meant := _meant(slug, overlay, known)) is not None:
            report.problems.append(
                f"providers.{slug}: is not built in; did you mean {meant}? A provider of your own needs its base_url."
            )
            connected[slug] = None
        else:
            connected[slug] = connect(slug, known.providers.get(slug), overlay, environ, report)
    return connected


def _meant(slug: str, overlay: ProviderOverlay | None, known: Builtin) -> str | None:
    """The built-in provider whose name was probably mistyped: a table without an address that is like it."""
    if slug in known.providers or overlay is None or overlay.base_url is not None:
        return None
    return next(iter(difflib.get_close_matches(slug, list(known.providers), n=1)), None)


def _operators(parts: _Parts) -> Iterator[Offered]:
    """The operator's channels, in the order of the file; what they refer to is checked."""
    entries = {(slug, entry.upstream_model): entry for slug, entry in parts.known.models}
    builtin_ids = {entry.id for _, entry in parts.known.models}
    for model in parts.read.models.values():
        place = f"models[{parts.read.positions[model.id]}]"
        if not model.channels and model.id not in builtin_ids:
            parts.report.problems.append(
                f"{place}.channels: needs an entry with provider and model, because the id is not built in."
            )
        seen = set()
        for number, channel in enumerate(model.channels, start=1):
            where = f"{place}.channels[{number}]"
            if UNREADABLE in (channel.provider, channel.model):
                continue  # reported already
            if channel.provider not in parts.connected:
                parts.report.problems.append(f"{where}.provider: {_unknown_provider(channel.provider, parts)}")
            elif (channel.provider, channel.model) in seen:
                parts.report.problems.append(f"{where}: stands in this list already; keep one of the two.")
            elif model.enabled:
                seen.add((channel.provider, channel.model))
                entry = entries.get((channel.provider, channel.model))
                layers = _layers(channel, model, entry)
                yield Offered(model.id, where, (*layers, *_sizes(channel, model.id, parts.known)), channel.prices)


def _builtins(parts: _Parts) -> Iterator[Offered]:
    """The packaged channels, without those that the operator switched off or described anew."""
    for slug, entry in parts.known.models:
        model = parts.read.models.get(entry.id)
        channels = model.channels if model is not None else ()
        is_replaced = any((own.provider, own.model) == (slug, entry.upstream_model) for own in channels)
        is_off = model is not None and not model.enabled
        if entry.kind == "chat" and not is_replaced and not is_off:
            channel = ChannelOverlay(provider=slug, model=entry.upstream_model)
            yield Offered(entry.id, f"{slug}.toml", _layers(channel, model, entry), None)


def _layers(
    channel: ChannelOverlay, model: ModelOverlay | None, entry: ModelTable | None
) -> tuple[ChannelOverlay, ...]:
    """The same fields from three sources, the most specific first."""
    layers = [channel]
    if model is not None:
        layers.append(
            ChannelOverlay(
                provider=channel.provider,
                model=channel.model,
                context_tokens=model.context_tokens,
                output_tokens_max=model.output_tokens_max,
                supported_parameters=model.supported_parameters,
            )
        )
    if entry is not None:
        layers.append(
            ChannelOverlay(
                provider=channel.provider,
                model=channel.model,
                prices=entry.prices or None,
                aliases=entry.aliases,
                context_tokens=entry.context_tokens,
                prompt_tokens_max=entry.prompt_tokens_max,
                output_tokens_max=entry.output_tokens_max,
                concurrency_max=entry.concurrency_max,
                max_tokens_field=entry.max_tokens_field,
                drop_fields=entry.drop_fields,
                supported_parameters=entry.supported_parameters,
                implicit_caching=entry.implicit_caching,
            )
        )
    return tuple(layers)


def _sizes(channel: ChannelOverlay, public_id: str, known: Builtin) -> Iterator[ChannelOverlay]:
    """What the maker's entry says about a model that the operator offers through a channel of their own."""
    entry = _description(public_id, known)
    if entry is not None:
        yield ChannelOverlay(
            provider=channel.provider,
            model=channel.model,
            context_tokens=entry.context_tokens,
            output_tokens_max=entry.output_tokens_max,
        )


def _unknown_provider(slug: str, parts: _Parts) -> str:
    close = difflib.get_close_matches(slug, list(parts.connected), n=1)
    if close:
        return f"there is no such provider; did you mean {close[0]}?"
    return f"there is no such provider; add a table [providers.{shown(slug)}] with its base_url."


def _models(parts: _Parts, offered: list[Offered]) -> dict[str, Model]:
    supplies: dict[str, list[Supply]] = {}
    for item in offered:
        connected = parts.connected[item.provider]
        if connected is None:
            if item.where.startswith("models"):
                parts.report.notes.append(f"{item.where}: is left out, because its provider is not enabled.")
            continue
        model = parts.read.models.get(item.public_id)
        markup = first(model.markup_percent if model else None, parts.markup) or parts.markup
        found = supplies.setdefault(item.public_id, [])
        supply = make_supply(
            item,
            connected,
            Sale(markup, parts.calendars),
            parts.report,
            taken_ids={supply.channel.id for supply in found},
        )
        if supply is not None:
            found.append(supply)
    return {public_id: _model(public_id, tuple(found), parts) for public_id, found in supplies.items() if found}


def _model(public_id: str, supplies: tuple[Supply, ...], parts: _Parts) -> Model:
    """Described by the operator where they did, else by the maker's own entry, else by the first host's."""
    entry = _description(public_id, parts.known)
    own = parts.read.models.get(public_id) or ModelOverlay(id=public_id)
    known = ModelOverlay(id=public_id)
    if entry is not None:
        known = ModelOverlay(
            id=public_id,
            name=entry.name,
            description=entry.description,
            input_modalities=entry.input_modalities,
            output_modalities=entry.output_modalities,
            public_aliases=entry.public_aliases,
        )
    return Model(
        id=public_id,
        name=first(own.name, known.name) or public_id,
        supplies=supplies,
        description=first(own.description, known.description) or "",
        listed_on=entry.listed_on if entry else date(1970, 1, 1),
        input_modalities=first(own.input_modalities, known.input_modalities) or ("text",),
        output_modalities=first(own.output_modalities, known.output_modalities) or ("text",),
        reasoning=Reasoning(**entry.reasoning.model_dump()) if entry and entry.reasoning else None,
        expires_on=entry.expires_on if entry else None,
        public_aliases=first(own.public_aliases, known.public_aliases) or (),
    )


def _description(public_id: str, known: Builtin) -> ModelTable | None:
    author = public_id.partition("/")[0]
    entries = [(slug, entry) for slug, entry in known.models if entry.id == public_id]
    makers = [entry for slug, entry in entries if author in known.providers[slug].authors]
    return next(iter([*makers, *(entry for _, entry in entries)]), None)


def _check_public_aliases(models: Mapping[str, Model], report: Report) -> None:
    """An alias that is a model's id, or two models', would sell something else than was asked for."""
    owners: dict[str, str] = {}
    for model in models.values():
        for alias in model.public_aliases:
            if alias in models or owners.setdefault(alias, model.id) != model.id:
                report.problems.append(f"public_aliases: {shown(alias)} means two models; keep it at one of them.")

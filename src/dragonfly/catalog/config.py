"""The operator's [providers.<slug>] and [[models]] tables, checked; everything wrong is reported at once.

What they look like stands in docs/operate/catalog.md.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from dragonfly.catalog.errors import sentences, shown
from dragonfly.catalog.schema import (
    PRICES_MAX,
    CalendarTable,
    CountryCode,
    FieldName,
    HoursTable,
    Listed,
    Modality,
    PriceTable,
    PublicId,
    Slug,
    Table,
    Text,
    TierTable,
    Tokens,
    UpstreamId,
    WebAddress,
    WindowTable,
    check_prices,
    problem,
)

MODELS_MAX = 5_000
PROVIDERS_MAX = 200
_PERCENT = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6})?")
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RATIO = re.compile(r"[0-9]{1,3}\.[0-9]{1,9}")
MARKUP_PERCENT_MAX = 1_000
UNREADABLE = "unreadable"
Read = TypeVar("Read", bound=Table)
TABLES = ("providers", "models", "calendars")

_STAND_INS = {
    "base_url": "https://localhost",
    "api_key": "",
    "usd_per_cny": "1.0",
    "context_tokens": 1,
    "provider": UNREADABLE,
    "model": UNREADABLE,
}
"""Put in place of a wrong value that is needed, so that the rest of its table can still be checked."""


def markup_factor(percent: object) -> Fraction:
    """Decimal text of a percentage as the factor on the list price: "5.5" -> 211/200. Raises ValueError."""
    if isinstance(percent, str) and _PERCENT.fullmatch(percent) and Decimal(percent) <= MARKUP_PERCENT_MAX:
        return 1 + Fraction(Decimal(percent)) / 100
    raise problem('write the percentage as decimal text between "0" and "1000", such as "5.5".')


def _ratio(value: object) -> Fraction:
    if isinstance(value, str) and _RATIO.fullmatch(value) and Decimal(value) > 0:
        return Fraction(Decimal(value))
    raise problem('write what one CNY costs you in USD as a decimal string, such as "0.1412".')


Markup = Annotated[Fraction, BeforeValidator(markup_factor)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class TimeoutsTable(Table):
    """Longest waits for one provider, in seconds; missing ones keep their default."""

    connect_s: Seconds | None = None
    head_s: Seconds | None = None
    idle_s: Seconds | None = None


class ProviderOverlay(Table):
    """[providers.<slug>]: a provider of the operator's own, or changes to a built-in one."""

    enabled: bool = True
    name: Text | None = None
    base_url: WebAddress | None = None
    site: Slug | None = None
    """A built-in provider's other address, such as "china"; it has its own keys and currency."""
    dialect: Slug | None = None
    api_key: str | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    usd_per_cny: Annotated[Fraction, BeforeValidator(_ratio)] | None = None
    """Needed where prices are in CNY."""
    concurrency_max: Annotated[int, Field(gt=0)] | None = None
    timeouts: TimeoutsTable = TimeoutsTable()
    simulated: bool = False
    headquarters: CountryCode | None = None
    privacy_policy_url: WebAddress | None = None
    terms_of_service_url: WebAddress | None = None
    status_page_url: WebAddress | None = None
    trains: bool = True
    """False: your contract with this provider says that it does not train on what it is sent."""
    retains: bool = True
    """False: it says that nothing is kept after the answer."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    drop_fields: Listed[FieldName] | None = None
    supported_parameters: Listed[FieldName] | None = None


class ChannelOverlay(Table):
    """One entry of a model's `channels`; what is missing comes from the model, then from the built-in entry."""

    provider: Slug
    model: UpstreamId
    prices: Annotated[tuple[PriceTable, ...], Field(strict=False, max_length=PRICES_MAX)] | None = None
    """Missing: the built-in prices of this model at this provider; an empty list or none at all: shown, not sold."""
    aliases: Listed[UpstreamId] = ()
    context_tokens: Tokens | None = None
    prompt_tokens_max: Tokens | None = None
    output_tokens_max: Tokens | None = None
    concurrency_max: Annotated[int, Field(gt=0)] | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    drop_fields: Listed[FieldName] | None = None
    supported_parameters: Listed[FieldName] | None = None
    implicit_caching: bool | None = None

    @model_validator(mode="after")
    def _prices_fit(self) -> Self:
        check_prices(self.prices or ())
        return self


class ModelOverlay(Table):
    """[[models]]: a model of the operator's own, or changes to a built-in one."""

    id: PublicId
    enabled: bool = True
    name: Text | None = None
    description: Text | None = None
    markup_percent: Markup | None = None
    public_aliases: Listed[PublicId] | None = None
    context_tokens: Tokens | None = None
    output_tokens_max: Tokens | None = None
    input_modalities: Listed[Modality] | None = None
    output_modalities: Listed[Modality] | None = None
    supported_parameters: Listed[FieldName] | None = None
    channels: Listed[ChannelOverlay] = ()


_NAMES = sorted(
    {
        *ProviderOverlay.model_fields,
        *TimeoutsTable.model_fields,
        *ModelOverlay.model_fields,
        *ChannelOverlay.model_fields,
        *PriceTable.model_fields,
        *WindowTable.model_fields,
        *HoursTable.model_fields,
        *TierTable.model_fields,
        *CalendarTable.model_fields,
    }
)


@dataclass(frozen=True, slots=True)
class OperatorTables:
    """What could be read; `problems` says what could not."""

    providers: dict[str, ProviderOverlay] = field(default_factory=dict)
    broken_providers: set[str] = field(default_factory=set)
    """Slugs whose table could not be read: what refers to them is not wrong too."""
    models: dict[str, ModelOverlay] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    """Public id -> its number in the file, from 1, for sentences."""
    calendars: dict[str, CalendarTable] = field(default_factory=dict)


def read_tables(tables: Mapping[str, object], problems: list[str]) -> OperatorTables:
    """The tables as values; each problem is appended, and what it stands in is left out."""
    read = OperatorTables()
    problems += [f"{shown(name)}: is not a table of the catalogue." for name in tables if name not in TABLES]
    _read_providers(tables.get("providers", {}), read, problems)
    _read_models(tables.get("models", []), read, problems)
    _read_calendars(tables.get("calendars", []), read, problems)
    return read


def _read_providers(table: object, read: OperatorTables, problems: list[str]) -> None:
    if not isinstance(table, dict) or len(table) > PROVIDERS_MAX:
        problems.append(f"providers: write at most {PROVIDERS_MAX} tables such as [providers.ollama].")
        return
    for slug, fields in table.items():
        if not _SLUG.fullmatch(slug):
            problems.append(f"providers.{shown(slug)}: name it with small letters, digits, dots and hyphens.")
            continue
        provider = _read(ProviderOverlay, fields, f"providers.{slug}", problems)
        if provider is None:
            read.broken_providers.add(slug)
        else:
            read.providers[slug] = provider


def _read_models(entries: object, read: OperatorTables, problems: list[str]) -> None:
    if not isinstance(entries, list) or len(entries) > MODELS_MAX:
        problems.append(f"models: write at most {MODELS_MAX} tables, each under [[models]].")
        return
    for position, fields in enumerate(entries, start=1):
        model = _read(ModelOverlay, fields, f"models[{position}]", problems)
        if model is None:
            continue
        if model.id in read.models:
            problems.append(
                f"models[{position}].id: stands in models[{read.positions[model.id]}] too; merge the two."
            )
            continue
        read.models[model.id] = model
        read.positions[model.id] = position


def _read_calendars(entries: object, read: OperatorTables, problems: list[str]) -> None:
    if not isinstance(entries, list):
        problems.append("calendars: write tables, each under [[calendars]].")
        return
    for position, fields in enumerate(entries, start=1):
        calendar = _read(CalendarTable, fields, f"calendars[{position}]", problems)
        if calendar is not None:
            read.calendars[calendar.name] = calendar


def _read(kind: type[Read], fields: object, path: str, problems: list[str]) -> Read | None:
    """The table; when something in it is wrong, what is left of it, so that later checks still see the rest."""
    try:
        return kind.model_validate(fields)
    except ValidationError as invalid:
        problems += sentences(invalid, path, _NAMES)
        places = [error["loc"] for error in invalid.errors(include_url=False, include_input=False)]
    if not isinstance(fields, dict):
        return None
    try:
        return kind.model_validate(_without(fields, places))
    except ValidationError:
        return None


def _without(fields: dict[str, object], places: list[tuple[int | str, ...]]) -> dict[str, object]:
    """A copy without the wrong values, with stand-ins for those that cannot be missing."""
    rest = copy.deepcopy(fields)
    for place in places:
        table: object = rest
        name: object = place[0] if place else None
        channels = rest.get("channels")
        if len(place) > 1 and place[0] == "channels" and isinstance(channels, list) and isinstance(place[1], int):
            table = channels[place[1]]
            name = place[2] if len(place) > 2 else "prices"
        if not isinstance(table, dict) or not isinstance(name, str):
            continue
        if name in _STAND_INS:
            table[name] = _STAND_INS[name]
        else:
            table.pop(name, None)
    return rest

"""The shapes of the catalogue's TOML: prices, models, providers, calendars.

The built-in files and the operator's tables share them. Amounts are decimal strings of the currency per million
tokens; a TOML float is refused, because it has been rounded before anybody could see it.
"""

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, HttpUrl, model_validator
from pydantic_core import PydanticCustomError

from dragonfly.catalog.prices import RATE_NUSD_MAX, TIERS_MAX, TOKENS_MAX
from dragonfly.catalog.schedule import MINUTES_PER_DAY, instant_ns
from dragonfly.core.money import from_usd

WINDOWS_MAX = 16
PRICES_MAX = 64
LIST_MAX = 256
TEXT_MAX = 2_000

_AMOUNT = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")
_CLOCK = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PUBLIC_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_MODEL_NAME = re.compile(r"[\x21-\x7e]{1,200}")
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

Item = TypeVar("Item")
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Modality = Literal["text", "image", "audio", "video", "file"]
Currency = Literal["USD", "CNY"]
RATE_CLASSES = ("prompt", "completion", "cache_read", "cache_write", "cache_write_1h", "reasoning")
RateClass = Literal["prompt", "completion", "cache_read", "cache_write", "cache_write_1h", "reasoning"]


def problem(sentence: str) -> PydanticCustomError:
    """An error whose text is ours and holds no input."""
    return PydanticCustomError("catalog", sentence)


def _amount(value: object) -> int:
    if isinstance(value, str) and _AMOUNT.fullmatch(value):
        nano = int(from_usd(value))
        if nano <= RATE_NUSD_MAX:
            return nano
    raise problem('write the price of a million tokens as a decimal string between "0" and "10000", such as "0.15".')


def _instant(value: object) -> int:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return instant_ns(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return instant_ns(datetime(value.year, value.month, value.day, tzinfo=UTC))
    raise problem("write an instant with its offset, such as 2026-09-10T00:00:00+08:00, without quotes.")


def _clock(value: object) -> int:
    match = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    minute = int(match[1]) * 60 + int(match[2]) if match else MINUTES_PER_DAY + 1
    if minute > MINUTES_PER_DAY:
        raise problem('write a time of day between "00:00" and "24:00".')
    return minute


def _zone(value: object) -> ZoneInfo:
    try:
        return ZoneInfo(value) if isinstance(value, str) else ZoneInfo("")
    except (OSError, ValueError, ZoneInfoNotFoundError):
        raise problem('write the name of a time zone such as "Asia/Shanghai" or "UTC".') from None


def _matching(pattern: re.Pattern[str], sentence: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise problem(sentence)
        return value

    return AfterValidator(check)


def _web_address(value: object) -> str:
    if isinstance(value, str) and value.startswith(("https://", "http://")) and value.isprintable():
        try:
            HttpUrl(value)
        except ValueError:
            pass
        else:
            return value
    raise problem("write a web address that begins with https:// (or http://).")


Amount = Annotated[int, BeforeValidator(_amount)]
Instant = Annotated[int, BeforeValidator(_instant)]
Clock = Annotated[int, BeforeValidator(_clock)]
Zone = Annotated[ZoneInfo, BeforeValidator(_zone)]
WebAddress = Annotated[str, BeforeValidator(_web_address)]
Text = Annotated[str, Field(max_length=TEXT_MAX)]
Slug = Annotated[str, _matching(_SLUG, "write small letters, digits, dots and hyphens, at most 64.")]
PublicId = Annotated[str, _matching(_PUBLIC_ID, 'write the public id as "author/model", such as "local/llama".')]
UpstreamId = Annotated[str, _matching(_MODEL_NAME, "write the provider's own model id: 1 to 200 visible characters.")]
FieldName = Annotated[str, _matching(_FIELD_NAME, "write the name of a request field, such as temperature.")]
Tokens = Annotated[int, Field(gt=0, lt=TOKENS_MAX)]
Listed = Annotated[tuple[Item, ...], Field(strict=False, max_length=LIST_MAX)]
"""TOML has lists; our values are tuples."""
CountryCode = Annotated[str, _matching(re.compile(r"[A-Z]{2}"), 'write a two-letter country code such as "CN".')]


class Table(BaseModel):
    """A frozen TOML table; unknown names are errors, so that typing mistakes are found."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


class RateTable(Table):
    """Amounts per million tokens. What is missing is filled in here, where it can be seen, not while billing."""

    prompt: Amount
    completion: Amount | None = None
    """May be missing for embeddings only."""
    cache_read: Amount | None = None
    """Missing: the prompt's rate."""
    cache_write: Amount | None = None
    """Missing: the prompt's rate."""
    cache_write_1h: Amount | None = None
    """Missing: the rate of `cache_write`."""
    reasoning: Amount | None = None
    """Missing: the completion's rate."""

    def amounts(self) -> tuple[int, int, int, int, int, int]:
        """Every class, in the order of RATE_CLASSES, in nano-units of the currency."""
        completion = self.prompt if self.completion is None else self.completion
        write = self.prompt if self.cache_write is None else self.cache_write
        return (
            self.prompt,
            completion,
            self.prompt if self.cache_read is None else self.cache_read,
            write,
            write if self.cache_write_1h is None else self.cache_write_1h,
            completion if self.reasoning is None else self.reasoning,
        )


class TierTable(RateTable):
    """Rates of prompts longer than a border."""

    above_prompt_tokens: Tokens


class HoursTable(Table):
    """When a window is open, on local days."""

    zone: Zone
    weekdays: Annotated[tuple[Weekday, ...], Field(strict=False, min_length=1)] = WEEKDAYS
    hours: Annotated[
        tuple[Annotated[tuple[Clock, Clock], Field(strict=False)], ...],
        Field(strict=False, min_length=1, max_length=24),
    ]
    except_holidays: Slug | None = None
    """Name of a calendar; the window stays shut on its days off."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        borders = [minute for span in self.hours for minute in span]
        if any(low >= high for low, high in itertools.pairwise(borders)):
            raise problem("hours: write spans that ascend and do not touch; split one that passes midnight in two.")
        return self


class WindowTable(RateTable):
    """A price for some hours of the week."""

    name: Slug
    when: HoursTable
    tiers: Annotated[tuple[TierTable, ...], Field(strict=False, max_length=TIERS_MAX)] = ()


class PriceTable(RateTable):
    """What a model costs from one instant to another."""

    currency: Currency = "USD"
    valid_from: Instant | None = None
    """Missing: since ever."""
    valid_to: Instant | None = None
    """Missing: until the next one begins, or for good."""
    source: Text = ""
    checked_on: date | None = None
    free: bool = False
    """Everything costs nothing, on purpose."""
    free_classes: Listed[RateClass] = ()
    """Classes that cost nothing, on purpose, in a price that is not free."""
    tier_kind: Literal["whole_request", "marginal"] = "whole_request"
    tiers: Annotated[tuple[TierTable, ...], Field(strict=False, max_length=TIERS_MAX)] = ()
    windows: Annotated[tuple[WindowTable, ...], Field(strict=False, max_length=WINDOWS_MAX)] = ()

    def rate_tables(self) -> Iterator[RateTable]:
        """The base and everything that overrides it."""
        yield self
        yield from self.tiers
        for window in self.windows:
            yield window
            yield from window.tiers

    @model_validator(mode="after")
    def _zeros_are_meant(self) -> Self:
        amounts = [dict(zip(RATE_CLASSES, table.amounts(), strict=True)) for table in self.rate_tables()]
        if self.free and any(any(classes.values()) for classes in amounts):
            raise problem('free = true needs every price to be "0"; remove it or the amounts.')
        zeros = {name for classes in amounts for name, amount in classes.items() if not amount}
        if not self.free and zeros & {"prompt", "completion", "reasoning"}:
            raise problem('a price of "0" needs free = true beside it; an unknown price is left out instead.')
        if not self.free and zeros - set(self.free_classes):
            raise problem('a cache price of "0" needs its name in free_classes, such as ["cache_read"].')
        return self

    @model_validator(mode="after")
    def _order_is_right(self) -> Self:
        for tiers in (self.tiers, *(window.tiers for window in self.windows)):
            borders = [tier.above_prompt_tokens for tier in tiers]
            if any(low >= high for low, high in itertools.pairwise(borders)):
                raise problem("tiers: above_prompt_tokens has to grow from tier to tier.")
        if self.valid_from is not None and self.valid_to is not None and self.valid_from >= self.valid_to:
            raise problem("valid_to: has to be later than valid_from.")
        return self


class ReasoningTable(Table):
    """How a model thinks, in the words of the model list."""

    supported_efforts: Listed[str] = ()
    default_effort: str | None = None
    default_enabled: bool = True
    mandatory: bool = False
    supports_max_tokens: bool = False


class ModelTable(Table):
    """One model of one provider, as the built-in files hold it."""

    id: PublicId
    upstream_model: UpstreamId
    name: Text
    kind: Literal["chat", "embedding"] = "chat"
    description: Text = ""
    aliases: Listed[UpstreamId] = ()
    """Other ids under which the provider answers, priced the same."""
    public_aliases: Listed[PublicId] = ()
    """Other public ids that callers may ask for."""
    context_tokens: Tokens
    prompt_tokens_max: Tokens | None = None
    """Where the provider bounds the prompt below the context."""
    output_tokens_max: Tokens | None = None
    """Missing: not published; the context bounds it."""
    input_modalities: Listed[Modality] = ("text",)
    output_modalities: Listed[Modality] = ("text",)
    supported_parameters: Listed[FieldName] | None = None
    """Missing: the provider's."""
    reasoning: ReasoningTable | None = None
    implicit_caching: bool = False
    concurrency_max: Annotated[int, Field(gt=0)] | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    drop_fields: Listed[FieldName] | None = None
    listed_on: date
    """The day on which the model entered this catalogue."""
    expires_on: date | None = None
    """The day on which the provider withdraws it."""
    notes: Text = ""
    prices: Annotated[tuple[PriceTable, ...], Field(strict=False, max_length=PRICES_MAX)]

    @model_validator(mode="after")
    def _prices_fit(self) -> Self:
        check_prices(self.prices, completion_needed=self.kind == "chat")
        return self


def check_prices(prices: tuple[PriceTable, ...], *, completion_needed: bool = True) -> None:
    """Prices of one currency follow each other in time, and answers are priced."""
    for currency in ("USD", "CNY"):
        _check_succession([price for price in prices if price.currency == currency])
    tables = [table for price in prices for table in price.rate_tables()]
    if completion_needed and any(table.completion is None for table in tables):
        raise problem("prices: completion is missing; write the price of a million tokens of output.")


def _check_succession(prices: list[PriceTable]) -> None:
    """A later price may leave its predecessor's end open, but not begin before it."""
    for before, after in itertools.pairwise(prices):
        if after.valid_from is None or after.valid_from <= (before.valid_from or -1):
            raise problem("prices: write them in the order of valid_from, one valid at a time.")
        if before.valid_to is not None and before.valid_to > after.valid_from:
            raise problem("prices: one begins before the one above it has ended; change valid_to or valid_from.")


class SiteTable(Table):
    """Another address of the same provider, with its own accounts, keys and currency."""

    base_url: WebAddress
    currency: Currency


class ProviderTable(Table):
    """One provider, as the built-in files hold it."""

    slug: Slug
    name: Text
    authors: Listed[Slug]
    """Whose models this provider makes itself; it describes them for all who host them."""
    base_url: WebAddress
    api_key_env: str
    dialect: Slug
    sites: dict[Slug, SiteTable] = Field(default_factory=dict)
    headquarters: CountryCode | None = None
    privacy_policy_url: WebAddress | None = None
    terms_of_service_url: WebAddress | None = None
    status_page_url: WebAddress | None = None
    concurrency_max: Annotated[int, Field(gt=0)] | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    drop_fields: Listed[FieldName] = ()
    supported_parameters: Listed[FieldName] = ()
    notes: Text = ""


class CalendarTable(Table):
    """Days off. Between `complete_from` and `complete_to` the official list is known; later days may be too few."""

    name: Slug
    complete_from: date
    complete_to: date
    source: Text
    notes: Text = ""
    days_off: Annotated[tuple[date, ...], Field(strict=False, max_length=1_000)]


class BuiltinFile(Table):
    """One file of the built-in catalogue."""

    schema_version: Literal[1]
    provider: ProviderTable | None = None
    models: Listed[ModelTable] = ()
    calendars: Listed[CalendarTable] = ()

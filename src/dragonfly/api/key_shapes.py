"""What /api/keys takes and shows, and how that becomes what the domain knows."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, Field

from dragonfly.api.shapes import Moment, Strict, Usd, day_text
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.money import usd_text
from dragonfly.keys.actions import GRACE_S_MAX, KeyChanges
from dragonfly.keys.queries import StoredKey
from dragonfly.keys.rules import (
    KEY_GROUP_LENGTH_MAX,
    MODELS_MAX,
    NAME_LENGTH_MAX,
    NETWORKS_MAX,
    TOKENS_PER_MINUTE_MAX,
    KeyLimits,
)
from dragonfly.usage.reports import KeyActivity

GRACE_S_DEFAULT = 0
GROUP_PATTERN = r"^[a-z0-9_-]*$"
ONCE = "Shown once; null when the request is repeated with the same Idempotency-Key."

KeyStatus = Literal["active", "disabled", "paused", "expired", "revoked"]
KeyName = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, examples=["laptop"])]
KeyGroup = Annotated[str, Field(max_length=KEY_GROUP_LENGTH_MAX, pattern=GROUP_PATTERN, examples=["team-a"])]
KeyIdPath = Annotated[
    str, Path(min_length=1, max_length=64, description="The key's id: the ten characters after sk-df-.")
]


class LimitsWanted(Strict):
    """What a key may do. A field that is left out stays as it is; null removes the limit."""

    spend_usd: Annotated[Usd | None, Field(description="Most the key may ever spend.")] = None
    spend_daily_usd: Annotated[Usd | None, Field(description="Within a UTC day.")] = None
    spend_weekly_usd: Annotated[Usd | None, Field(description="Within a UTC week, from Monday.")] = None
    spend_monthly_usd: Annotated[Usd | None, Field(description="Within a UTC month.")] = None
    requests_per_minute: Annotated[int | None, Field(ge=0, le=1_000_000, description="0: no limit.")] = None
    tokens_per_minute: Annotated[int | None, Field(ge=0, le=TOKENS_PER_MINUTE_MAX, description="0: no limit.")] = None
    concurrency: Annotated[int | None, Field(ge=0, le=100_000, description="Open requests; 0: no limit.")] = None
    models: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]] | None,
        Field(min_length=1, max_length=MODELS_MAX, description="Ids of models; null: all."),
    ] = None
    networks: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=50)]] | None,
        Field(
            min_length=1,
            max_length=NETWORKS_MAX,
            description="Where the key may be used from; null: anywhere.",
            examples=[["192.0.2.0/24", "2001:db8::/32"]],
        ),
    ] = None


class KeyWanted(Strict):
    """A new key. Every field has a default."""

    name: KeyName = "default"
    key_group: KeyGroup = ""
    limits: LimitsWanted = LimitsWanted()
    routing_profile_id: Annotated[str | None, Field(max_length=64)] = None
    expires_at: Moment | None = None


class KeyChanged(Strict):
    """What to change; a field that is left out stays as it is."""

    name: KeyName | None = None
    key_group: KeyGroup | None = None
    limits: LimitsWanted | None = None
    routing_profile_id: Annotated[str | None, Field(max_length=64, description="null unbinds the key.")] = None
    expires_at: Moment | None = None
    disabled: Annotated[bool | None, Field(description="true switches the key off until it is switched on.")] = None


class Rotation(Strict):
    """How a key gets another secret."""

    grace_s: Annotated[int, Field(ge=0, le=GRACE_S_MAX, description="How long the old secret still works.")] = (
        GRACE_S_DEFAULT
    )


class LimitsShown(BaseModel):
    """What a key may do; null: the installation's default, and for money and models no limit."""

    spend_usd: str | None
    spend_left_usd: str | None
    spend_daily_usd: str | None
    spend_weekly_usd: str | None
    spend_monthly_usd: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    models: list[str] | None
    networks: list[str] | None


class SpendShown(BaseModel):
    """What a key has spent, in USD. Days, weeks (from Monday) and months are UTC's."""

    total_usd: str
    today_usd: str
    week_usd: str
    month_usd: str


class KeyShown(BaseModel):
    """A key without its secret."""

    id: Annotated[str, Field(examples=["4HbQ2x9LmA"])]
    hint: Annotated[str, Field(description="How to recognise the key.", examples=["sk-df-4HbQ...x81K"])]
    name: str
    key_group: str
    status: Annotated[
        KeyStatus, Field(description="paused: it spent far above its habit; `disabled: false` lets it go on.")
    ]
    limits: LimitsShown
    spend: SpendShown
    routing_profile_id: str | None
    expires_at: str | None
    created_at: str
    updated_at: str | None
    last_used_on: Annotated[str | None, Field(description="The UTC day of the last request within 90 days.")]


class KeyMade(KeyShown):
    """A key with its secret, which nobody can read again."""

    key: Annotated[str | None, Field(description=ONCE, examples=["sk-df-…"])]


def limits_wanted(wanted: LimitsWanted, present: KeyLimits) -> KeyLimits:
    """`present` with the fields that the request names."""
    names = {
        "spend_usd": "spend_limit_nusd",
        "spend_daily_usd": "spend_daily_nusd",
        "spend_weekly_usd": "spend_weekly_nusd",
        "spend_monthly_usd": "spend_monthly_nusd",
        "concurrency": "concurrency_max",
    }
    given = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    if given.get("models") is not None:
        given["models"] = frozenset(given["models"])
    if given.get("networks") is not None:
        given["networks"] = tuple(given["networks"])
    return replace(present, **{names.get(name, name): value for name, value in given.items()})


def changes_wanted(wanted: KeyChanged, present: KeyLimits) -> KeyChanges:
    """What a PATCH changes of a key whose limits are `present`."""
    limits = present
    if wanted.limits is not None:
        limits = limits_wanted(wanted.limits, limits)
    if "expires_at" in wanted.model_fields_set:
        limits = replace(limits, expires_at_ns=wanted.expires_at)
    is_bound = "routing_profile_id" in wanted.model_fields_set
    return KeyChanges(
        name=wanted.name,
        key_group=wanted.key_group,
        limits=None if limits is present else limits,
        is_disabled=wanted.disabled,
        routing_profile_id=(wanted.routing_profile_id or "") if is_bound else None,
    )


def key_shown(stored: StoredKey, activity: KeyActivity, now_ns: int) -> KeyShown:
    """A key as its owner sees it."""
    limits = stored.limits
    expires_at_ns, last_day = limits.expires_at_ns, activity.last_used_day
    return KeyShown(
        id=stored.id,
        hint=stored.hint,
        name=stored.name,
        key_group=stored.key_group,
        status=_status(stored, now_ns),
        limits=_limits_shown(stored),
        spend=SpendShown(
            total_usd=usd_text(stored.spent_nusd),
            today_usd=usd_text(activity.today_nusd),
            week_usd=usd_text(activity.week_nusd),
            month_usd=usd_text(activity.month_nusd),
        ),
        routing_profile_id=stored.routing_profile_id,
        expires_at=None if expires_at_ns is None else moment_text(expires_at_ns),
        created_at=moment_text(stored.created_at_ns),
        updated_at=None if stored.updated_at_ns is None else moment_text(stored.updated_at_ns),
        last_used_on=None if last_day is None else day_text(last_day),
    )


def _limits_shown(stored: StoredKey) -> LimitsShown:
    limits = stored.limits
    most, models, networks = limits.spend_limit_nusd, limits.models, limits.networks
    return LimitsShown(
        spend_usd=None if most is None else usd_text(most),
        spend_left_usd=None if most is None else usd_text(max(0, most - stored.spent_nusd)),
        spend_daily_usd=_usd_shown(limits.spend_daily_nusd),
        spend_weekly_usd=_usd_shown(limits.spend_weekly_nusd),
        spend_monthly_usd=_usd_shown(limits.spend_monthly_nusd),
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrency=limits.concurrency_max,
        models=None if models is None else sorted(models),
        networks=None if networks is None else list(networks),
    )


def _usd_shown(nusd: int | None) -> str | None:
    return None if nusd is None else usd_text(nusd)


def _status(stored: StoredKey, now_ns: int) -> KeyStatus:
    if stored.revoked_at_ns is not None:
        return "revoked"
    if stored.limits.expires_at_ns is not None and stored.limits.expires_at_ns <= now_ns:
        return "expired"
    if stored.disabled_at_ns is not None:
        return "disabled"
    return "active" if stored.paused_at_ns is None else "paused"

"""Reads of keys. Nothing here returns a secret: there is none."""

import hmac
import json
from collections.abc import Sequence
from typing import NamedTuple, cast

from sqlalchemy import Connection, RowMapping, Select, column, select, table

from dragonfly.core.ids import AccountId, KeyId
from dragonfly.core.routing import RoutingRules
from dragonfly.core.secrets import key_id_of
from dragonfly.keys.rules import NO_SPEND_LIMITS, KeyLimits, Peppers, SpendLimits
from dragonfly.keys.tables import account_limits, key_spend, keys

KEYS_PAGE_MAX = 1_000

_accounts = table("accounts", column("id"), column("verified_at_ns"), column("frozen_at_ns"))
_profiles = table("routing_profiles", column("id"), column("rules"))
_PRIVATE = ("digest", "previous_digest", "previous_pepper_version", "previous_until_ns")


WINDOW_COLUMNS = ("spend_daily_nusd", "spend_weekly_nusd", "spend_monthly_nusd")
OWN_WINDOW_COLUMNS = tuple(f"own_{name}" for name in WINDOW_COLUMNS)


class AccountLimits(NamedTuple):
    """What all keys of an account together may spend."""

    operator: SpendLimits
    """Set by the operator."""
    own: SpendLimits
    """Set by the account's owner."""

    @property
    def both(self) -> SpendLimits:
        """What holds."""
        return self.operator.and_within(self.own)


class StoredKey(NamedTuple):
    """One key as stored, with what it has spent. Money in nano-USD, times in nanoseconds since the epoch."""

    id: KeyId
    account_id: AccountId
    is_verified: bool
    """The account is."""
    hint: str
    name: str
    key_group: str
    limits: KeyLimits
    revoked_at_ns: int | None
    created_at_ns: int
    spent_nusd: int
    leased_nusd: int
    pepper_version: int
    is_frozen: bool = False
    """The account is."""
    updated_at_ns: int | None = None
    disabled_at_ns: int | None = None
    routing_profile_id: str | None = None
    routing: RoutingRules | None = None
    account_spend: SpendLimits = NO_SPEND_LIMITS
    """What all keys of the account together may spend."""
    paused_at_ns: int | None = None
    resumed_at_ns: int | None = None
    secret_until_ns: int | None = None
    """The key was found by the secret it had before a rotation; that one works until then."""


def key_by_digest(connection: Connection, peppers: Peppers, secret: bytes) -> StoredKey | None:
    """The key whose digest `secret` (a well-formed key) has, also when it is revoked or expired; else None."""
    key_id = key_id_of(secret.decode("ascii"))
    wanted = _stored_keys().add_columns(*(keys.c[name] for name in _PRIVATE)).where(keys.c.id == key_id)
    row = connection.execute(wanted).mappings().one_or_none()
    if row is None:
        return None
    if _is_secret(peppers, row["pepper_version"], row["digest"], secret):
        return _stored_key(row)
    if row["previous_digest"] is None:
        return None
    if _is_secret(peppers, row["previous_pepper_version"], row["previous_digest"], secret):
        return _stored_key(row)._replace(secret_until_ns=row["previous_until_ns"])
    return None


def _is_secret(peppers: Peppers, version: int, digest: bytes, secret: bytes) -> bool:
    computed = peppers.digest(version, secret)
    return computed is not None and hmac.compare_digest(computed, digest)


def key_of_account(connection: Connection, key_id: KeyId, *, account_id: AccountId) -> StoredKey | None:
    """The account's key with that id, or None."""
    wanted = _stored_keys().where(keys.c.id == key_id, keys.c.account_id == account_id)
    row = connection.execute(wanted).mappings().one_or_none()
    return None if row is None else _stored_key(row)


def keys_of_account(
    connection: Connection, account_id: AccountId, *, after: str = "", limit: int = 100, key_group: str | None = None
) -> list[StoredKey]:
    """The account's keys in the order of their ids, revoked ones too."""
    wanted = _stored_keys().where(keys.c.account_id == account_id, keys.c.id > after).order_by(keys.c.id)
    if key_group is not None:
        wanted = wanted.where(keys.c.key_group == key_group)
    return [_stored_key(row) for row in connection.execute(wanted.limit(min(limit, KEYS_PAGE_MAX))).mappings()]


def limits_of_account(connection: Connection, account_id: AccountId) -> AccountLimits:
    """What the account's keys together may spend."""
    columns = [account_limits.c[name] for name in (*WINDOW_COLUMNS, *OWN_WINDOW_COLUMNS)]
    row = connection.execute(select(*columns).where(account_limits.c.account_id == account_id)).one_or_none()
    return AccountLimits(NO_SPEND_LIMITS, NO_SPEND_LIMITS) if row is None else _account_limits(row)


def _account_limits(values: Sequence[int | None]) -> AccountLimits:
    """Of the operator's columns and then the owner's."""
    count = len(WINDOW_COLUMNS)
    return AccountLimits(SpendLimits(*values[:count]), SpendLimits(*values[count:]))


def owner_of_key(connection: Connection, key_id: KeyId) -> AccountId | None:
    """For operators, who know only the id in a report: the account behind a key."""
    owner = connection.execute(select(keys.c.account_id).where(keys.c.id == key_id)).scalar_one_or_none()
    return None if owner is None else AccountId(owner)


def _stored_keys() -> Select[tuple[object, ...]]:
    joined = keys.join(_accounts, _accounts.c.id == keys.c.account_id).join(
        key_spend, key_spend.c.key_id == keys.c.id
    )
    joined = joined.outerjoin(_profiles, _profiles.c.id == keys.c.routing_profile_id)
    joined = joined.outerjoin(account_limits, account_limits.c.account_id == keys.c.account_id)
    columns = [column for column in keys.c if column.name not in _PRIVATE]
    others = (key_spend.c.spent_nusd, key_spend.c.leased_nusd, _accounts.c.verified_at_ns, _accounts.c.frozen_at_ns)
    windows = [account_limits.c[name].label(f"account_{name}") for name in (*WINDOW_COLUMNS, *OWN_WINDOW_COLUMNS)]
    wanted = select(*columns, *others, *windows, _profiles.c.rules).select_from(joined)
    return cast("Select[tuple[object, ...]]", wanted)


def _stored_key(row: RowMapping) -> StoredKey:
    return StoredKey(
        id=row["id"],
        account_id=row["account_id"],
        is_verified=row["verified_at_ns"] is not None,
        hint=row["hint"],
        name=row["name"],
        key_group=row["key_group"],
        limits=_limits(row),
        revoked_at_ns=row["revoked_at_ns"],
        created_at_ns=row["created_at_ns"],
        spent_nusd=row["spent_nusd"],
        leased_nusd=row["leased_nusd"],
        pepper_version=row["pepper_version"],
        is_frozen=row["frozen_at_ns"] is not None,
        updated_at_ns=row["updated_at_ns"],
        disabled_at_ns=row["disabled_at_ns"],
        routing_profile_id=row["routing_profile_id"],
        account_spend=_account_limits(
            [row[f"account_{name}"] for name in (*WINDOW_COLUMNS, *OWN_WINDOW_COLUMNS)]
        ).both,
        paused_at_ns=row["paused_at_ns"],
        resumed_at_ns=row["resumed_at_ns"],
        routing=None if row["rules"] is None else RoutingRules.from_json(row["rules"]),
    )


def _limits(row: RowMapping) -> KeyLimits:
    models = row["models"]
    return KeyLimits(
        requests_per_minute=row["requests_per_minute"],
        concurrency_max=row["concurrency_max"],
        spend_limit_nusd=row["spend_limit_nusd"],
        models=None if models is None else frozenset(json.loads(models)),
        expires_at_ns=row["expires_at_ns"],
        tokens_per_minute=row["tokens_per_minute"],
        networks=None if row["networks"] is None else tuple(json.loads(row["networks"])),
        **{name: row[name] for name in WINDOW_COLUMNS},
    )

"""What changes keys. Each action runs inside a transaction that its caller opened."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, column, func, insert, select, table, update
from sqlalchemy.exc import IntegrityError

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, KeyId
from dragonfly.core.secrets import KEY_ID_LENGTH, Secret, key_hint, key_id_of, new_key
from dragonfly.infra.changes import record_change
from dragonfly.keys.queries import OWN_WINDOW_COLUMNS, WINDOW_COLUMNS
from dragonfly.keys.rules import KeyLimits, Peppers, SpendLimits, is_key_group, is_name
from dragonfly.keys.tables import account_limits, key_spend, keys

KEYS_PER_ACCOUNT_MAX = 1_000
GRACE_S_MAX = 30 * 86_400
_NS_PER_S = 1_000_000_000

_profiles = table("routing_profiles", column("id"), column("account_id"))


class KeyInvalid(DragonflyError):
    """A name, group or limit out of bounds."""

    code = "key_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__(
            "A key needs a name of 1 to 100 printable characters and limits that are not negative;"
            " a list of models names 1 to 200; a group has small letters, digits, - and _."
        )


class KeyNotFound(DragonflyError):
    code = "key_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such key in this account. Give the ten characters after sk-df-.")


class KeyOwnerUnknown(DragonflyError):
    code = "account_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such account. Copy the whole id (acc-…).")


class TooManyKeys(DragonflyError):
    code = "too_many_keys"
    status = 409

    def __init__(self) -> None:
        super().__init__(f"An account holds at most {KEYS_PER_ACCOUNT_MAX} keys. Revoked ones count: reuse a key.")


class KeyRevoked(DragonflyError):
    """A change of a key that is over."""

    code = "key_revoked"
    status = 409

    def __init__(self) -> None:
        super().__init__("This key is revoked, which is final. Create a new one.")


class GraceInvalid(DragonflyError):
    code = "grace_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__(f"The old secret may work for 0 to {GRACE_S_MAX} seconds more.")


class ProfileUnknown(DragonflyError):
    """The routing profile does not exist or belongs to somebody else."""

    code = "routing_profile_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such routing profile. GET /api/routing/profiles lists yours.")


class KeyChanges(NamedTuple):
    """What an update changes; None leaves a field alone."""

    name: str | None = None
    key_group: str | None = None
    limits: KeyLimits | None = None
    is_disabled: bool | None = None
    routing_profile_id: str | None = None
    """"" unbinds the key from its profile."""


class IssuedKey(NamedTuple):
    """A new key. `secret` exists only here: the database keeps a digest of it."""

    key_id: KeyId
    secret: Secret
    hint: str


def issue_key(
    connection: Connection,
    peppers: Peppers,
    *,
    account_id: AccountId,
    name: str,
    limits: KeyLimits | None = None,
    key_group: str = "",
    now_ns: int,
) -> IssuedKey:
    """A new key for `account_id`. Show `secret` once; nobody can read it again."""
    limits = limits or KeyLimits()
    if not (is_name(name) and is_key_group(key_group) and limits.is_valid()):
        raise KeyInvalid
    owned = connection.execute(select(func.count()).where(keys.c.account_id == account_id)).scalar_one()
    if owned >= KEYS_PER_ACCOUNT_MAX:
        raise TooManyKeys
    secret = new_key()
    text = secret.reveal()
    issued = IssuedKey(KeyId(key_id_of(text)), secret, key_hint(text))
    row = {
        "id": issued.key_id,
        "account_id": account_id,
        "digest": peppers.digest(peppers.current, text.encode()),
        "pepper_version": peppers.current,
        "hint": issued.hint,
        "name": name,
        "key_group": key_group,
        "created_at_ns": now_ns,
        **_limits_row(limits),
    }
    try:
        connection.execute(insert(keys).values(row))
    except IntegrityError:
        raise KeyOwnerUnknown from None
    connection.execute(insert(key_spend).values(key_id=issued.key_id, spent_nusd=0, leased_nusd=0))
    record_change(connection, f"key/{issued.key_id}")
    return issued


def limit_key(connection: Connection, key_id: KeyId, limits: KeyLimits, *, account_id: AccountId) -> None:
    """Replaces the key's limits; KeyNotFound when the account has no such key."""
    if not limits.is_valid():
        raise KeyInvalid
    wanted = update(keys).where(and_(keys.c.id == key_id, keys.c.account_id == account_id))
    if not connection.execute(wanted.values(_limits_row(limits))).rowcount:
        raise KeyNotFound
    record_change(connection, f"key/{key_id}")


def limit_account(connection: Connection, account_id: AccountId, limits: SpendLimits, *, now_ns: int) -> None:
    """The operator's limits of what all keys of the account together may spend, replaced. KeyInvalid,
    KeyOwnerUnknown."""
    _store_account_limits(connection, account_id, WINDOW_COLUMNS, limits, now_ns=now_ns)


def limit_own_account(connection: Connection, account_id: AccountId, limits: SpendLimits, *, now_ns: int) -> None:
    """The owner's, which can only lower what the operator allows. KeyInvalid, KeyOwnerUnknown."""
    _store_account_limits(connection, account_id, OWN_WINDOW_COLUMNS, limits, now_ns=now_ns)


def _store_account_limits(
    connection: Connection, account_id: AccountId, columns: Sequence[str], limits: SpendLimits, *, now_ns: int
) -> None:
    if not limits.is_valid():
        raise KeyInvalid
    row = {**dict(zip(columns, limits, strict=True)), "updated_at_ns": now_ns}
    wanted = update(account_limits).where(account_limits.c.account_id == account_id)
    if not connection.execute(wanted.values(row)).rowcount:
        try:
            connection.execute(insert(account_limits).values(account_id=account_id, **row))
        except IntegrityError:
            raise KeyOwnerUnknown from None
    record_change(connection, f"account/{account_id}")


def pause_key(connection: Connection, key_id: KeyId, *, now_ns: int) -> bool:
    """Pauses a key for spending far above its habit; False when it is not in use or paused already."""
    wanted = update(keys).where(keys.c.id == key_id, keys.c.paused_at_ns.is_(None), keys.c.revoked_at_ns.is_(None))
    if not connection.execute(wanted.values(paused_at_ns=now_ns)).rowcount:
        return False
    record_change(connection, f"key/{key_id}")
    return True


def resume_key(connection: Connection, key_id: KeyId, *, account_id: AccountId, now_ns: int) -> None:
    """The owner lets a paused key go on. KeyNotFound, KeyRevoked."""
    row: dict[str, object] = {"paused_at_ns": None, "resumed_at_ns": now_ns, "updated_at_ns": now_ns}
    _update_live_key(connection, key_id, row, account_id=account_id)


def change_key(
    connection: Connection, key_id: KeyId, changes: KeyChanges, *, account_id: AccountId, now_ns: int
) -> None:
    """Changes what `changes` names; every worker acts on it within a second. KeyNotFound, KeyRevoked, KeyInvalid,
    ProfileUnknown."""
    row: dict[str, object] = {}
    if changes.name is not None:
        row["name"] = changes.name
    if changes.key_group is not None:
        row["key_group"] = changes.key_group
    if changes.limits is not None:
        row |= _limits_row(changes.limits)
    if changes.is_disabled is not None:
        row["disabled_at_ns"] = now_ns if changes.is_disabled else None
        if not changes.is_disabled:
            row |= {"paused_at_ns": None, "resumed_at_ns": now_ns}
    if changes.routing_profile_id is not None:
        _require_profile(connection, account_id, changes.routing_profile_id or None)
        row["routing_profile_id"] = changes.routing_profile_id or None
    is_valid = (
        (changes.name is None or is_name(changes.name))
        and (changes.key_group is None or is_key_group(changes.key_group))
        and (changes.limits is None or changes.limits.is_valid())
    )
    if not is_valid:
        raise KeyInvalid
    _update_live_key(connection, key_id, {**row, "updated_at_ns": now_ns}, account_id=account_id)


def rotate_key(
    connection: Connection,
    peppers: Peppers,
    key_id: KeyId,
    *,
    account_id: AccountId,
    grace_s: int = 0,
    now_ns: int,
) -> IssuedKey:
    """Gives the key another secret and keeps its id, limits and history; the old secret works for `grace_s` more.

    A second rotation within that time ends the first secret at once: at most two work.
    """
    if not 0 <= grace_s <= GRACE_S_MAX:
        raise GraceInvalid
    if len(key_id) != KEY_ID_LENGTH:
        raise KeyNotFound  # it came from outside, and no key is made for it
    secret = new_key(key_id=key_id)
    text = secret.reveal()
    row: dict[str, object] = {
        "digest": peppers.digest(peppers.current, text.encode()),
        "pepper_version": peppers.current,
        "hint": key_hint(text),
        "previous_digest": keys.c.digest if grace_s else None,
        "previous_pepper_version": keys.c.pepper_version if grace_s else None,
        "previous_until_ns": now_ns + grace_s * _NS_PER_S if grace_s else None,
        "updated_at_ns": now_ns,
    }
    _update_live_key(connection, key_id, row, account_id=account_id)
    return IssuedKey(key_id, secret, key_hint(text))


def _update_live_key(connection: Connection, key_id: KeyId, row: dict[str, object], *, account_id: AccountId) -> None:
    wanted = and_(keys.c.id == key_id, keys.c.account_id == account_id)
    if connection.execute(update(keys).where(wanted, keys.c.revoked_at_ns.is_(None)).values(row)).rowcount:
        record_change(connection, f"key/{key_id}")
    elif connection.execute(select(keys.c.id).where(wanted)).one_or_none() is None:
        raise KeyNotFound
    else:
        raise KeyRevoked


def _require_profile(connection: Connection, account_id: AccountId, profile_id: str | None) -> None:
    if profile_id is None:
        return
    wanted = select(_profiles.c.id).where(_profiles.c.id == profile_id, _profiles.c.account_id == account_id)
    if connection.execute(wanted).one_or_none() is None:
        raise ProfileUnknown


def revoke_key(connection: Connection, key_id: KeyId, *, account_id: AccountId, now_ns: int) -> None:
    """Ends the key for good; every worker refuses it within a second. A second time changes nothing."""
    wanted = and_(keys.c.id == key_id, keys.c.account_id == account_id)
    revoked = update(keys).where(wanted, keys.c.revoked_at_ns.is_(None)).values(revoked_at_ns=now_ns)
    if connection.execute(revoked).rowcount:
        record_change(connection, f"key/{key_id}")
    elif connection.execute(select(keys.c.id).where(wanted)).one_or_none() is None:
        raise KeyNotFound


def rehash_key(
    connection: Connection, peppers: Peppers, key_id: KeyId, secret: bytes, *, pepper_version: int
) -> None:
    """Moves a key to the current pepper; for a secret that was just proven right under `pepper_version`."""
    digest = peppers.digest(peppers.current, secret)
    # The secret may have been rotated away since it was read: it must still be the one that is stored.
    is_unchanged = and_(keys.c.id == key_id, keys.c.digest == peppers.digest(pepper_version, secret))
    wanted = update(keys).where(is_unchanged, keys.c.pepper_version < peppers.current)
    connection.execute(wanted.values(digest=digest, pepper_version=peppers.current))


def _limits_row(limits: KeyLimits) -> dict[str, object]:
    return {
        "requests_per_minute": limits.requests_per_minute,
        "concurrency_max": limits.concurrency_max,
        "spend_limit_nusd": limits.spend_limit_nusd,
        "models": None if limits.models is None else json.dumps(sorted(limits.models)),
        "expires_at_ns": limits.expires_at_ns,
        "tokens_per_minute": limits.tokens_per_minute,
        "spend_daily_nusd": limits.spend_daily_nusd,
        "spend_weekly_nusd": limits.spend_weekly_nusd,
        "spend_monthly_nusd": limits.spend_monthly_nusd,
        "networks": None if limits.networks is None else json.dumps(limits.networks),
    }

"""What changes keys. Each action runs inside a transaction that its caller opened."""

import json
from typing import NamedTuple

from sqlalchemy import Connection, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, KeyId
from dragonfly.core.secrets import Secret, key_hint, key_id_of, new_key
from dragonfly.infra.changes import record_change
from dragonfly.keys.rules import NAME_LENGTH_MAX, KeyLimits, Peppers
from dragonfly.keys.tables import key_spend, keys

KEYS_PER_ACCOUNT_MAX = 1_000


class KeyInvalid(DragonflyError):
    """A name or limit out of bounds."""

    code = "key_invalid"

    def __init__(self) -> None:
        super().__init__(
            "A key needs a name of 1 to 100 printable characters and limits that are not negative;"
            " a list of models names 1 to 200."
        )


class KeyNotFound(DragonflyError):
    code = "key_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such key in this account. Give the ten characters after sk-df-.")


class KeyOwnerUnknown(DragonflyError):
    code = "account_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such account. Copy the whole id (acc-…).")


class TooManyKeys(DragonflyError):
    code = "too_many_keys"

    def __init__(self) -> None:
        super().__init__(f"An account holds at most {KEYS_PER_ACCOUNT_MAX} keys. Revoked ones count: reuse a key.")


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
    is_named = 0 < len(name) <= NAME_LENGTH_MAX and name.isprintable()
    if not is_named or len(key_group) > NAME_LENGTH_MAX or not limits.is_valid():
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


def revoke_key(connection: Connection, key_id: KeyId, *, account_id: AccountId, now_ns: int) -> None:
    """Ends the key for good; every worker refuses it within a second. A second time changes nothing."""
    wanted = and_(keys.c.id == key_id, keys.c.account_id == account_id)
    revoked = update(keys).where(wanted, keys.c.revoked_at_ns.is_(None)).values(revoked_at_ns=now_ns)
    if connection.execute(revoked).rowcount:
        record_change(connection, f"key/{key_id}")
    elif connection.execute(select(keys.c.id).where(wanted)).one_or_none() is None:
        raise KeyNotFound


def rehash_key(connection: Connection, peppers: Peppers, key_id: KeyId, secret: bytes) -> None:
    """Moves a key to the current pepper; for a key that was just proven right under an older one."""
    digest = peppers.digest(peppers.current, secret)
    wanted = update(keys).where(keys.c.id == key_id, keys.c.pepper_version < peppers.current)
    connection.execute(wanted.values(digest=digest, pepper_version=peppers.current))


def _limits_row(limits: KeyLimits) -> dict[str, object]:
    return {
        "requests_per_minute": limits.requests_per_minute,
        "concurrency_max": limits.concurrency_max,
        "spend_limit_nusd": limits.spend_limit_nusd,
        "models": None if limits.models is None else json.dumps(sorted(limits.models)),
        "expires_at_ns": limits.expires_at_ns,
    }

"""Management keys: they let programs do what a person does in the dashboard, as far as their scopes go."""

import enum
import hmac
import json
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping, Select, column, func, insert, select, table, update
from sqlalchemy.exc import IntegrityError

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import MANAGEMENT_PREFIX, Secret, is_well_formed_key, key_hint, key_id_of, new_key
from dragonfly.keys.actions import KeyInvalid, KeyOwnerUnknown
from dragonfly.keys.rules import Peppers, is_name
from dragonfly.keys.tables import management_keys

MANAGEMENT_KEYS_PER_ACCOUNT_MAX = 100
PAGE_MAX = 100

_accounts = table("accounts", column("id"), column("frozen_at_ns"))


class Scope(enum.Enum):
    """What a management key may do."""

    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    ROUTING_READ = "routing:read"
    ROUTING_WRITE = "routing:write"
    USAGE_READ = "usage:read"
    WALLET_READ = "wallet:read"


class ManagementKeyNotFound(DragonflyError):
    code = "management_key_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such management key in this account. GET /api/management-keys lists yours.")


class TooManyManagementKeys(DragonflyError):
    code = "too_many_management_keys"
    status = 409

    def __init__(self) -> None:
        super().__init__(
            f"An account holds at most {MANAGEMENT_KEYS_PER_ACCOUNT_MAX} management keys that work. Revoke one first."
        )


class ManagementKey(NamedTuple):
    """One management key as stored; times in nanoseconds since the epoch."""

    id: str
    account_id: AccountId
    hint: str
    name: str
    scopes: frozenset[Scope]
    expires_at_ns: int | None
    revoked_at_ns: int | None
    created_at_ns: int
    last_used_day: int | None
    """Counted from the epoch."""


class IssuedManagementKey(NamedTuple):
    """A new management key. `secret` exists only here."""

    id: str
    secret: Secret
    hint: str


class NewManagementKey(NamedTuple):
    """What a management key is to be."""

    name: str
    scopes: frozenset[Scope]
    expires_at_ns: int | None = None


def issue_management_key(
    connection: Connection, peppers: Peppers, account_id: AccountId, wanted: NewManagementKey, *, now_ns: int
) -> IssuedManagementKey:
    """A new management key; show `secret` once. KeyInvalid, TooManyManagementKeys."""
    expires_at_ns = wanted.expires_at_ns
    is_timely = expires_at_ns is None or now_ns < expires_at_ns < 2**63
    if not is_name(wanted.name) or not wanted.scopes or not is_timely:
        raise KeyInvalid
    working = select(func.count()).where(
        management_keys.c.account_id == account_id, management_keys.c.revoked_at_ns.is_(None)
    )
    if connection.execute(working).scalar_one() >= MANAGEMENT_KEYS_PER_ACCOUNT_MAX:
        raise TooManyManagementKeys
    secret = new_key(prefix=MANAGEMENT_PREFIX)
    text = secret.reveal()
    issued = IssuedManagementKey(key_id_of(text), secret, key_hint(text))
    row = {
        "id": issued.id,
        "account_id": account_id,
        "digest": peppers.digest(peppers.current, text.encode()),
        "pepper_version": peppers.current,
        "hint": issued.hint,
        "name": wanted.name,
        "scopes": json.dumps(sorted(scope.value for scope in wanted.scopes)),
        "expires_at_ns": expires_at_ns,
        "created_at_ns": now_ns,
    }
    try:
        connection.execute(insert(management_keys).values(row))
    except IntegrityError:
        raise KeyOwnerUnknown from None
    return issued


def management_key_by_secret(
    connection: Connection, peppers: Peppers, secret: bytes, *, now_ns: int
) -> ManagementKey | None:
    """The key that `secret` is and that works now, of an account that is not frozen; else None.

    A malformed secret costs no query.
    """
    if not is_well_formed_key(secret, MANAGEMENT_PREFIX):
        return None
    key_id = key_id_of(secret.decode("ascii"))
    joined = management_keys.join(_accounts, _accounts.c.id == management_keys.c.account_id)
    wanted = select(management_keys).select_from(joined)
    wanted = wanted.where(management_keys.c.id == key_id, _accounts.c.frozen_at_ns.is_(None))
    row = connection.execute(wanted).mappings().one_or_none()
    if row is None:
        return None
    digest = peppers.digest(row["pepper_version"], secret)
    if digest is None or not hmac.compare_digest(digest, row["digest"]):
        return None
    found = _management_key(row)
    is_over = found.expires_at_ns is not None and found.expires_at_ns <= now_ns
    return None if is_over or found.revoked_at_ns is not None else found


def mark_used(connection: Connection, key_id: str, *, day: int) -> None:
    """Notes the day of use; call it when the stored day is another, so once a day at most."""
    wanted = update(management_keys).where(management_keys.c.id == key_id)
    connection.execute(wanted.values(last_used_day=day))


def management_key_of_account(connection: Connection, key_id: str, *, account_id: AccountId) -> ManagementKey | None:
    """The account's management key with that id, or None."""
    row = connection.execute(_owned(account_id).where(management_keys.c.id == key_id)).mappings().one_or_none()
    return None if row is None else _management_key(row)


def management_keys_of_account(
    connection: Connection, account_id: AccountId, *, after: str = "", limit: int = 50
) -> list[ManagementKey]:
    """The account's management keys in the order of their ids, revoked ones too."""
    wanted = _owned(account_id).where(management_keys.c.id > after).order_by(management_keys.c.id)
    rows = connection.execute(wanted.limit(min(limit, PAGE_MAX + 1))).mappings()
    return [_management_key(row) for row in rows]


def revoke_management_key(connection: Connection, key_id: str, *, account_id: AccountId, now_ns: int) -> None:
    """Ends the key for good, at once; a second time changes nothing. ManagementKeyNotFound."""
    owned = management_keys.c.account_id == account_id
    wanted = update(management_keys).where(management_keys.c.id == key_id, owned)
    ended = func.coalesce(management_keys.c.revoked_at_ns, now_ns)
    if not connection.execute(wanted.values(revoked_at_ns=ended)).rowcount:
        raise ManagementKeyNotFound


def _owned(account_id: AccountId) -> Select[tuple[object, ...]]:
    return select(management_keys).where(management_keys.c.account_id == account_id)


def _management_key(row: RowMapping) -> ManagementKey:
    stored = {name: row[name] for name in ManagementKey._fields}
    return ManagementKey(**{**stored, "scopes": frozenset(Scope(text) for text in json.loads(row["scopes"]))})

"""/api/keys: API keys of the account that asks. Secrets are shown once and never again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection

from dragonfly.accounts.queries import account_by_id
from dragonfly.admission.errors import AccountFrozen, AccountUnverified
from dragonfly.api.desk import Desk
from dragonfly.api.key_shapes import (
    KeyChanged,
    KeyIdPath,
    KeyMade,
    KeyShown,
    KeyWanted,
    Rotation,
    changes_wanted,
    key_shown,
    limits_wanted,
)
from dragonfly.api.principal import Principal, requires
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, cursor_position, page_of
from dragonfly.core.ids import AccountId, KeyId
from dragonfly.keys.actions import IssuedKey, KeyChanges, KeyNotFound, change_key, issue_key, revoke_key, rotate_key
from dragonfly.keys.management import Scope
from dragonfly.keys.queries import StoredKey, key_of_account, keys_of_account
from dragonfly.keys.rules import KEY_GROUP_LENGTH_MAX, KeyLimits, Peppers
from dragonfly.notices.key_letters import KeyChange, tell_key_changed, tell_key_created
from dragonfly.usage.queries import day_of
from dragonfly.usage.reports import KeyActivity, activity_of_keys

Reader = Annotated[Principal, Depends(requires(Scope.KEYS_READ.value))]
Writer = Annotated[Principal, Depends(requires(Scope.KEYS_WRITE.value))]
Group = Annotated[str | None, Query(max_length=KEY_GROUP_LENGTH_MAX, description="Only keys of this group.")]


class KeyDesk:
    """The use cases of /api/keys, each in one transaction."""

    def __init__(self, desk: Desk, peppers: Peppers) -> None:
        self._desk = desk
        self._peppers = peppers

    async def page(
        self, account_id: AccountId, *, limit: int, cursor: str | None, key_group: str | None
    ) -> Page[KeyShown]:
        position = cursor_position("keys", cursor, str)
        after = "" if position is None else str(position[0])
        now_ns = self._desk.clock.now_ns()

        def find(connection: Connection) -> Page[KeyShown]:
            found = keys_of_account(connection, account_id, after=after, limit=limit + 1, key_group=key_group)
            stored, next_cursor = page_of(found, limit, "keys", lambda key: (key.id,))
            activity = activity_of_keys(connection, account_id, [key.id for key in stored], day=day_of(now_ns))
            shown = [key_shown(key, activity.get(key.id, KeyActivity()), now_ns) for key in stored]
            return Page(data=shown, next_cursor=next_cursor)

        return await self._desk.read(find)

    async def one(self, account_id: AccountId, key_id: KeyId) -> KeyShown:
        return await self._desk.read(lambda connection: self._shown(connection, account_id, key_id))

    async def create(self, account_id: AccountId, wanted: KeyWanted) -> KeyMade:
        now_ns = self._desk.clock.now_ns()

        def create(connection: Connection) -> KeyMade:
            require_working_account(connection, account_id)
            limits = limits_wanted(wanted.limits, KeyLimits(expires_at_ns=wanted.expires_at))
            issued = issue_key(
                connection,
                self._peppers,
                account_id=account_id,
                name=wanted.name,
                limits=limits,
                key_group=wanted.key_group,
                now_ns=now_ns,
            )
            if wanted.routing_profile_id is not None:
                bound = KeyChanges(routing_profile_id=wanted.routing_profile_id)
                change_key(connection, issued.key_id, bound, account_id=account_id, now_ns=now_ns)
            tell_key_created(connection, self._desk.ids, account_id, issued, name=wanted.name, now_ns=now_ns)
            return self._made(connection, account_id, issued)

        return await self._desk.write(create)

    async def change(self, account_id: AccountId, key_id: KeyId, wanted: KeyChanged) -> KeyShown:
        now_ns = self._desk.clock.now_ns()

        def change(connection: Connection) -> KeyShown:
            stored = self._stored(connection, account_id, key_id)
            changes = changes_wanted(wanted, stored.limits)
            change_key(connection, key_id, changes, account_id=account_id, now_ns=now_ns)
            return self._shown(connection, account_id, key_id)

        return await self._desk.write(change)

    async def revoke(self, account_id: AccountId, key_id: KeyId) -> KeyShown:
        now_ns = self._desk.clock.now_ns()

        def revoke(connection: Connection) -> KeyShown:
            revoke_key(connection, key_id, account_id=account_id, now_ns=now_ns)
            return self._shown(connection, account_id, key_id)

        return await self._desk.write(revoke)

    async def rotate(self, account_id: AccountId, key_id: KeyId, *, grace_s: int) -> KeyMade:
        now_ns = self._desk.clock.now_ns()

        def rotate(connection: Connection) -> KeyMade:
            require_working_account(connection, account_id)
            issued = rotate_key(
                connection, self._peppers, key_id, account_id=account_id, grace_s=grace_s, now_ns=now_ns
            )
            stored = self._stored(connection, account_id, key_id)
            tell_key_changed(connection, self._desk.ids, stored, KeyChange.ROTATED, now_ns=now_ns)
            return self._made(connection, account_id, issued)

        return await self._desk.write(rotate)

    def _made(self, connection: Connection, account_id: AccountId, issued: IssuedKey) -> KeyMade:
        shown = self._shown(connection, account_id, issued.key_id)
        return KeyMade(**shown.model_dump(), key=issued.secret.reveal())

    def _shown(self, connection: Connection, account_id: AccountId, key_id: KeyId) -> KeyShown:
        stored = self._stored(connection, account_id, key_id)
        now_ns = self._desk.clock.now_ns()
        activity = activity_of_keys(connection, account_id, [key_id], day=day_of(now_ns))
        return key_shown(stored, activity.get(key_id, KeyActivity()), now_ns)

    def _stored(self, connection: Connection, account_id: AccountId, key_id: KeyId) -> StoredKey:
        stored = key_of_account(connection, key_id, account_id=account_id)
        if stored is None:
            raise KeyNotFound
        return stored


def require_working_account(connection: Connection, account_id: AccountId) -> None:
    """AccountUnverified, AccountFrozen: neither gets new credentials."""
    account = account_by_id(connection, account_id)
    if account is None or account.verified_at_ns is None:
        raise AccountUnverified
    if account.frozen_at_ns is not None:
        raise AccountFrozen


def key_routes(desk: Desk, peppers: Peppers) -> APIRouter:
    """The routes; management keys with the scopes keys:read and keys:write may use them too."""
    routes = APIRouter(prefix="/api/keys", tags=["keys"])
    keys = KeyDesk(desk, peppers)

    @routes.get("", operation_id="list_keys", summary="List API keys, revoked ones too")
    async def list_keys(
        principal: Reader, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None, key_group: Group = None
    ) -> Page[KeyShown]:
        return await keys.page(principal.account_id, limit=limit, cursor=cursor, key_group=key_group)

    @routes.post("", status_code=201, operation_id="create_key", summary="Create a key", openapi_extra=kept("key"))
    async def create_key(principal: Writer, wanted: KeyWanted) -> KeyMade:
        """The secret is shown once. The account must be verified; its owner gets a mail."""
        return await keys.create(principal.account_id, wanted)

    @routes.get("/{key_id}", operation_id="get_key", summary="One key")
    async def get_key(principal: Reader, key_id: KeyIdPath) -> KeyShown:
        return await keys.one(principal.account_id, KeyId(key_id))

    @routes.patch("/{key_id}", operation_id="change_key", summary="Change a key, or switch it off or on")
    async def patch_key(principal: Writer, key_id: KeyIdPath, wanted: KeyChanged) -> KeyShown:
        """Every worker follows within a second."""
        return await keys.change(principal.account_id, KeyId(key_id), wanted)

    @routes.delete("/{key_id}", operation_id="revoke_key", summary="Revoke a key for good")
    async def delete_key(principal: Writer, key_id: KeyIdPath) -> KeyShown:
        """Every worker refuses it within a second. A second time changes nothing."""
        return await keys.revoke(principal.account_id, KeyId(key_id))

    @routes.post(
        "/{key_id}/rotate", operation_id="rotate_key", summary="Give a key another secret", openapi_extra=kept("key")
    )
    async def rotate(principal: Writer, key_id: KeyIdPath, wanted: Rotation) -> KeyMade:
        """Id, limits and history stay. The old secret works for `grace_s` more seconds, so that nothing stops."""
        return await keys.rotate(principal.account_id, KeyId(key_id), grace_s=wanted.grace_s)

    return routes

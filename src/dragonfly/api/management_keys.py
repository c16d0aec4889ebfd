"""/api/management-keys: keys for programs that manage an account. Only a person makes or ends them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.requests import Request

from dragonfly.api.desk import Desk
from dragonfly.api.key_shapes import ONCE, KeyName
from dragonfly.api.keys import require_working_account
from dragonfly.api.principal import Authenticate, Principal, Role, SessionInvalid, customer
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Moment, Page, Strict, cursor_position, day_text, page_of
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import MANAGEMENT_PREFIX, is_well_formed_key
from dragonfly.keys.management import (
    ManagementKey,
    ManagementKeyNotFound,
    NewManagementKey,
    Scope,
    issue_management_key,
    management_key_by_secret,
    management_key_of_account,
    management_keys_of_account,
    mark_used,
    revoke_management_key,
)
from dragonfly.keys.rules import Peppers
from dragonfly.usage.queries import day_of

ScopeName = Literal["keys:read", "keys:write", "routing:read", "routing:write", "usage:read", "wallet:read"]
Person = Annotated[Principal, Depends(customer)]
KeyIdPath = Annotated[
    str, Path(min_length=1, max_length=64, description="The key's id: the ten characters after mk-df-.")
]
_BEARER = b"bearer "


class ManagementKeyWanted(Strict):
    """A new management key."""

    name: KeyName
    scopes: Annotated[list[ScopeName], Field(min_length=1, max_length=len(Scope), examples=[["usage:read"]])]
    expires_at: Moment | None = None


class ManagementKeyShown(BaseModel):
    """A management key without its secret."""

    id: str
    hint: Annotated[str, Field(examples=["mk-df-7Yw2...pQ0a"])]
    name: str
    scopes: list[ScopeName]
    status: Literal["active", "expired", "revoked"]
    expires_at: str | None
    created_at: str
    last_used_on: Annotated[str | None, Field(description="A UTC day.")]


class ManagementKeyMade(ManagementKeyShown):
    """A management key with its secret, which nobody can read again."""

    key: Annotated[str | None, Field(description=ONCE, examples=["mk-df-…"])]


def with_management_keys(sessions: Authenticate, desk: Desk, peppers: Peppers) -> Authenticate:
    """Knows management keys too: whatever begins with their prefix is one, everything else is for `sessions`.

    A malformed key costs no query. Unlike API keys they are looked up each time, so a revoked one ends at once.
    """

    async def authenticate(request: Request) -> Principal:
        secret = _bearer(request)
        if not secret.startswith(MANAGEMENT_PREFIX.encode()):
            return await sessions(request)
        if not is_well_formed_key(secret, MANAGEMENT_PREFIX):
            raise SessionInvalid
        now_ns = desk.clock.now_ns()
        found = await desk.read(
            lambda connection: management_key_by_secret(connection, peppers, secret, now_ns=now_ns)
        )
        if found is None:
            raise SessionInvalid
        today, key_id = day_of(now_ns), found.id
        if found.last_used_day != today:
            await desk.write(lambda connection: mark_used(connection, key_id, day=today))
        scopes = frozenset(scope.value for scope in found.scopes)
        return Principal(found.account_id, Role.CUSTOMER, None, scopes, second_factor=False)

    return authenticate


def management_key_routes(desk: Desk, peppers: Peppers) -> APIRouter:
    """The routes; none of them takes a management key."""
    routes = APIRouter(prefix="/api/management-keys", tags=["management keys"])

    @routes.get("", operation_id="list_management_keys", summary="List management keys, revoked ones too")
    async def list_keys(
        principal: Person, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
    ) -> Page[ManagementKeyShown]:
        position = cursor_position("management_keys", cursor, str)
        after = "" if position is None else str(position[0])

        def find(connection: Connection) -> Page[ManagementKeyShown]:
            found = management_keys_of_account(connection, principal.account_id, after=after, limit=limit + 1)
            stored, next_cursor = page_of(found, limit, "management_keys", lambda key: (key.id,))
            now_ns = desk.clock.now_ns()
            return Page(data=[_shown(key, now_ns) for key in stored], next_cursor=next_cursor)

        return await desk.read(find)

    @routes.post(
        "",
        status_code=201,
        operation_id="create_management_key",
        summary="Create a management key",
        openapi_extra=kept("key"),
    )
    async def create_key(principal: Person, wanted: ManagementKeyWanted) -> ManagementKeyMade:
        """The secret is shown once. It cannot call models and does only what its scopes name."""
        now_ns = desk.clock.now_ns()
        scopes = frozenset(Scope(name) for name in wanted.scopes)

        def create(connection: Connection) -> ManagementKeyMade:
            require_working_account(connection, principal.account_id)
            order = NewManagementKey(wanted.name, scopes, wanted.expires_at)
            issued = issue_management_key(connection, peppers, principal.account_id, order, now_ns=now_ns)
            shown = _one(connection, issued.id, principal.account_id, now_ns)
            return ManagementKeyMade(**shown.model_dump(), key=issued.secret.reveal())

        return await desk.write(create)

    @routes.get("/{key_id}", operation_id="get_management_key", summary="One management key")
    async def get_key(principal: Person, key_id: KeyIdPath) -> ManagementKeyShown:
        now_ns = desk.clock.now_ns()
        return await desk.read(lambda connection: _one(connection, key_id, principal.account_id, now_ns))

    @routes.delete("/{key_id}", operation_id="revoke_management_key", summary="Revoke a management key for good")
    async def delete_key(principal: Person, key_id: KeyIdPath) -> ManagementKeyShown:
        """It is refused at once. A second time changes nothing."""
        now_ns = desk.clock.now_ns()

        def revoke(connection: Connection) -> ManagementKeyShown:
            revoke_management_key(connection, key_id, account_id=principal.account_id, now_ns=now_ns)
            return _one(connection, key_id, principal.account_id, now_ns)

        return await desk.write(revoke)

    return routes


def _bearer(request: Request) -> bytes:
    """What stands in `Authorization: Bearer …`, as it came; empty when there is nothing of that kind."""
    given = dict(request.scope["headers"]).get(b"authorization", b"")
    return given[len(_BEARER) :] if given[: len(_BEARER)].lower() == _BEARER else b""


def _one(connection: Connection, key_id: str, account_id: AccountId, now_ns: int) -> ManagementKeyShown:
    stored = management_key_of_account(connection, key_id, account_id=account_id)
    if stored is None:
        raise ManagementKeyNotFound
    return _shown(stored, now_ns)


def _shown(stored: ManagementKey, now_ns: int) -> ManagementKeyShown:
    status: Literal["active", "expired", "revoked"] = "active"
    if stored.revoked_at_ns is not None:
        status = "revoked"
    elif stored.expires_at_ns is not None and stored.expires_at_ns <= now_ns:
        status = "expired"
    return ManagementKeyShown(
        id=stored.id,
        hint=stored.hint,
        name=stored.name,
        scopes=sorted(scope.value for scope in stored.scopes),
        status=status,
        expires_at=None if stored.expires_at_ns is None else moment_text(stored.expires_at_ns),
        created_at=moment_text(stored.created_at_ns),
        last_used_on=None if stored.last_used_day is None else day_text(stored.last_used_day),
    )

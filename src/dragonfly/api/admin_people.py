"""/api/admin/accounts and /api/admin/keys: what operators do for and to people. All of it leaves a row in the log."""

import hashlib
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from dragonfly.accounts.actions import AccountNotFound, freeze_account
from dragonfly.accounts.people import person_of, sign_up_risk
from dragonfly.accounts.queries import Account, account_by_id, accounts_found
from dragonfly.api.desk import Desk
from dragonfly.api.key_shapes import KeyIdPath, KeyShown, key_shown
from dragonfly.api.operating import Because, Case, Operator, Reason
from dragonfly.api.principal import Forbidden
from dragonfly.api.repeats import KEY_LENGTH_MAX, kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, Strict, Usd, cursor_position, page_of
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, KeyId
from dragonfly.core.money import from_usd, usd_text
from dragonfly.keys.actions import KeyChanges, KeyNotFound, change_key, revoke_key
from dragonfly.keys.queries import StoredKey, key_of_account, keys_of_account, owner_of_key
from dragonfly.ledger.actions import grant_credit
from dragonfly.ledger.queries import EMPTY_WALLET, Wallet, wallet_of
from dragonfly.notices.key_letters import KeyChange, tell_key_changed
from dragonfly.operations.rules import AuditAction
from dragonfly.usage.queries import day_of
from dragonfly.usage.reports import KeyActivity, activity_of_keys

GRANT_NUSD_MAX = from_usd(1_000)
"""What one operator can give at once; more is a top-up or an entry of the command line."""
AccountPath = Annotated[str, Path(min_length=1, max_length=64, description="acc-…")]
RepeatKey = Annotated[str | None, Header(alias="Idempotency-Key", max_length=KEY_LENGTH_MAX)]


class GrantInvalid(DragonflyError):
    code = "grant_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__(f"One grant is more than 0 and at most {usd_text(GRANT_NUSD_MAX)} USD.")


class GrantWanted(Strict):
    """Credit for an account."""

    amount_usd: Annotated[Usd, Field(description="More than 0 and at most 1,000.")]
    reason: Reason


class PersonShown(BaseModel):
    """An account as operators see it."""

    id: str
    name: str
    email: str | None
    status: Literal["active", "unverified", "frozen"]
    created_at: str


class WalletShown(BaseModel):
    """Money in USD."""

    balance_usd: str
    held_usd: str
    used_usd: str


class PersonInDetail(PersonShown):
    """An account with its money."""

    wallet: WalletShown
    frozen_at: str | None
    verified_at: str | None
    role: Annotated[Literal["customer", "operator"] | None, Field(description="null: nobody signs in to it.")]
    sign_up_risk: Annotated[int | None, Field(description="0 to 100; null when the sign-up is forgotten.")]
    sign_up_risk_reasons: list[str]


class KeyOfPerson(KeyShown):
    """A key with its owner."""

    account_id: str


def admin_people_routes(desk: Desk) -> APIRouter:
    """The routes about people; the operator role and a second factor are needed for each."""
    routes = APIRouter(prefix="/api/admin/accounts", tags=["operators"])

    @routes.get("", operation_id="admin_find_accounts", summary="Find people by id, address or name")
    async def find_accounts(
        principal: Operator,
        query: Annotated[str, Query(max_length=254, description="Empty: everybody.")] = "",
        limit: Limit = PAGE_DEFAULT,
        cursor: Cursor = None,
    ) -> Page[PersonShown]:
        position = cursor_position("people", cursor, str)
        after = "" if position is None else str(position[0])

        def find(connection: Connection) -> Page[PersonShown]:
            Case(connection, desk, principal).record(AuditAction.ACCOUNT_SEARCH, "accounts")
            found = accounts_found(connection, query, after=after, limit=limit + 1)
            page, next_cursor = page_of(found, limit, "people", lambda account: (account.id,))
            return Page(data=[_person_shown(account) for account in page], next_cursor=next_cursor)

        return await desk.write(find)

    @routes.get("/{account_id}", operation_id="admin_get_account", summary="One account with its money")
    async def get_account(principal: Operator, account_id: AccountPath) -> PersonInDetail:
        def find(connection: Connection) -> PersonInDetail:
            Case(connection, desk, principal).record(AuditAction.ACCOUNT_READ, account_id)
            return _in_detail(connection, AccountId(account_id))

        return await desk.write(find)

    @routes.post(
        "/{account_id}/credit", operation_id="admin_grant_credit", summary="Give credit", openapi_extra=kept()
    )
    async def grant(
        principal: Operator, account_id: AccountPath, wanted: GrantWanted, repeat_key: RepeatKey = None
    ) -> PersonInDetail:
        """Send an Idempotency-Key: the same one never gives twice, whatever happens in between."""
        if not 0 < wanted.amount_usd <= GRANT_NUSD_MAX:
            raise GrantInvalid
        key = repeat_key or desk.ids.new("grt-", desk.clock.now_ns())
        return await desk.write(lambda connection: _grant(Case(connection, desk, principal), account_id, wanted, key))

    @routes.post("/{account_id}/freeze", operation_id="admin_freeze", summary="Stop an account", openapi_extra=kept())
    async def freeze(principal: Operator, account_id: AccountPath, wanted: Because) -> PersonInDetail:
        """Its keys are refused within a second, everywhere."""
        action = AuditAction.ACCOUNT_FREEZE
        return await desk.write(
            lambda connection: _freeze(Case(connection, desk, principal), account_id, wanted.reason, action)
        )

    @routes.post(
        "/{account_id}/unfreeze", operation_id="admin_unfreeze", summary="Thaw an account", openapi_extra=kept()
    )
    async def unfreeze(principal: Operator, account_id: AccountPath, wanted: Because) -> PersonInDetail:
        action = AuditAction.ACCOUNT_UNFREEZE
        return await desk.write(
            lambda connection: _freeze(Case(connection, desk, principal), account_id, wanted.reason, action)
        )

    return routes


def admin_key_routes(desk: Desk) -> APIRouter:
    """The routes about other people's keys."""
    routes = APIRouter(prefix="/api/admin", tags=["operators"])

    @routes.get("/accounts/{account_id}/keys", operation_id="admin_list_keys", summary="An account's keys")
    async def keys_of(
        principal: Operator, account_id: AccountPath, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
    ) -> Page[KeyOfPerson]:
        position = cursor_position("admin_keys", cursor, str)
        after = "" if position is None else str(position[0])

        def find(connection: Connection) -> Page[KeyOfPerson]:
            case = Case(connection, desk, principal)
            case.record(AuditAction.KEY_READ, account_id)
            if account_by_id(connection, AccountId(account_id)) is None:
                raise AccountNotFound
            found = keys_of_account(connection, AccountId(account_id), after=after, limit=limit + 1)
            page, next_cursor = page_of(found, limit, "admin_keys", lambda key: (key.id,))
            return Page(
                data=[_key_of_person(Case(connection, desk, principal), key) for key in page], next_cursor=next_cursor
            )

        return await desk.write(find)

    @routes.get("/keys/{key_id}", operation_id="admin_get_key", summary="Whose key it is and what it does")
    async def get_key(principal: Operator, key_id: KeyIdPath) -> KeyOfPerson:
        def find(connection: Connection) -> KeyOfPerson:
            Case(connection, desk, principal).record(AuditAction.KEY_READ, key_id)
            return _key(Case(connection, desk, principal), KeyId(key_id))

        return await desk.write(find)

    @routes.post("/keys/{key_id}/revoke", operation_id="admin_revoke_key", summary="End a key", openapi_extra=kept())
    async def revoke(principal: Operator, key_id: KeyIdPath, wanted: Because) -> KeyOfPerson:
        """For good; every worker refuses it within a second."""

        def work(connection: Connection) -> KeyOfPerson:
            case = Case(connection, desk, principal)
            case.record(AuditAction.KEY_REVOKE, key_id, wanted.reason)
            owner = _owner(connection, KeyId(key_id))
            revoke_key(connection, KeyId(key_id), account_id=owner, now_ns=case.now_ns)
            _tell(case, KeyId(key_id), KeyChange.REVOKED)
            return _key(case, KeyId(key_id))

        return await desk.write(work)

    @routes.post(
        "/keys/{key_id}/disable", operation_id="admin_disable_key", summary="Stop a key", openapi_extra=kept()
    )
    async def disable(principal: Operator, key_id: KeyIdPath, wanted: Because) -> KeyOfPerson:
        """Its owner can switch it on again; freeze the account to prevent that."""
        action = AuditAction.KEY_DISABLE
        return await desk.write(
            lambda connection: _switch(Case(connection, desk, principal), KeyId(key_id), wanted.reason, action)
        )

    @routes.post(
        "/keys/{key_id}/enable", operation_id="admin_enable_key", summary="Let a key work again", openapi_extra=kept()
    )
    async def enable(principal: Operator, key_id: KeyIdPath, wanted: Because) -> KeyOfPerson:
        action = AuditAction.KEY_ENABLE
        return await desk.write(
            lambda connection: _switch(Case(connection, desk, principal), KeyId(key_id), wanted.reason, action)
        )

    return routes


def _target(case: Case, account_id: str) -> AccountId:
    """The account to act on; AccountNotFound, and Forbidden for the operator's own: nobody serves themselves."""
    if account_id == case.principal.account_id:
        raise Forbidden
    if account_by_id(case.connection, AccountId(account_id)) is None:
        raise AccountNotFound
    return AccountId(account_id)


def _grant(case: Case, account_id: str, wanted: GrantWanted, repeat_key: str) -> PersonInDetail:
    target = _target(case, account_id)
    case.record(AuditAction.CREDIT_GRANT, target, wanted.reason)
    # Hashed, because the ledger takes shorter keys than the header does, and cutting one off could hide a grant.
    key = f"operator/{case.principal.account_id}/{hashlib.sha256(repeat_key.encode()).hexdigest()}"
    grant_credit(case.connection, target, amount_nusd=wanted.amount_usd, idempotency_key=key, now_ns=case.now_ns)
    return _in_detail(case.connection, target)


def _freeze(case: Case, account_id: str, reason: str, action: AuditAction) -> PersonInDetail:
    target = _target(case, account_id)
    case.record(action, target, reason)
    is_frozen = action is AuditAction.ACCOUNT_FREEZE
    freeze_account(case.connection, target, is_frozen=is_frozen, now_ns=case.now_ns)
    return _in_detail(case.connection, target)


def _switch(case: Case, key_id: KeyId, reason: str, action: AuditAction) -> KeyOfPerson:
    case.record(action, key_id, reason)
    owner = _owner(case.connection, key_id)
    changes = KeyChanges(is_disabled=action is AuditAction.KEY_DISABLE)
    change_key(case.connection, key_id, changes, account_id=owner, now_ns=case.now_ns)
    _tell(case, key_id, KeyChange.STOPPED if action is AuditAction.KEY_DISABLE else KeyChange.STARTED)
    return _key(case, key_id)


def _tell(case: Case, key_id: KeyId, change: KeyChange) -> None:
    tell_key_changed(case.connection, case.desk.ids, _stored(case, key_id), change, now_ns=case.now_ns)


def _owner(connection: Connection, key_id: KeyId) -> AccountId:
    owner = owner_of_key(connection, key_id)
    if owner is None:
        raise KeyNotFound
    return owner


def _key(case: Case, key_id: KeyId) -> KeyOfPerson:
    return _key_of_person(case, _stored(case, key_id))


def _stored(case: Case, key_id: KeyId) -> StoredKey:
    stored = key_of_account(case.connection, key_id, account_id=_owner(case.connection, key_id))
    assert stored is not None, "its owner was just found"
    return stored


def _key_of_person(case: Case, stored: StoredKey) -> KeyOfPerson:
    now_ns = case.now_ns
    activity = activity_of_keys(case.connection, stored.account_id, [stored.id], day=day_of(now_ns))
    shown = key_shown(stored, activity.get(stored.id, KeyActivity()), now_ns)
    return KeyOfPerson(**shown.model_dump(), account_id=stored.account_id)


def _person_shown(account: Account) -> PersonShown:
    status: Literal["active", "unverified", "frozen"] = "active"
    if account.frozen_at_ns is not None:
        status = "frozen"
    elif account.verified_at_ns is None:
        status = "unverified"
    return PersonShown(
        id=account.id,
        name=account.name,
        email=account.email,
        status=status,
        created_at=moment_text(account.created_at_ns),
    )


def _in_detail(connection: Connection, account_id: AccountId) -> PersonInDetail:
    account = account_by_id(connection, account_id)
    if account is None:
        raise AccountNotFound
    wallet: Wallet = wallet_of(connection, account_id) or EMPTY_WALLET
    person, risk = person_of(connection, account_id), sign_up_risk(connection, account_id)
    frozen, verified = account.frozen_at_ns, account.verified_at_ns
    return PersonInDetail(
        **_person_shown(account).model_dump(),
        wallet=WalletShown(
            balance_usd=usd_text(wallet.balance_nusd),
            held_usd=usd_text(wallet.leased_nusd),
            used_usd=usd_text(wallet.charged_nusd),
        ),
        frozen_at=None if frozen is None else moment_text(frozen),
        verified_at=None if verified is None else moment_text(verified),
        role=None if person is None else ("operator" if person.role == "operator" else "customer"),
        sign_up_risk=None if risk is None else risk.score,
        sign_up_risk_reasons=[] if risk is None else [reason.value for reason in risk.reasons],
    )

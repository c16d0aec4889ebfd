"""/api/limits: what all keys of an account together may spend in a day, a week and a month of UTC.

The operator sets the most, the owner may set less; of both, the lower one holds. Who raises their own limit has
signed in lately: whoever steals a session cannot lift what protects the balance.
"""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from dragonfly.accounts.actions import AccountNotFound
from dragonfly.accounts.queries import account_by_id
from dragonfly.accounts.sessions import require_fresh
from dragonfly.api.admin_people import AccountPath
from dragonfly.api.desk import Desk
from dragonfly.api.operating import Case, Operator, Reason
from dragonfly.api.principal import Principal, customer, requires
from dragonfly.api.shapes import Strict, Usd
from dragonfly.core.ids import AccountId
from dragonfly.core.money import usd_text
from dragonfly.keys.actions import limit_account, limit_own_account
from dragonfly.keys.management import Scope
from dragonfly.keys.queries import limits_of_account
from dragonfly.keys.rules import SpendLimits
from dragonfly.operations.rules import AuditAction
from dragonfly.usage.queries import spent_since

Reader = Annotated[Principal, Depends(requires(Scope.WALLET_READ.value))]
Owner = Annotated[Principal, Depends(customer)]


class LimitsWanted(Strict):
    """All three are replaced; one that is left out or null is none."""

    daily_usd: Annotated[Usd | None, Field(description="Within a UTC day.")] = None
    weekly_usd: Annotated[Usd | None, Field(description="Within a UTC week, from Monday.")] = None
    monthly_usd: Annotated[Usd | None, Field(description="Within a UTC month.")] = None

    @property
    def limits(self) -> SpendLimits:
        return SpendLimits(self.daily_usd, self.weekly_usd, self.monthly_usd)


class LimitsOfOperator(LimitsWanted):
    """The same, with why."""

    reason: Reason


class WindowsShown(BaseModel):
    """USD; null: no limit."""

    daily_usd: str | None
    weekly_usd: str | None
    monthly_usd: str | None


class LimitsShown(BaseModel):
    """Of both limits, the lower one holds."""

    own: Annotated[WindowsShown, Field(description="Set by the account's owner.")]
    operator: Annotated[WindowsShown, Field(description="Set by the operator.")]
    spent: Annotated[WindowsShown, Field(description="In the running day, week and month.")]


def limit_routes(desk: Desk) -> APIRouter:
    """The owner's routes; management keys with the scope wallet:read may read."""
    routes = APIRouter(prefix="/api/limits", tags=["wallet"])

    @routes.get("", operation_id="get_limits", summary="What all keys together may spend")
    async def limits(principal: Reader) -> LimitsShown:
        now_ns = desk.clock.now_ns()
        return await desk.read(lambda connection: _shown(connection, principal.account_id, now_ns))

    @routes.put("", operation_id="set_limits", summary="Limit what all keys together may spend")
    async def set_limits(principal: Owner, wanted: LimitsWanted) -> LimitsShown:
        """Holds everywhere within a second. Raising or lifting a limit wants a recent sign-in."""
        now_ns = desk.clock.now_ns()

        def work(connection: Connection) -> LimitsShown:
            before = limits_of_account(connection, principal.account_id).own
            if before.and_within(wanted.limits) != wanted.limits:
                require_fresh(connection, principal.session_id, now_ns=now_ns)
            limit_own_account(connection, principal.account_id, wanted.limits, now_ns=now_ns)
            return _shown(connection, principal.account_id, now_ns)

        return await desk.write(work)

    return routes


def admin_limit_routes(desk: Desk) -> APIRouter:
    """The operators' routes."""
    routes = APIRouter(prefix="/api/admin/accounts", tags=["operators"])

    @routes.get("/{account_id}/limits", operation_id="admin_get_limits", summary="What an account may spend")
    async def limits(principal: Operator, account_id: AccountPath) -> LimitsShown:
        def work(connection: Connection) -> LimitsShown:
            case = Case(connection, desk, principal)
            case.record(AuditAction.ACCOUNT_READ, account_id)
            return _shown(connection, _known(connection, account_id), case.now_ns)

        return await desk.write(work)

    @routes.put("/{account_id}/limits", operation_id="admin_set_limits", summary="Limit what an account may spend")
    async def set_limits(principal: Operator, account_id: AccountPath, wanted: LimitsOfOperator) -> LimitsShown:
        """Holds everywhere within a second. The owner can only go below."""

        def work(connection: Connection) -> LimitsShown:
            case = Case(connection, desk, principal)
            case.record(AuditAction.ACCOUNT_LIMIT, account_id, wanted.reason)
            limit_account(connection, _known(connection, account_id), wanted.limits, now_ns=case.now_ns)
            return _shown(connection, AccountId(account_id), case.now_ns)

        return await desk.write(work)

    return routes


def _known(connection: Connection, account_id: str) -> AccountId:
    if account_by_id(connection, AccountId(account_id)) is None:
        raise AccountNotFound
    return AccountId(account_id)


def _shown(connection: Connection, account_id: AccountId, now_ns: int) -> LimitsShown:
    found = limits_of_account(connection, account_id)
    spent = spent_since(connection, now_ns=now_ns, account_id=account_id)
    return LimitsShown(
        own=_windows(found.own), operator=_windows(found.operator), spent=_windows(SpendLimits(*spent))
    )


def _windows(limits: SpendLimits) -> WindowsShown:
    daily, weekly, monthly = (None if nusd is None else usd_text(nusd) for nusd in limits)
    return WindowsShown(daily_usd=daily, weekly_usd=weekly, monthly_usd=monthly)

"""Who asks: the caller of a route under /api, and what a route may demand of it.

`build_surface` keeps one `Authenticate` for all routes. A route names what it needs as a dependency, e.g.

    @routes.get("/api/me")
    async def me(principal: Annotated[Principal, Depends(customer)]) -> Me: …
"""

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPBase
from starlette.requests import Request

from dragonfly.accounts.sessions import SessionInvalid as SessionInvalid
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId


class Role(enum.Enum):
    """What an account is to this installation."""

    CUSTOMER = "customer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has proven who they are."""

    account_id: AccountId
    role: Role
    session_id: str | None
    """None: a management key asks, not a person."""
    scopes: frozenset[str] | None
    """What a management key may do; None: everything that the role may."""
    second_factor: bool
    """The session was begun, or stepped up, with a second factor."""


Authenticate = Callable[[Request], Awaitable[Principal]]
"""The caller of a request; SessionInvalid when nobody has proven to be anybody, DatabaseAway when none can tell."""


PRINCIPAL = "dragonfly.principal"
"""In the scope of a request whose caller is known before its route: `Repeats` asks for the caller first."""


class Forbidden(DragonflyError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403

    def __init__(self) -> None:
        super().__init__("This account or key may not do that. Use one with the needed role, scope or second factor.")


SESSION = HTTPBase(
    scheme="DPoP",
    scheme_name="session",
    description="An access token with a proof of possession of the browser's key in the header DPoP (RFC 9449).",
    auto_error=False,
)
MANAGEMENT_KEY = HTTPBearer(
    scheme_name="management_key", description="A management key with the needed scope.", auto_error=False
)


async def refuse_everybody(_request: Request) -> Principal:
    """The `Authenticate` of a surface that knows nobody."""
    raise SessionInvalid


async def _session_of(request: Request, _described: Annotated[object, Security(SESSION)] = None) -> Principal:
    known: Principal | None = request.scope.get(PRINCIPAL)
    if known is not None:
        return known
    authenticate: Authenticate = request.app.state.authenticate
    return await authenticate(request)


async def customer(principal: Annotated[Principal, Security(_session_of)]) -> Principal:
    """Any person who is signed in; an operator is one too. Management keys are refused."""
    if principal.session_id is None:
        raise Forbidden
    return principal


async def operator(principal: Annotated[Principal, Security(customer)]) -> Principal:
    """A signed-in operator whose session has a second factor."""
    if principal.role is not Role.OPERATOR or not principal.second_factor:
        raise Forbidden
    return principal


def requires(scope: str) -> Callable[..., Awaitable[Principal]]:
    """A dependency for routes that management keys may use too: a person, or a key with this scope."""

    async def scoped(
        principal: Annotated[Principal, Security(_session_of)],
        _described: Annotated[object, Security(MANAGEMENT_KEY)] = None,
    ) -> Principal:
        if principal.scopes is not None and scope not in principal.scopes:
            raise Forbidden
        return principal

    return scoped

"""/api/auth: apps of others get a key of their own, with a cap and an end that the person chose (OAuth's PKCE).

The shapes are OpenRouter's. Only S256 is taken, and every key that is made this way has a spending limit and an end.
"""

from typing import Annotated, Literal
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.requests import Request

from dragonfly.api.desk import Desk, Moderate
from dragonfly.api.keys import require_working_account
from dragonfly.api.principal import Principal, customer
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import Moment, Strict, Usd
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.errors import DragonflyError
from dragonfly.keys.actions import issue_key
from dragonfly.keys.codes import (
    CALLBACK_LENGTH_MAX,
    CODE_LIFETIME_S,
    AppInvalid,
    AppRequest,
    CodeInvalid,
    are_well_formed,
    create_code,
    is_callback,
    is_challenge,
    use_code,
)
from dragonfly.keys.rules import NAME_LENGTH_MAX, Peppers, is_name
from dragonfly.notices.key_letters import tell_key_created
from dragonfly.usage.queries import SECONDS_PER_DAY

APP_GROUP = "apps"
LIMIT_USD_SUGGESTED = "5"
DAYS_SUGGESTED = 90
_NS_PER_S = 1_000_000_000
Person = Annotated[Principal, Depends(customer)]
Challenge = Annotated[str, Field(min_length=43, max_length=43, description="SHA-256 of the verifier, base64url.")]


class MethodInvalid(DragonflyError):
    """Anything but S256."""

    code = "challenge_method_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__("The code challenge method is S256, and a challenge is always needed.")


class AppAsked(BaseModel):
    """What the person should see before saying yes."""

    host: Annotated[str | None, Field(description="Where the code goes; null: it is shown to the person.")]
    key_label: str
    limit_usd_suggested: str = LIMIT_USD_SUGGESTED
    expires_at_suggested: str


class CodeWanted(Strict):
    """A person's yes: what the app's key may spend, and until when."""

    callback_url: Annotated[str, Field(max_length=CALLBACK_LENGTH_MAX, description="Empty: no callback.")] = ""
    code_challenge: Challenge
    code_challenge_method: Annotated[str, Field(max_length=10, examples=["S256"])] = "S256"
    key_label: Annotated[str, Field(max_length=NAME_LENGTH_MAX)] = ""
    limit: Annotated[Usd, Field(description="Most the key may ever spend, in USD; more than 0.")]
    expires_at: Annotated[Moment, Field(description="Within a year.")]


class CodeData(BaseModel):
    """A code for the app."""

    code: Annotated[str | None, Field(description="Shown once.")]
    redirect_url: Annotated[str | None, Field(description="Where to send the person; null without a callback.")]
    expires_at: str


class CodeMade(BaseModel):
    """OpenRouter's envelope."""

    data: CodeData | None


class Exchange(Strict):
    """What the app sends from its own side."""

    code: Annotated[str, Field(max_length=200)]
    code_verifier: Annotated[str, Field(max_length=200)]
    code_challenge_method: Annotated[str | None, Field(max_length=10)] = None


class KeyBought(BaseModel):
    """The app's key. Nobody can read it again."""

    key: str
    user_id: str


def app_routes(desk: Desk, peppers: Peppers, moderate: Moderate) -> APIRouter:
    """What the authorization page needs, and the exchange, which needs no session."""
    routes = APIRouter(prefix="/api/auth", tags=["apps"])

    @routes.get("/app", operation_id="app_request", summary="What an app asks for")
    async def asked(
        principal: Person,
        code_challenge: Annotated[str, Query(min_length=43, max_length=43)],
        callback_url: Annotated[str, Query(max_length=CALLBACK_LENGTH_MAX)] = "",
        code_challenge_method: Annotated[str, Query(max_length=10)] = "S256",
        key_label: Annotated[str, Query(max_length=NAME_LENGTH_MAX)] = "",
    ) -> AppAsked:
        """Checks the parameters with which an app sent the person, before anything is shown."""
        _require_s256(code_challenge_method)
        label = key_label or _host(callback_url) or "app"
        if not is_challenge(code_challenge) or not is_name(label) or (callback_url and not is_callback(callback_url)):
            raise AppInvalid
        end_ns = desk.clock.now_ns() + DAYS_SUGGESTED * SECONDS_PER_DAY * _NS_PER_S
        return AppAsked(host=_host(callback_url), key_label=label, expires_at_suggested=moment_text(end_ns))

    @routes.post(
        "/keys/code",
        status_code=201,
        operation_id="create_app_code",
        summary="Let an app have a key",
        openapi_extra=kept("data"),
    )
    async def create(principal: Person, wanted: CodeWanted) -> CodeMade:
        """The code is used once, within ten minutes, by whoever has the verifier."""
        _require_s256(wanted.code_challenge_method)
        now_ns = desk.clock.now_ns()
        label = wanted.key_label or _host(wanted.callback_url) or "app"
        order = AppRequest(wanted.code_challenge, wanted.callback_url, label, wanted.limit, wanted.expires_at)

        def work(connection: Connection) -> str:
            require_working_account(connection, principal.account_id)
            return create_code(connection, principal.account_id, order, now_ns=now_ns).reveal()

        code = await desk.write(work)
        made = CodeData(
            code=code,
            redirect_url=_redirect(wanted.callback_url, code),
            expires_at=moment_text(now_ns + CODE_LIFETIME_S * _NS_PER_S),
        )
        return CodeMade(data=made)

    @routes.post("/keys", operation_id="exchange_app_code", summary="Exchange a code for a key")
    async def exchange(request: Request, wanted: Exchange) -> KeyBought:
        """Needs no session: the code and its verifier are the proof. A code works once, also when it fails."""
        moderate(request)
        if wanted.code_challenge_method is not None:
            _require_s256(wanted.code_challenge_method)
        if not are_well_formed(wanted.code, wanted.code_verifier):
            raise CodeInvalid
        bought = await desk.write(lambda connection: _buy(connection, desk, peppers, wanted))
        if bought is None:  # a code that failed is used up too: the transaction had to commit first
            raise CodeInvalid
        return bought

    return routes


def _buy(connection: Connection, desk: Desk, peppers: Peppers, wanted: Exchange) -> KeyBought | None:
    now_ns = desk.clock.now_ns()
    bought = use_code(connection, wanted.code, wanted.code_verifier, now_ns=now_ns)
    if bought is None:
        return None
    require_working_account(connection, bought.account_id)
    issued = issue_key(
        connection,
        peppers,
        account_id=bought.account_id,
        name=bought.name,
        limits=bought.limits,
        key_group=APP_GROUP,
        now_ns=now_ns,
    )
    tell_key_created(connection, desk.ids, bought.account_id, issued, name=bought.name, now_ns=now_ns)
    return KeyBought(key=issued.secret.reveal(), user_id=bought.account_id)


def _require_s256(method: str) -> None:
    if method != "S256":
        raise MethodInvalid


def _host(callback_url: str) -> str | None:
    return urlsplit(callback_url).hostname if is_callback(callback_url) else None


def _redirect(callback_url: str, code: str) -> str | None:
    if not callback_url:
        return None
    sign: Literal["&", "?"] = "&" if urlsplit(callback_url).query else "?"
    return f"{callback_url}{sign}{urlencode({'code': code})}"

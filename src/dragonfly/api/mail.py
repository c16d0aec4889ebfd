"""/api/mail: notices of the mail provider, and the way out of mail for whoever holds a link of ours."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dragonfly.api.desk import Desk
from dragonfly.mail.actions import PreferencesOwnerUnknown, note_bad_news, set_choices
from dragonfly.mail.notices import Signed, bad_news_in, check_signature
from dragonfly.mail.pages import OptOutPage, OptOutState
from dragonfly.mail.queries import preferences_of
from dragonfly.mail.rules import mail_language
from dragonfly.mail.seals import TOKEN_LENGTH_MAX, OptOut, Seals
from dragonfly.mail.sending import UNSUBSCRIBE_PATH

Token = Annotated[str, Query(max_length=TOKEN_LENGTH_MAX, description="From the link in a mail.")]
PAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}}, "description": "A page."},
    404: {"description": "A broken link."},
}


def unsubscribe_routes(desk: Desk, seals: Seals, page: OptOutPage) -> APIRouter:
    """The page, and the switch that its button and mail programs press."""
    routes = APIRouter(tags=["mail"])

    def shown(html: str, status: int = 200) -> Response:
        return HTMLResponse(html, status, {"Content-Security-Policy": page.policy})

    def language_of(request: Request) -> str:
        return mail_language(request.headers.get("accept-language"))

    def broken(request: Request) -> Response:
        return shown(page.draw(OptOutState.BROKEN, language_of(request)), 404)

    @routes.get(UNSUBSCRIBE_PATH, response_class=HTMLResponse, responses=PAGE)
    async def ask_to_unsubscribe(request: Request, token: Token = "") -> Response:
        """Shows what the link would switch off; changes nothing."""
        said = seals.opened(token)
        if said is None:
            return broken(request)
        wanted = await desk.read(lambda connection: preferences_of(connection, said.account_id))
        state = OptOutState.ASKS if said.choice in wanted.choices else OptOutState.DONE
        return shown(page.draw(state, language_of(request), choice=said.choice, token=token))

    @routes.post(UNSUBSCRIBE_PATH, response_class=HTMLResponse, responses=PAGE)
    async def unsubscribe(request: Request, token: Token = "") -> Response:
        """Switches these mails off, at once and without signing in (RFC 8058)."""
        said = seals.opened(token)
        if said is None:
            return broken(request)
        now_ns = desk.clock.now_ns()
        try:
            await desk.write(lambda connection: _switch_off(connection, said, now_ns))
        except PreferencesOwnerUnknown:
            return broken(request)  # the account is gone, and its mails with it
        return shown(page.draw(OptOutState.DONE, language_of(request), choice=said.choice))

    return routes


def _switch_off(connection: Connection, said: OptOut, now_ns: int) -> None:
    set_choices(connection, said.account_id, {said.choice: False}, now_ns=now_ns)


def resend_routes(desk: Desk, seals: Seals, key: bytes) -> APIRouter:
    """Where Resend posts its notices; `key` is the one inside its signing secret."""
    routes = APIRouter(tags=["mail"])

    @routes.post("/api/mail/webhooks/resend", status_code=204, responses={400: {"description": "Not Resend's."}})
    async def resend_notice(request: Request) -> None:
        """Notices of bounces and complaints stop mail to their addresses. Others are taken and forgotten."""
        now_ns = desk.clock.now_ns()
        headers = (request.headers.get(f"svix-{name}", "") for name in ("id", "timestamp", "signature"))
        signed = Signed(*headers)
        body = await request.body()
        check_signature(key, signed, body, now_ns=now_ns)
        news = bad_news_in(body)
        if news is None:
            return
        digests = [seals.address_digest(address) for address in news.addresses]

        def note(connection: Connection) -> None:
            note_bad_news(connection, signed.id, news.kind, news.transport_id, digests, now_ns=now_ns)

        await desk.write(note)

    return routes

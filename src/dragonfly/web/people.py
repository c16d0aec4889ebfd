"""Pages where people come in: sign-in, registration, and what links in mails lead to."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dragonfly.web.pages import PAGE_HEADERS, Pages, Place, language_of

PROVIDER_NAMES = {"google": "Google", "discord": "Discord"}
PLACES = (
    Place("/sign-in", "sign-in.html", "sign-in.js", "sign_in.title"),
    Place("/sign-up", "sign-up.html", "sign-up.js", "sign_up.title"),
    Place("/sign-out", "message.html", "sign-out.js", "sign_out.title"),
    Place("/verify-email", "verify-email.html", "verify-email.js", "verify_email.title"),
    Place("/reset-password", "reset-password.html", "reset-password.js", "reset_password.title"),
    Place("/confirm-email", "confirm-email.html", "confirm-email.js", "confirm_email.title"),
    Place("/keep-account", "keep-account.html", "keep-account.js", "keep_account.title"),
    Place("/set-up", "set-up.html", "set-up.js", "set_up.title"),
)
CALLBACK = Place("/auth/callback/{provider}", "message.html", "callback.js", "callback.title")


@dataclass(frozen=True, slots=True)
class Welcome:
    """How this installation lets people in."""

    providers: tuple[str, ...]
    """Names of PROVIDER_NAMES."""
    registration: bool
    terms_version: str
    terms_url: str
    """"": the page of this installation."""
    policy_version: str


def people_routes(pages: Pages, welcome: Welcome) -> APIRouter:
    """The pages; nothing in them is about anybody."""
    routes = APIRouter(include_in_schema=False)
    values: Mapping[str, object] = {"welcome": welcome, "providers": offered(welcome.providers)}
    for place in PLACES:
        _add(routes, pages, place, values)

    @routes.get("/")
    async def home() -> Response:
        return RedirectResponse("/dashboard", 303, PAGE_HEADERS)

    @routes.get(CALLBACK.path)
    async def callback(provider: str, request: Request) -> Response:
        name = provider if provider in PROVIDER_NAMES else "?"
        found = {"title_of_provider": PROVIDER_NAMES.get(name, name), **values}
        return pages.render_place(CALLBACK, language_of(request), f"/auth/callback/{name}", found)

    @routes.get("/terms")
    async def terms(request: Request) -> Response:
        language = language_of(request)
        title = pages.words[language]("terms.title")
        return pages.render("terms.html", language, "/terms", {"title": title, **values})

    return routes


def offered(providers: tuple[str, ...]) -> list[dict[str, str]]:
    """Providers as templates show them."""
    return [{"name": name, "title": PROVIDER_NAMES[name]} for name in providers]


def _add(routes: APIRouter, pages: Pages, place: Place, values: Mapping[str, object]) -> None:
    @routes.get(place.path)
    async def show(request: Request) -> Response:
        return pages.render_place(place, language_of(request), place.path, values)

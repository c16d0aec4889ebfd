"""Pages of who is signed in, and the form for support. Their scripts fetch what they show from the account API."""

from collections.abc import Mapping

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from dragonfly.web.pages import Pages, Place, language_of
from dragonfly.web.people import offered

PLACES = (
    Place("/dashboard", "overview.html", "overview.js", "overview.title"),
    Place("/dashboard/keys", "keys.html", "keys.js", "keys.title"),
    Place("/dashboard/usage", "usage.html", "usage.js", "usage.title"),
    Place("/dashboard/wallet", "wallet.html", "wallet.js", "wallet.title"),
    Place("/dashboard/support", "help.html", "help.js", "support.title"),
    Place("/dashboard/settings", "settings.html", "settings.js", "settings.title"),
    Place("/dashboard/privacy", "your-data.html", "your-data.js", "data.title"),
)
"""In the order of the navigation."""
OTHERS = (
    Place("/auth", "authorize.html", "authorize.js", "authorize.title"),
    Place("/support", "support.html", "support.js", "support.title"),
)


def dashboard_routes(pages: Pages, providers: tuple[str, ...]) -> APIRouter:
    """The pages; nothing in them is about anybody."""
    routes = APIRouter(include_in_schema=False)
    values: Mapping[str, object] = {"places": PLACES, "providers": offered(providers)}
    for place in (*PLACES, *OTHERS):
        _add(routes, pages, place, values)
    return routes


def _add(routes: APIRouter, pages: Pages, place: Place, values: Mapping[str, object]) -> None:
    @routes.get(place.path)
    async def show(request: Request) -> Response:
        return pages.render_place(place, language_of(request), place.path, values)

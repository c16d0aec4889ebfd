"""Pages of operators: people, tickets, requests about data. Who lacks the role reads that they are not theirs."""

from collections.abc import Mapping

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from dragonfly.web.pages import Pages, Place, language_of

PLACES = (
    Place("/operator", "operator-people.html", "operator-people.js", "operator.people"),
    Place("/operator/tickets", "operator-tickets.html", "operator-tickets.js", "operator.tickets"),
    Place("/operator/data-requests", "operator-requests.html", "operator-requests.js", "operator.requests"),
)
"""In the order of the navigation."""


def operator_routes(pages: Pages) -> APIRouter:
    """The pages; nothing in them is about anybody."""
    routes = APIRouter(include_in_schema=False)
    values: Mapping[str, object] = {"places": PLACES}
    for place in PLACES:
        _add(routes, pages, place, values)
    return routes


def _add(routes: APIRouter, pages: Pages, place: Place, values: Mapping[str, object]) -> None:
    @routes.get(place.path)
    async def show(request: Request) -> Response:
        return pages.render_place(place, language_of(request), place.path, values)

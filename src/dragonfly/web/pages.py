"""What every page shares: templates, words, style and scripts, headers, languages."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dragonfly import __version__
from dragonfly.web.assets import CACHED, Assets
from dragonfly.web.words import LANGUAGES, load_words

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; {scripts}form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
CSP = POLICY.format(scripts="")
"""Of a document: no script at all, so also none that somebody slips in."""
SCRIPTED_CSP = POLICY.format(scripts="script-src 'self'; connect-src 'self'; ")
"""Of a page that works: our own scripts, which write no HTML and speak to nobody but us. No form is ever sent by the
browser itself, so that no password ends up in an address."""
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), interest-cohort=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A page that works: where it is, its template, and the script that makes it work."""

    path: str
    template: str
    script: str
    title: str
    """A key of the words."""


class Pages:
    """Renders templates. `site` is the installation's name, `public_url` where customers reach it, "" if unknown."""

    def __init__(self, site: str, public_url: str = "") -> None:
        self.site = site
        self.origin = public_url.rstrip("/")
        self.words = load_words()
        self.assets = Assets({f"words-{words.tag}.js": words.module for words in self.words.values()})
        self._environment = Environment(
            loader=PackageLoader("dragonfly.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )

    def render(self, template: str, language: str, path: str, values: Mapping[str, object]) -> Response:
        """A document without scripts; `path` is where it is, for the link to its other language."""
        return self._render(template, language, path, values, CSP)

    def render_place(self, place: Place, language: str, path: str, values: Mapping[str, object]) -> Response:
        """A page that works. It holds nothing about anybody: its script fetches that with the browser's session."""
        words = self.words[language]
        filled = {"title": words(place.title), "script": place.script, "origin": self.origin, **values}
        return self._render(place.template, language, path, filled, SCRIPTED_CSP)

    def _render(self, template: str, language: str, path: str, values: Mapping[str, object], policy: str) -> Response:
        shared = {
            "code_version": __version__,
            "language": language,
            "path": path,
            "site": self.site,
            "assets": self.assets,
            "t": self.words[language],
        }
        html = self._environment.get_template(template).render({**shared, **values})
        headers = {**PAGE_HEADERS, "Content-Security-Policy": policy, "Content-Language": language}
        return Response(html, media_type="text/html; charset=utf-8", headers=headers)


def asset_routes(assets: Assets) -> APIRouter:
    """The style sheet and the scripts."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/assets/{version}/{name}")
    async def asset(version: str, name: str) -> Response:
        found = assets.find(version, name)
        if found is None:
            raise HTTPException(404)
        return Response(found.content, media_type=found.media_type, headers=CACHED)

    return routes


def language_of(request: Request) -> str:
    """`?lang=` when it is one of ours, else the first of Accept-Language that is, else English."""
    asked = request.query_params.get("lang", "")
    if asked in LANGUAGES:
        return asked
    for part in request.headers.get("accept-language", "")[:200].split(","):
        tag = part.split(";")[0].strip().lower().split("-")[0]
        if tag in LANGUAGES:
            return tag
    return LANGUAGES[0]

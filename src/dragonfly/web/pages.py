"""What every public page shares: templates, the style sheet under a name that changes with it, headers, languages."""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

LANGUAGES = ("en", "zh")
CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No script at all, so also none that somebody slips in."""
PAGE_HEADERS = {
    "Content-Security-Policy": CSP,
    "Cache-Control": "no-store",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), interest-cohort=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
STYLE_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}
HASH_LENGTH = 12


class Pages:
    """Renders templates. `site` is the installation's name."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.style = (resources.files("dragonfly.web") / "static/site.css").read_bytes()
        digest = hashlib.sha256(self.style).digest()
        self.style_path = f"/assets/site-{digest.hex()[:HASH_LENGTH]}.css"
        self.style_integrity = "sha256-" + base64.b64encode(digest).decode()
        self._environment = Environment(
            loader=PackageLoader("dragonfly.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )

    def render(self, template: str, language: str, path: str, values: Mapping[str, object]) -> Response:
        """A whole page; `path` is where it is, for the link to its other language."""
        html = self._environment.get_template(template).render(
            {**values, "language": language, "path": path, "site": self.site, "style": self}
        )
        headers = {**PAGE_HEADERS, "Content-Language": language}
        return Response(html, media_type="text/html; charset=utf-8", headers=headers)


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

"""From a kind of mail and its values to subject, text and HTML, by the templates in `templates/<kind>/<language>/`.

Every value that a template names must be there, or rendering fails: a mail with a hole in it is never sent. HTML
escapes all values; a subject is one line whatever it is made of.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from dragonfly.mail.kinds import MailKind

TEMPLATES = Path(__file__).parent / "templates"
SUBJECT_LENGTH_MAX = 200


class Site(NamedTuple):
    """What every template may name."""

    name: str
    url: str
    """Without a slash at its end."""


class Written(NamedTuple):
    """One mail in words."""

    subject: str
    text: str
    html: str


class Press:
    """The templates, read once."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=select_autoescape(["html"], default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
            auto_reload=False,
        )

    def write(
        self, kind: MailKind, language: str, values: Mapping[str, str | int], *, unsubscribe_link: str | None
    ) -> Written:
        """The mail. `unsubscribe_link` stands at its foot; None for essential mails.

        The same arguments always give the same words: a second attempt is the same request to the provider.
        """
        known = {
            **values,
            "language": language,
            "site_name": self.site.name,
            "site_url": self.site.url,
            "unsubscribe_link": unsubscribe_link,
        }
        subject, text, html = (
            self._environment.get_template(f"{kind.value}/{language}/{part}").render(known)
            for part in ("subject.txt", "body.txt", "body.html")
        )
        return Written(" ".join(subject.split())[:SUBJECT_LENGTH_MAX], text.strip() + "\n", html)

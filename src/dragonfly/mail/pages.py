"""The page behind the link at the foot of non-essential mails.

Asking for it changes nothing, because scanners of mail open every link. Its button posts, as a mail program's own
button does (RFC 8058).
"""

import base64
import enum
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dragonfly.mail.kinds import Choice
from dragonfly.mail.rendering import TEMPLATES, Site


class OptOutState(enum.Enum):
    """What the page says."""

    ASKS = "asks"
    DONE = "done"
    BROKEN = "broken"


class Words(NamedTuple):
    """The page in one language; `{mails}` stands for what is switched off."""

    title: str
    text: str
    button: str = ""


MAILS: Mapping[str, Mapping[Choice, str]] = {
    "en": {
        Choice.WELCOME: "welcome mails",
        Choice.LOW_BALANCE: "low-balance alerts",
        Choice.ANNOUNCEMENTS: "announcements",
    },
    "zh": {Choice.WELCOME: "欢迎邮件", Choice.LOW_BALANCE: "余额不足提醒", Choice.ANNOUNCEMENTS: "公告邮件"},
}
WORDS: Mapping[str, Mapping[OptOutState, Words]] = {
    "en": {
        OptOutState.ASKS: Words(
            "Stop these mails?",
            "You will receive no more {mails}. Mails about security, payments and support still come.",
            "Stop them",
        ),
        OptOutState.DONE: Words(
            "Done", "You will receive no more {mails}. You can switch them on again in your account."
        ),
        OptOutState.BROKEN: Words("This link is not complete", "Open it from the mail again, or copy all of it."),
    },
    "zh": {
        OptOutState.ASKS: Words(
            "停止接收此类邮件？", "您将不再收到{mails}。有关安全、付款和客服的邮件仍会发送。", "停止接收"
        ),
        OptOutState.DONE: Words("已完成", "您将不再收到{mails}。您可以随时在账户中重新开启。"),
        OptOutState.BROKEN: Words("链接不完整", "请从邮件中重新打开，或复制完整的链接。"),
    },
}


class OptOutPage:
    """Draws the page. `policy` is its Content-Security-Policy: one style, by its hash, and a form to ourselves."""

    def __init__(self, site: Site) -> None:
        self._site = site
        style = (TEMPLATES / "page/style.css").read_text()
        self._style = Markup(style)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self.policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none';"
            " frame-ancestors 'none'"
        )
        self._template = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, auto_reload=False
        ).get_template("page/opt_out.html")

    def draw(self, state: OptOutState, language: str, *, choice: Choice | None = None, token: str = "") -> str:
        """HTML. `choice` is what is switched off, `token` what the button posts; neither when the link is broken."""
        words = WORDS[language][state]
        mails = "" if choice is None else MAILS[language][choice]
        return self._template.render(
            language=language,
            site_name=self._site.name,
            site_url=self._site.url,
            style=self._style,
            words=words._replace(text=words.text.format(mails=mails)),
            token=token if state is OptOutState.ASKS else "",
        )

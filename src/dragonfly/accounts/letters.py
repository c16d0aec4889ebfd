"""Mails about accounts, written in the transaction of what they tell."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, select

from dragonfly.accounts.links import LIFETIME_S
from dragonfly.accounts.tables import accounts, people
from dragonfly.core.credentials import Seal, TokenKind
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.secrets import Secret
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import queue_mail
from dragonfly.settings import AccountSettings

NS_PER_HOUR = 3_600_000_000_000
PAGES = {
    TokenKind.VERIFY: "/verify-email",
    TokenKind.RESET: "/reset-password",
    TokenKind.EMAIL: "/confirm-email",
    TokenKind.SETUP: "/set-up",
    TokenKind.KEEP: "/keep-account",
}
"""Where a mail's link leads. The token stands behind '#': browsers send that part to nobody."""
UNKNOWN_DEVICE = "?"


@dataclass(frozen=True, slots=True)
class Tools:
    """What the actions of people need besides a connection."""

    seal: Seal
    ids: IdSource
    settings: AccountSettings
    site_url: str
    """Where the pages are, without a slash at the end."""

    def link(self, kind: TokenKind, token: Secret) -> str:
        """Where the token is brought; for somebody who sees it now."""
        return f"{self.site_url}{PAGES[kind]}#token={token.reveal()}"

    def mailed_link(self, kind: TokenKind, token: Secret) -> str:
        """The same for a mail: who copies the row in which it waits cannot use it. The postman finishes it."""
        return f"{self.site_url}{PAGES[kind]}#token={self.seal.unfinished(token)}"


class Recipient(NamedTuple):
    """Whom a mail goes to."""

    account_id: AccountId
    address: str
    language: str


def recipient_of(connection: Connection, account_id: AccountId) -> Recipient | None:
    """The person of an account; None for an account without one."""
    joined = accounts.join(people, people.c.account_id == accounts.c.id)
    wanted = select(accounts.c.id, accounts.c.email, people.c.language).select_from(joined)
    row = connection.execute(wanted.where(accounts.c.id == account_id)).one_or_none()
    return None if row is None else Recipient(*row)


def send_link(
    connection: Connection, tools: Tools, kind: TokenKind, token: Secret, to: Recipient, *, now_ns: int
) -> None:
    """The mail whose link holds `token`."""
    lifetime_s = LIFETIME_S[kind]
    kinds = {
        TokenKind.VERIFY: (MailKind.VERIFY_EMAIL, {"hours": lifetime_s // 3_600}),
        TokenKind.RESET: (MailKind.PASSWORD_RESET, {"minutes": lifetime_s // 60}),
        TokenKind.EMAIL: (MailKind.EMAIL_CHANGE, {"hours": lifetime_s // 3_600}),
    }
    mail, values = kinds[kind]
    key = tools.ids.new(f"{mail.value}/", now_ns)
    _queue(connection, tools, mail, to, {"link": tools.mailed_link(kind, token), **values}, key=key, now_ns=now_ns)


def tell_account_exists(connection: Connection, tools: Tools, to: Recipient, *, now_ns: int) -> None:
    """Somebody registered with an address that has an account: its owner is told, at most once an hour."""
    key = f"account_exists/{to.account_id}/{now_ns // NS_PER_HOUR}"
    link = f"{tools.site_url}/sign-in"
    _queue(connection, tools, MailKind.ACCOUNT_EXISTS, to, {"link": link}, key=key, now_ns=now_ns)


def tell(connection: Connection, tools: Tools, mail: MailKind, to: Recipient, *, now_ns: int, **values: str) -> None:
    """A mail that says when something happened, and what else its template takes."""
    key = tools.ids.new(f"{mail.value}/", now_ns)
    _queue(connection, tools, mail, to, {"time": moment(now_ns), **values}, key=key, now_ns=now_ns)


def moment(at_ns: int) -> str:
    """A time as mails show it, UTC."""
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _queue(
    connection: Connection,
    tools: Tools,
    mail: MailKind,
    to: Recipient,
    values: dict[str, str | int],
    *,
    key: str,
    now_ns: int,
) -> None:
    queue_mail(
        connection,
        tools.ids,
        kind=mail,
        account_id=to.account_id,
        address=to.address,
        language=to.language,
        values=values,
        idempotency_key=key,
        now_ns=now_ns,
    )

"""Handing mail over: Resend over HTTP and SMTP over sockets, each as it is when it works and when it does not."""

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from dragonfly.core.secrets import Secret
from dragonfly.mail.messages import Failure, MailFailed, Message
from dragonfly.mail.transports import Transport
from dragonfly.mail.transports.opening import open_transport, verifying_context
from dragonfly.mail.transports.resend import ResendTransport
from dragonfly.mail.transports.sender import Sender
from dragonfly.settings import MailSettings
from tests.factories import START_NS
from tests.fakes.certificates import new_authority, new_server
from tests.fakes.resend import API_KEY, FakeResend, Trouble

SENDER = Sender("hello@mail.example.com", "Dragonfly, Inc.", "help@example.com")
ONE_CLICK = {
    "List-Unsubscribe": "<https://dragonfly.example/api/mail/unsubscribe?token=" + "x" * 120 + ">",
    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
}
PASSWORD = "correct horse"


def make_message(**changes: Any) -> Message:
    values: dict[str, Any] = {
        "id": "mail-019ab",
        "address": "alice@example.com",
        "subject": "余额不足: a balance that is low",
        "text": "Hello\n余额\n",
        "html": "<p>Hello 余额</p>",
        "headers": ONE_CLICK,
        "queued_at_ns": START_NS,
        **changes,
    }
    return Message(**values)


@pytest.fixture
def resend() -> Iterator[FakeResend]:
    with FakeResend().running() as fake:
        yield fake


@asynccontextmanager
async def to_resend(fake: FakeResend, *, key: str = API_KEY) -> AsyncIterator[Transport]:
    transport = ResendTransport(
        api_key=Secret(key), url=fake.url, sender=SENDER, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    try:
        yield transport
    finally:
        await transport.close()


def test_a_message_does_not_show_its_words() -> None:
    shown = repr(make_message(text="a secret link"))
    assert "secret" not in shown
    assert "余额" not in shown


async def test_resend_is_given_everything_that_it_needs(resend: FakeResend) -> None:
    async with to_resend(resend) as transport:
        transport_id = await transport.send(make_message())
    (mail,) = resend.mails
    assert transport_id == mail["id"]
    assert mail["from"] == '"Dragonfly, Inc." <hello@mail.example.com>'
    assert (mail["to"], mail["reply_to"]) == (["alice@example.com"], "help@example.com")
    assert (mail["subject"], mail["text"]) == ("余额不足: a balance that is low", "Hello\n余额\n")
    assert mail["headers"] == ONE_CLICK
    assert resend.keys == ["mail-019ab"]


async def test_the_same_mail_again_is_the_same_mail_for_resend(resend: FakeResend) -> None:
    async with to_resend(resend) as transport:
        first = await transport.send(make_message())
        assert await transport.send(make_message()) == first
        assert await transport.send(make_message(text="Other words\n")) is None
    assert len(resend.mails) == 1


@pytest.mark.parametrize(
    ("trouble", "failure", "is_final", "pause_s"),
    [
        (Trouble(400, "validation_error"), Failure.MESSAGE, True, 0),
        (Trouble(422, "invalid_from_address"), Failure.MESSAGE, True, 0),
        (Trouble(401, "missing_api_key"), Failure.CONFIGURATION, False, 0),
        (Trouble(401, "restricted_api_key"), Failure.CONFIGURATION, False, 0),
        (Trouble(403, "invalid_api_key"), Failure.CONFIGURATION, False, 0),
        (Trouble(403, "validation_error"), Failure.CONFIGURATION, False, 0),
        (Trouble(404, "not_found"), Failure.CONFIGURATION, False, 0),
        (Trouble(409, "concurrent_idempotent_requests"), Failure.AWAY, False, 0),
        (Trouble(429, "rate_limit_exceeded", {"retry-after": "7"}), Failure.LIMITED, False, 7),
        (Trouble(429, "rate_limit_exceeded", {"ratelimit-reset": "3"}), Failure.LIMITED, False, 3),
        (Trouble(429, "rate_limit_exceeded", {"retry-after": "soon"}), Failure.LIMITED, False, 1),
        (Trouble(429, "daily_quota_exceeded", {"retry-after": "86400"}), Failure.QUOTA, False, 900),
        (Trouble(500, "application_error"), Failure.AWAY, False, 0),
        (Trouble(503, "service_unavailable"), Failure.AWAY, False, 0),
        (Trouble(302, "moved", {"Location": "http://127.0.0.1:1/"}), Failure.CONFIGURATION, False, 0),
        (Trouble(0, "connection lost"), Failure.AWAY, False, 0),
    ],
)
async def test_each_error_of_resend_is_understood(
    resend: FakeResend, trouble: Trouble, failure: Failure, is_final: bool, pause_s: float
) -> None:
    resend.troubles.append(trouble)
    async with to_resend(resend) as transport:
        with pytest.raises(MailFailed) as failed:
            await transport.send(make_message())
    assert (failed.value.failure, failed.value.is_final, failed.value.pause_s) == (failure, is_final, pause_s)
    assert "alice" not in str(failed.value)
    assert failed.value.__cause__ is None
    assert resend.mails == []


async def test_a_wrong_key_and_a_server_that_is_not_there_are_told_apart(resend: FakeResend) -> None:
    async with to_resend(resend, key="re_wrong") as transport:
        with pytest.raises(MailFailed, match="configuration_refused"):
            await transport.send(make_message())
    with FakeResend().running() as gone:
        pass
    async with to_resend(gone) as transport:
        with pytest.raises(MailFailed, match="provider_away"):
            await transport.send(make_message())


class Mailbox:
    """What an SMTP server received; `replies` go out instead of its own, by the command that they answer."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.replies: dict[str, str] = {}
        self.users: list[bytes] = []

    def mail(self) -> EmailMessage:
        """Not a property: the server looks at all attributes of its handler."""
        (envelope,) = self.envelopes
        assert isinstance(envelope.content, bytes)
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    async def handle_RCPT(
        self, server: SMTP, session: object, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "RCPT" in self.replies:
            return self.replies["RCPT"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: object, envelope: Envelope) -> str:
        if "DATA" not in self.replies:
            self.envelopes.append(envelope)
        return self.replies.get("DATA", "250 OK")

    async def handle_QUIT(self, server: SMTP, session: object, envelope: Envelope) -> str:
        return self.replies.get("QUIT", "221 Bye")

    def authenticate(
        self, server: SMTP, session: object, envelope: object, mechanism: str, data: object
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.users.append(data.login)
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


class Post:
    """Where certificates are, and a way to run a server with them."""

    def __init__(self, folder: Path) -> None:
        authority = new_authority()
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_text(authority.certificate)
        (folder / "server").mkdir()
        self.context = new_server(authority, "localhost").server_context(folder / "server")
        self.mailbox = Mailbox()

    @asynccontextmanager
    async def server(self, *, implicit: bool = False, **options: Any) -> AsyncIterator[int]:
        """The port of a running server."""
        loop = asyncio.get_running_loop()

        def make() -> asyncio.Protocol:
            return SMTP(self.mailbox, hostname="test", loop=loop, **options)

        context = self.context if implicit else None
        server = await loop.create_server(make, "127.0.0.1", 0, ssl=context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def send(self, port: int, message: Message | None = None, **changes: Any) -> None:
        values = {
            "transport": "smtp",
            "from_address": "hello@mail.example.com",
            "smtp_host": "localhost",
            "smtp_port": port,
            "ca_file": self.ca_file,
            **changes,
        }
        transport = open_transport(MailSettings.model_validate(values), console=None)  # type: ignore[arg-type]
        await transport.send(message or make_message())
        await transport.close()


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path)


async def test_smtp_delivers_both_parts_with_starttls(post: Post) -> None:
    async with post.server(tls_context=post.context, require_starttls=True) as port:
        await post.send(port)
    mail = post.mailbox.mail()
    assert (mail["From"], mail["To"]) == ("Dragonfly <hello@mail.example.com>", "alice@example.com")
    assert mail["Subject"] == "余额不足: a balance that is low"
    assert mail["Message-ID"] == "<mail-019ab@mail.example.com>"
    assert {name: mail[name] for name in ONE_CLICK} == ONE_CLICK
    text, page = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert page is not None
    assert text.get_content().replace("\r\n", "\n") == "Hello\n余额\n"
    assert page.get_content().strip() == "<p>Hello 余额</p>"
    content = post.mailbox.envelopes[0].content
    assert isinstance(content, bytes)
    assert content.isascii()


async def test_smtp_signs_in_over_tls_from_the_first_byte(post: Post) -> None:
    options = {"authenticator": post.mailbox.authenticate, "auth_required": True, "auth_require_tls": False}
    async with post.server(implicit=True, **options) as port:
        await post.send(port, smtp_tls="implicit", smtp_user="alice", smtp_password=PASSWORD)
        with pytest.raises(MailFailed, match="configuration_refused"):
            await post.send(port, smtp_tls="implicit", smtp_user="alice", smtp_password="wrong")
    assert set(post.mailbox.users) == {b"alice"}
    assert len(post.mailbox.envelopes) == 1


async def test_a_server_without_starttls_learns_neither_password_nor_mail(post: Post) -> None:
    options = {"authenticator": post.mailbox.authenticate, "auth_require_tls": False}
    async with post.server(**options) as port:
        with pytest.raises(MailFailed, match="configuration_refused"):
            await post.send(port, smtp_user="alice", smtp_password=PASSWORD)
    assert post.mailbox.users == []
    assert post.mailbox.envelopes == []


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_server_that_nobody_vouches_for_gets_no_mail(post: Post, tls: str) -> None:
    context = {} if tls == "implicit" else {"tls_context": post.context}
    async with post.server(implicit=tls == "implicit", **context) as port:
        with pytest.raises(MailFailed, match="configuration_refused"):
            await post.send(port, smtp_tls=tls, ca_file=None)
        with pytest.raises(MailFailed, match="configuration_refused"):
            await post.send(
                port, smtp_tls=tls, smtp_host="127.0.0.1" if tls == "implicit" else "localhost", ca_file=None
            )
    assert post.mailbox.envelopes == []


@pytest.mark.parametrize(
    ("command", "reply", "failure", "is_final"),
    [
        ("RCPT", "550 No such user alice@example.com", Failure.ADDRESS, True),
        ("RCPT", "450 Try later", Failure.AWAY, False),
        ("DATA", "554 Looks like spam", Failure.MESSAGE, True),
        ("DATA", "451 Out of space", Failure.AWAY, False),
    ],
)
async def test_each_refusal_of_smtp_is_understood(
    post: Post, command: str, reply: str, failure: Failure, is_final: bool
) -> None:
    post.mailbox.replies[command] = reply
    async with post.server() as port:
        with pytest.raises(MailFailed) as failed:
            await post.send(port, smtp_tls="none")
    assert (failed.value.failure, failed.value.is_final) == (failure, is_final)
    assert "alice" not in str(failed.value)
    assert failed.value.__cause__ is None


async def test_a_mail_that_was_accepted_is_sent_however_the_connection_ends(post: Post) -> None:
    post.mailbox.replies["QUIT"] = "421 I am leaving"
    async with post.server() as port:
        await post.send(port, smtp_tls="none")
    assert len(post.mailbox.envelopes) == 1


async def test_a_server_that_is_not_there_is_away(post: Post) -> None:
    async with post.server() as port:
        pass
    with pytest.raises(MailFailed, match="provider_away"):
        await post.send(port, smtp_tls="none")


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "alice@example.com\r\nBcc: bob@example.com"},
        {"subject": "Hello\r\nBcc: bob@example.com"},
        {"subject": "Hello\nBcc: bob@example.com"},
        {"headers": {"X-One": "a\r\nBcc: bob@example.com"}},
    ],
)
async def test_no_value_becomes_a_header(post: Post, changes: dict[str, Any]) -> None:
    async with post.server() as port:
        with pytest.raises(ValueError):
            await post.send(port, make_message(**changes), smtp_tls="none")
    assert post.mailbox.envelopes == []


async def test_a_line_of_a_text_that_is_a_dot_does_not_end_it(post: Post) -> None:
    text = "before\n.\nMAIL FROM:<bob@example.com>\n..after\n"
    async with post.server() as port:
        await post.send(port, make_message(text=text), smtp_tls="none")
    part = post.mailbox.mail().get_body(("plain",))
    assert part is not None
    assert part.get_content().replace("\r\n", "\n") == text


def test_a_key_log_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert verifying_context(None).keylog_filename is None
    assert verifying_context(None).verify_mode is ssl.CERT_REQUIRED
    assert verifying_context(None).check_hostname

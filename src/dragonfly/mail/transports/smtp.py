"""SMTP by the standard library, in a thread: STARTTLS or TLS from the first byte, certificates always verified.

SMTP knows no idempotency. When a process dies between the server's "250" and our note of it, the mail goes out a
second time, with the same Message-ID.
"""

import asyncio
import contextlib
import enum
import smtplib
import ssl
from dataclasses import dataclass

from dragonfly.core.secrets import Secret
from dragonfly.mail.messages import Failure, MailFailed, Message
from dragonfly.mail.transports.sender import Sender

STEP_S_MAX = 20.0
"""For connecting, and for each answer of the server; about eight to a mail."""


class SmtpTls(enum.Enum):
    """How the connection is protected."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"
    """For a server on this machine."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where to, and how."""

    host: str
    port: int
    tls: SmtpTls
    user: str
    """"" to send without signing in."""
    password: Secret


class SmtpTransport:
    """A connection for each mail: they are few, and servers close idle ones."""

    def __init__(self, server: SmtpServer, *, sender: Sender, context: ssl.SSLContext) -> None:
        self._server = server
        self._sender = sender
        self._context = context

    async def send(self, message: Message) -> str | None:
        """The server's acceptance is all there is: no id."""
        await asyncio.to_thread(self._deliver, message)
        return None

    async def close(self) -> None:
        return None

    def _deliver(self, message: Message) -> None:
        content = self._sender.compose(message)
        try:
            connection = self._connect()
            try:
                self._prepare(connection)
                connection.sendmail(self._sender.address, [message.address], content)
            finally:
                # The mail is accepted or refused by now; how the connection ends changes nothing.
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    connection.quit()
                connection.close()
        except (OSError, smtplib.SMTPException, ssl.CertificateError) as failure:
            # From None: the server's words may quote the address.
            raise _understood(failure) from None

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.tls is SmtpTls.IMPLICIT:
            return smtplib.SMTP_SSL(server.host, server.port, timeout=STEP_S_MAX, context=self._context)
        return smtplib.SMTP(server.host, server.port, timeout=STEP_S_MAX)

    def _prepare(self, connection: smtplib.SMTP) -> None:
        """Greets, protects the connection, signs in. A server that offers no STARTTLS gets neither word nor
        password."""
        if self._server.tls is SmtpTls.STARTTLS:
            connection.starttls(context=self._context)
        if self._server.user:
            connection.login(self._server.user, self._server.password.reveal())


def _understood(failure: Exception) -> MailFailed:
    """What to do after a failure: numbers of the reply tell, as RFC 5321 has it (4xx: later, 5xx: never)."""
    if isinstance(failure, smtplib.SMTPRecipientsRefused):
        (code, _), *_ = failure.recipients.values()
        return _by_code(code, Failure.ADDRESS)
    if isinstance(failure, smtplib.SMTPDataError):
        return _by_code(failure.smtp_code, Failure.MESSAGE)
    if isinstance(failure, smtplib.SMTPAuthenticationError | smtplib.SMTPSenderRefused):
        is_later = 400 <= failure.smtp_code < 500
        return MailFailed(Failure.AWAY if is_later else Failure.CONFIGURATION)
    if isinstance(failure, smtplib.SMTPNotSupportedError | ssl.SSLCertVerificationError):
        return MailFailed(Failure.CONFIGURATION)
    return MailFailed(Failure.AWAY)


def _by_code(code: int, refusal: Failure) -> MailFailed:
    is_final = 500 <= code < 600
    return MailFailed(refusal if is_final else Failure.AWAY, is_final=is_final)

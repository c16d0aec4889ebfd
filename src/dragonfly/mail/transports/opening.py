"""The transport that the settings ask for."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dragonfly.core.lazily import Lazily
from dragonfly.core.secrets import Secret
from dragonfly.mail.transports import Transport
from dragonfly.mail.transports.console import ConsoleTransport
from dragonfly.mail.transports.sender import Sender
from dragonfly.mail.transports.smtp import SmtpServer, SmtpTls, SmtpTransport
from dragonfly.settings import MailSettings

if TYPE_CHECKING:
    from dragonfly.mail.transports import resend
else:
    resend = Lazily("dragonfly.mail.transports.resend")


def open_transport(settings: MailSettings, console: TextIO) -> Transport:
    """Nothing is connected yet. OSError or ssl.SSLError when `mail.ca_file` is unusable."""
    if settings.transport == "console":
        return ConsoleTransport(console)
    sender = Sender(settings.from_address, settings.from_name, settings.reply_to)
    if settings.transport == "resend":
        return resend.ResendTransport(
            api_key=Secret(settings.resend_api_key.get_secret_value()),
            url=settings.resend_url,
            sender=sender,
            verify=verifying_context(settings.ca_file),
        )
    server = SmtpServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=SmtpTls(settings.smtp_tls),
        user=settings.smtp_user,
        password=Secret(settings.smtp_password.get_secret_value()),
    )
    return SmtpTransport(server, sender=sender, context=verifying_context(settings.ca_file))


def verifying_context(ca_file: Path | None) -> ssl.SSLContext:
    """The system's authorities, and those of `ca_file` beside them. As `ssl.create_default_context`, except that
    SSLKEYLOGFILE is not honoured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if ca_file is not None:
        context.load_verify_locations(cafile=str(ca_file))
    return context

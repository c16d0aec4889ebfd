"""Ways to hand a mail over: Resend's HTTP API, any SMTP server, the console."""

from typing import Protocol

from dragonfly.mail.messages import Message


class Transport(Protocol):
    """Hands mails over, one at a time or several at once."""

    async def send(self, message: Message) -> str | None:
        """Delivers and returns the provider's id of the mail, if it has one. Raises MailFailed."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...

"""Who mail comes from, and the headers that follow from it."""

from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import NamedTuple

from dragonfly.mail.messages import Message

_WIRE = SMTP.clone(cte_type="7bit")


class Sender(NamedTuple):
    """The From and Reply-To of every mail."""

    address: str
    name: str
    reply_to: str
    """"" for none."""

    def shown(self) -> str:
        """`Dragonfly <hello@example.com>`, quoted where the name needs it."""
        return str(self._from())

    def _from(self) -> Address:
        return Address(self.name, addr_spec=self.address)

    def compose(self, message: Message) -> bytes:
        """The mail as RFC 5322 writes it, in ASCII. The same message gives the same Message-ID each time, so that
        a receiver recognises a second delivery."""
        composed = EmailMessage(_WIRE)
        composed["From"] = self._from()
        composed["To"] = Address(addr_spec=message.address)
        composed["Subject"] = message.subject
        composed["Date"] = format_datetime(datetime.fromtimestamp(message.queued_at_ns // 10**9, UTC))
        composed["Message-ID"] = f"<{message.id}@{self.address.rpartition('@')[2]}>"
        if self.reply_to:
            composed["Reply-To"] = Address(addr_spec=self.reply_to)
        for name, value in message.headers.items():
            composed[name] = value
        composed.set_content(message.text)
        composed.add_alternative(message.html, subtype="html")
        composed.set_boundary(f"=_{message.id}")
        return composed.as_bytes()

"""Mails to the operator about what needs a person."""

from sqlalchemy import Connection

from dragonfly.core.ids import IdSource
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import queue_mail
from dragonfly.mail.rules import mail_moment

LANGUAGE = "en"


def alert_operator(
    connection: Connection, ids: IdSource, address: str, *, event: str, detail: str, key: str, now_ns: int
) -> None:
    """Queues it for `mail.operator_address`, once per `key`; nothing happens when that is empty."""
    if not address:
        return
    queue_mail(
        connection,
        ids,
        kind=MailKind.OPERATOR_ALERT,
        account_id=None,
        address=address,
        language=LANGUAGE,
        values={"time": mail_moment(now_ns), "event": event, "detail": detail},
        idempotency_key=f"{MailKind.OPERATOR_ALERT.value}/{key}",
        now_ns=now_ns,
    )

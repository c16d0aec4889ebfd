"""Mails to whoever runs the installation: what happened, without anything that customers wrote."""

from typing import NamedTuple

from sqlalchemy import Connection

from dragonfly.core.ids import IdSource
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import queue_mail
from dragonfly.mail.rules import mail_moment


class Operator(NamedTuple):
    """Who is told."""

    address: str
    """Empty: nobody."""
    language: str = "en"


def queue_alert(
    connection: Connection,
    ids: IdSource,
    to: Operator,
    *,
    event: str,
    detail: str,
    key: str,
    now_ns: int,
) -> None:
    """Queues one alert; the same `key` alerts once. Without an address nobody is told. `event` stands in the subject:
    a few words of ours; `detail` says in sentences what it is about."""
    if not to.address:
        return
    queue_mail(
        connection,
        ids,
        kind=MailKind.OPERATOR_ALERT,
        account_id=None,
        address=to.address,
        language=to.language,
        values={"time": mail_moment(now_ns), "event": event, "detail": detail},
        idempotency_key=f"operator_alert/{key}",
        now_ns=now_ns,
    )

"""What payments tell the log and the operator, and the mails that they cause."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Connection

from dragonfly.accounts.queries import account_by_id
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.logging import Event, Level
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import queue_mail
from dragonfly.payments.rules import cents_text

TOPUP_PAID = Event("topup_paid", Level.INFO, {"topup": str, "account": str, "credit_nusd": int})
TOPUP_MISMATCH = Event("topup_mismatch", Level.ERROR, {"topup": str, "reason": str})
REFUND_ENDED = Event("refund_ended", Level.INFO, {"refund": str, "state": str})
DISPUTE_CHANGED = Event("dispute_changed", Level.WARNING, {"dispute": str, "topup": str, "state": str})
FRAUD_WARNED = Event("fraud_warned", Level.WARNING, {"topup": str, "response": str})
RECHARGE_PAUSED = Event("recharge_paused", Level.INFO, {"account": str, "reason": str})
EVENT_REFUSED = Event("payment_event_refused", Level.WARNING, {"reason": str})
EVENT_GIVEN_UP = Event("payment_event_given_up", Level.ERROR, {"type": str, "tries": int})
RECONCILED = Event("payments_reconciled", Level.INFO, {"looked_at": int, "repaired": int})
DISPUTE_RATE = Event(
    "dispute_rate_high", Level.ERROR, {"disputes": int, "payments": int, "per_mille": int, "is_alarm": int}
)

Telling = tuple[Event, dict[str, str | int]]
"""An event with its fields, written once the transaction that caused it has committed."""


def time_text(at_ns: int) -> str:
    """ "2026-11-23 18:30 UTC"."""
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True, slots=True)
class PaymentMail:
    """One mail about money; `key` names the event, so that it is sent once."""

    kind: MailKind
    key: str
    account_id: AccountId
    language: str
    cents: int
    values: Mapping[str, str] = field(default_factory=dict)
    """Beside time, amount and currency."""


def queue_payment_mail(connection: Connection, ids: IdSource, mail: PaymentMail, *, now_ns: int) -> None:
    """Queues it for the account's address; an account without one gets none."""
    account = account_by_id(connection, mail.account_id)
    if account is None or not account.email:
        return
    money = {"time": time_text(now_ns), "amount": cents_text(mail.cents), "currency": "USD"}
    queue_mail(
        connection,
        ids,
        kind=mail.kind,
        account_id=mail.account_id,
        address=account.email,
        language=mail.language,
        values={**money, **mail.values},
        idempotency_key=f"{mail.kind.value}/{mail.key}",
        now_ns=now_ns,
    )

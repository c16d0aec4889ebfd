"""Every mail that exists: its folder under `templates/`, the values it takes, and whether one may opt out of it.

A value is checked when the mail is queued, so that a wrong one is found where it comes from. Providers of mail keep
bodies: no kind takes a key, a prompt or an exact balance, and links work once and for a short time.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class MailKind(enum.Enum):
    """The value is the name of the template's folder and stands in the database: never rename one."""

    VERIFY_EMAIL = "verify_email"
    ACCOUNT_EXISTS = "account_exists"
    PASSWORD_RESET = "password_reset"
    PASSWORD_CHANGED = "password_changed"
    EMAIL_CHANGE = "email_change"
    EMAIL_CHANGED = "email_changed"
    NEW_SIGN_IN = "new_sign_in"
    SECOND_FACTOR_CHANGED = "second_factor_changed"
    KEY_CREATED = "key_created"
    KEY_CHANGED = "key_changed"
    WELCOME_START = "welcome_start"
    WELCOME_ROUTES = "welcome_routes"
    WELCOME_HELP = "welcome_help"
    LOW_BALANCE = "low_balance"
    SPEND_BREAKER = "spend_breaker"
    RECEIPT = "receipt"
    RECHARGE_FAILED = "recharge_failed"
    RECHARGE_CONFIRM = "recharge_confirm"
    REFUND = "refund"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_CLOSED = "dispute_closed"
    DATA_REQUEST_STATUS = "data_request_status"
    DATA_REQUEST_REFUSED = "data_request_refused"
    EXPORT_READY = "export_ready"
    DELETION_SCHEDULED = "deletion_scheduled"
    DELETION_WAITS = "deletion_waits"
    DELETION_DONE = "deletion_done"
    TICKET_OPENED = "ticket_opened"
    TICKET_REPLY = "ticket_reply"
    ANNOUNCEMENT = "announcement"
    OPERATOR_ALERT = "operator_alert"
    TEST = "test"


class Choice(enum.Enum):
    """Which of its non-essential mails an account wants; each can be switched off."""

    WELCOME = "welcome"
    LOW_BALANCE = "low_balance"
    ANNOUNCEMENTS = "announcements"


class Field(enum.Enum):
    """What a value may be, where no closed list of words says it."""

    LINE = "line"
    """1 to 200 printable characters."""
    TEXT = "text"
    """1 to 10,000 characters in lines."""
    LINK = "link"
    """An address of http or https without blanks, at most 2,000 characters."""
    NUMBER = "number"
    """A whole number from 0 to 10¹²."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one kind of mail."""

    fields: Mapping[str, Field | tuple[str, ...]]
    """Every value that the template takes; a tuple is the closed list of its words."""
    choice: Choice | None = None
    """The choice that switches it off; None: essential, always sent."""


def _rules(choice: Choice | None = None, **fields: Field | tuple[str, ...]) -> Rules:
    return Rules(MappingProxyType(fields), choice)


RULES: Mapping[MailKind, Rules] = MappingProxyType(
    {
        MailKind.VERIFY_EMAIL: _rules(link=Field.LINK, hours=Field.NUMBER),
        MailKind.ACCOUNT_EXISTS: _rules(link=Field.LINK),
        MailKind.PASSWORD_RESET: _rules(link=Field.LINK, minutes=Field.NUMBER),
        MailKind.PASSWORD_CHANGED: _rules(time=Field.LINE),
        MailKind.EMAIL_CHANGE: _rules(link=Field.LINK, hours=Field.NUMBER),
        MailKind.EMAIL_CHANGED: _rules(time=Field.LINE),
        MailKind.NEW_SIGN_IN: _rules(time=Field.LINE, device=Field.LINE, ip=Field.LINE),
        MailKind.SECOND_FACTOR_CHANGED: _rules(time=Field.LINE, state=("on", "off")),
        MailKind.KEY_CREATED: _rules(time=Field.LINE, name=Field.LINE, hint=Field.LINE),
        MailKind.KEY_CHANGED: _rules(
            time=Field.LINE, name=Field.LINE, hint=Field.LINE, change=("rotated", "revoked", "stopped", "started")
        ),
        MailKind.WELCOME_START: _rules(Choice.WELCOME),
        MailKind.WELCOME_ROUTES: _rules(Choice.WELCOME),
        MailKind.WELCOME_HELP: _rules(Choice.WELCOME),
        MailKind.LOW_BALANCE: _rules(Choice.LOW_BALANCE, threshold_usd=Field.LINE),
        MailKind.SPEND_BREAKER: _rules(time=Field.LINE, name=Field.LINE, hint=Field.LINE),
        MailKind.RECEIPT: _rules(time=Field.LINE, amount=Field.LINE, currency=Field.LINE, reference=Field.LINE),
        MailKind.RECHARGE_FAILED: _rules(time=Field.LINE, amount=Field.LINE, currency=Field.LINE),
        MailKind.RECHARGE_CONFIRM: _rules(time=Field.LINE, amount=Field.LINE, currency=Field.LINE, link=Field.LINK),
        MailKind.REFUND: _rules(time=Field.LINE, amount=Field.LINE, currency=Field.LINE, reference=Field.LINE),
        MailKind.DISPUTE_OPENED: _rules(
            time=Field.LINE, amount=Field.LINE, currency=Field.LINE, reference=Field.LINE
        ),
        MailKind.DISPUTE_CLOSED: _rules(
            time=Field.LINE,
            amount=Field.LINE,
            currency=Field.LINE,
            reference=Field.LINE,
            outcome=("won", "lost"),
        ),
        MailKind.DATA_REQUEST_STATUS: _rules(
            request=("export", "deletion"),
            state=("received", "cancelled", "expired"),
            time=Field.LINE,
            reference=Field.LINE,
        ),
        MailKind.DATA_REQUEST_REFUSED: _rules(
            request=("export", "deletion"), reason=Field.TEXT, reference=Field.LINE
        ),
        MailKind.EXPORT_READY: _rules(reference=Field.LINE, time=Field.LINE, link=Field.LINK),
        MailKind.DELETION_SCHEDULED: _rules(reference=Field.LINE, time=Field.LINE, link=Field.LINK),
        MailKind.DELETION_WAITS: _rules(cause=("dispute", "refund", "payment", "balance"), reference=Field.LINE),
        MailKind.DELETION_DONE: _rules(certificate=Field.TEXT, reference=Field.LINE, time=Field.LINE),
        MailKind.TICKET_OPENED: _rules(ticket=Field.LINE),
        MailKind.TICKET_REPLY: _rules(ticket=Field.LINE, text=Field.TEXT),
        MailKind.ANNOUNCEMENT: _rules(Choice.ANNOUNCEMENTS, title=Field.LINE, text=Field.TEXT),
        MailKind.OPERATOR_ALERT: _rules(time=Field.LINE, event=Field.LINE, detail=Field.TEXT),
        MailKind.TEST: _rules(time=Field.LINE),
    }
)
assert set(RULES) == set(MailKind), "every kind has its rules"

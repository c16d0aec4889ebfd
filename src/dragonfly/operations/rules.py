"""Pure rules of what operators write: the chain of the log, reasons, announcements."""

import enum
import hashlib
import json

REASON_LENGTH_MIN = 3
REASON_LENGTH_MAX = 500
TARGET_LENGTH_MAX = 300
TEXT_LENGTH_MAX = 2_000
NO_DIGEST = bytes(32)
"""Before the first row."""


class AuditAction(enum.Enum):
    """What an operator can do. The value stands in the database: never rename one."""

    CREDIT_GRANT = "credit.grant"
    ACCOUNT_FREEZE = "account.freeze"
    ACCOUNT_UNFREEZE = "account.unfreeze"
    ACCOUNT_LIMIT = "account.limit"
    ACCOUNT_READ = "account.read"
    ACCOUNT_SEARCH = "account.search"
    KEY_READ = "key.read"
    KEY_REVOKE = "key.revoke"
    KEY_DISABLE = "key.disable"
    KEY_ENABLE = "key.enable"
    CHANNEL_PAUSE = "channel.pause"
    CHANNEL_RESUME = "channel.resume"
    ANNOUNCEMENT_CREATE = "announcement.create"
    ANNOUNCEMENT_WITHDRAW = "announcement.withdraw"
    OPERATOR_ADD = "operator.add"
    OPERATOR_REMOVE = "operator.remove"
    TICKET_READ = "ticket.read"
    TICKET_REPLY = "ticket.reply"
    TICKET_CLOSE = "ticket.close"
    DATA_REQUEST_OPEN = "data_request.open"
    DATA_REQUEST_READ = "data_request.read"
    DATA_REQUEST_APPROVE = "data_request.approve"
    DATA_REQUEST_REFUSE = "data_request.refuse"
    DATA_REQUEST_CANCEL = "data_request.cancel"
    DATA_REQUEST_FORFEIT = "data_request.forfeit"
    DATA_REQUEST_NOTE = "data_request.note"


class Severity(enum.Enum):
    """How loud an announcement is."""

    INFO = "info"
    WARNING = "warning"
    INCIDENT = "incident"


def is_reason(text: str) -> bool:
    """A sentence in one line, so that the log says why."""
    return REASON_LENGTH_MIN <= len(text) <= REASON_LENGTH_MAX and text.isprintable()


def is_text(text: str) -> bool:
    """1 to 2,000 characters in lines."""
    return 0 < len(text) <= TEXT_LENGTH_MAX and all(line.isprintable() for line in text.split("\n"))


def chained_digest(previous: bytes, number: int, *fields: str | int) -> bytes:
    """The digest of a row that follows the one with `previous`."""
    return hashlib.sha256(previous + json.dumps([number, *fields], ensure_ascii=True).encode()).digest()

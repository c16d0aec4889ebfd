"""What changes preferences and dead addresses. Each action runs inside a transaction that its caller opened."""

from collections.abc import Mapping

from sqlalchemy import Connection, delete, update
from sqlalchemy.exc import IntegrityError

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import insert_missing
from dragonfly.mail.kinds import Choice
from dragonfly.mail.tables import mail_dead_addresses, mail_notices, mail_preferences

LOW_BALANCE_NUSD_MAX = 10**15
"""A million dollars."""


class ThresholdInvalid(DragonflyError):
    """A threshold for the low-balance mail out of bounds."""

    code = "low_balance_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__("The low-balance threshold is an amount from 0 to 1,000,000 USD.")


class PreferencesOwnerUnknown(DragonflyError):
    code = "account_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such account. Copy the whole id (acc-…).")


def set_choices(
    connection: Connection, account_id: AccountId, choices: Mapping[Choice, bool], *, now_ns: int
) -> None:
    """Switches those mails on or off; the others stay as they are."""
    _change(connection, account_id, {choice.value: int(is_on) for choice, is_on in choices.items()}, now_ns=now_ns)


def set_low_balance(
    connection: Connection, account_id: AccountId, threshold_nusd: int | None, *, now_ns: int
) -> None:
    """Below which balance the account is told; None: the installation's default."""
    if threshold_nusd is not None and not 0 <= threshold_nusd <= LOW_BALANCE_NUSD_MAX:
        raise ThresholdInvalid
    _change(connection, account_id, {"low_balance_nusd": threshold_nusd}, now_ns=now_ns)


def note_bad_news(
    connection: Connection, notice_id: str, kind: str, transport_id: str | None, digests: list[str], *, now_ns: int
) -> bool:
    """A provider's notice that mail to these addresses bounced or was called spam; False when it is known already."""
    row = {"id": notice_id, "kind": kind, "transport_id": transport_id, "created_at_ns": now_ns}
    if not insert_missing(connection, mail_notices, row):
        return False
    for digest in digests:
        insert_missing(connection, mail_dead_addresses, {"digest": digest, "reason": kind, "created_at_ns": now_ns})
    return True


def allow_address(connection: Connection, digest: str) -> bool:
    """Mail may go there again; False when nothing kept it from that."""
    wanted = delete(mail_dead_addresses).where(mail_dead_addresses.c.digest == digest)
    return connection.execute(wanted).rowcount == 1


def _change(connection: Connection, account_id: AccountId, values: Mapping[str, int | None], *, now_ns: int) -> None:
    """Changes some of the account's preferences, which begin as the defaults."""
    row = {
        "account_id": account_id,
        **{choice.value: 1 for choice in Choice},
        "updated_at_ns": now_ns,
    }
    try:
        insert_missing(connection, mail_preferences, row)
    except IntegrityError:
        raise PreferencesOwnerUnknown from None
    changed = update(mail_preferences).where(mail_preferences.c.account_id == account_id)
    connection.execute(changed.values(**values, updated_at_ns=now_ns))

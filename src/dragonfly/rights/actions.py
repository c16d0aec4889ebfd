"""What changes requests about data. Each action runs inside a transaction that its caller opened.

Every step is a conditional update on the state it starts from: of two operators who decide at once, or two nodes that
carry out at once, one changes the row, and the other finds it changed.
"""

from dataclasses import dataclass
from typing import TypedDict, Unpack

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from dragonfly.accounts.actions import AccountNotFound, freeze_account
from dragonfly.accounts.letters import Tools
from dragonfly.accounts.queries import account_by_id
from dragonfly.accounts.sessions import EndReason, end_sessions
from dragonfly.accounts.tables import accounts, one_time_links
from dragonfly.core.credentials import TokenKind
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.changes import record_change
from dragonfly.payments.recharge import stop_recharge
from dragonfly.payments.tables import payment_freezes
from dragonfly.privacy.obstacles import Obstacle, obstacles
from dragonfly.rights.letters import tell_decision, tell_refusal, tell_status
from dragonfly.rights.queries import (
    DataRequest,
    request_by_id,
    request_of_account,
)
from dragonfly.rights.rules import (
    NOTE_LENGTH_MAX,
    NS_PER_DAY,
    REASON_LENGTH_MAX,
    SELF_SERVICE,
    Origin,
    RequestKind,
    State,
    is_words,
)
from dragonfly.rights.tables import data_requests
from dragonfly.settings import PrivacySettings
from dragonfly.support.actions import follow_request
from dragonfly.support.rules import RequestState


class DataRequestNotFound(DragonflyError):
    code = "data_request_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such request. Copy the whole id (drq-…).")


class DataRequestOpen(DragonflyError):
    """There is one of this kind already."""

    code = "data_request_open"
    status = 409

    def __init__(self) -> None:
        super().__init__("A request of this kind is open already. Wait for its end, or cancel it.")


class DataRequestDecided(DragonflyError):
    """The step cannot be taken any more."""

    code = "data_request_decided"
    status = 409

    def __init__(self) -> None:
        super().__init__("This request was decided otherwise or has ended. Look at its state again.")


class BalanceLeft(DragonflyError):
    """Money would be lost, and nobody has said that it may be."""

    code = "balance_left"
    status = 409

    def __init__(self) -> None:
        super().__init__(
            "The account has a balance. Ask for a refund of what was paid and not used, or send gives_up_balance:"
            " true to give up the rest."
        )


class AccountUnnamed(DragonflyError):
    """A stranger's ticket opened the request, and nobody has said whose data it is about."""

    code = "account_unnamed"
    status = 409

    def __init__(self) -> None:
        super().__init__("It is not known whose data this is about. Name the account when you approve it.")


class WordsInvalid(DragonflyError):
    """A reason or a note out of bounds."""

    code = "words_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__(
            f"Write 1 to {REASON_LENGTH_MAX} printable characters as a reason, at most {NOTE_LENGTH_MAX} as a note."
        )


@dataclass(frozen=True, slots=True)
class RightsTools:
    """What the actions need besides a connection."""

    people: Tools
    settings: PrivacySettings
    operator_address: str
    """Who is told of what is late, and gets a copy of certificates; "" for nobody."""
    certificate_key: bytes

    @property
    def ids(self) -> IdSource:
        return self.people.ids


class RequestOrder(TypedDict):
    """One request to be opened."""

    account_id: AccountId | None
    """None: a stranger's ticket."""
    kind: RequestKind
    origin: Origin
    ticket_id: str | None
    gives_up_balance: bool
    now_ns: int


def open_request(connection: Connection, tools: RightsTools, **order: Unpack[RequestOrder]) -> DataRequest:
    """A new request in the queue; approved at once where people serve themselves, and asked from the dashboard.

    AccountNotFound, DataRequestOpen, and from the dashboard BalanceLeft: elsewhere an operator settles that.
    """
    account_id, kind, now_ns = order["account_id"], order["kind"], order["now_ns"]
    is_own = order["origin"] is Origin.DASHBOARD
    if account_id is not None:
        if account_by_id(connection, account_id) is None:
            raise AccountNotFound
        if is_own and kind is RequestKind.DELETION:
            _require_balance_settled(connection, account_id, gives_up_balance=order["gives_up_balance"])
    row = {
        "id": tools.ids.new("drq-", now_ns),
        "account_id": account_id,
        "kind": kind.value,
        "origin": order["origin"].value,
        "ticket_id": order["ticket_id"],
        "state": State.REQUESTED.value,
        "gives_up_balance": int(order["gives_up_balance"]),
        "created_at_ns": now_ns,
        "due_at_ns": now_ns + tools.settings.request_days * NS_PER_DAY,
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(data_requests).values(row))
    except IntegrityError:
        raise DataRequestOpen from None
    request = _existing(connection, str(row["id"]))
    if is_own and tools.settings.self_service:
        return approve(connection, tools, request.id, reviewed_by=SELF_SERVICE, now_ns=now_ns)
    tell_status(connection, tools.people, request, "received", at_ns=request.due_at_ns, now_ns=now_ns)
    return request


def approve(
    connection: Connection,
    tools: RightsTools,
    request_id: str,
    *,
    reviewed_by: str,
    account_id: AccountId | None = None,
    now_ns: int,
) -> DataRequest:
    """Says yes. A copy can be fetched from now on; a deletion stops keys and sessions and waits for its day.

    `account_id` names the account of a stranger's request. Approving again changes nothing. DataRequestNotFound,
    DataRequestDecided, DataRequestOpen, AccountUnnamed, AccountNotFound.
    """
    request = _existing(connection, request_id)
    owner = request.account_id or account_id
    if owner is None:
        raise AccountUnnamed
    if account_id not in (None, owner) or account_by_id(connection, owner) is None:
        raise AccountNotFound
    is_deletion = request.kind is RequestKind.DELETION
    days = tools.settings.grace_days if is_deletion else tools.settings.export_days
    values: dict[str, object] = {
        "account_id": owner,
        "state": State.APPROVED.value,
        "reviewed_by": reviewed_by,
        "reviewed_at_ns": now_ns,
        "until_ns": now_ns + days * NS_PER_DAY,
    }
    if not _step(connection, request_id, State.REQUESTED, values):
        return _decided(connection, request_id, State.APPROVED)
    if is_deletion:
        _stop_account(connection, request_id, owner, now_ns=now_ns)
    approved = _existing(connection, request_id)
    _mirror(connection, approved, RequestState.APPROVED, now_ns=now_ns)
    tell_decision(connection, tools.people, approved, now_ns=now_ns)
    return approved


def refuse(
    connection: Connection, tools: RightsTools, request_id: str, *, reason: str, reviewed_by: str, now_ns: int
) -> DataRequest:
    """Says no; the person is told the reason. Refusing again changes nothing.

    DataRequestNotFound, DataRequestDecided, WordsInvalid.
    """
    if not is_words(reason, REASON_LENGTH_MAX):
        raise WordsInvalid
    _existing(connection, request_id)
    values: dict[str, object] = {
        "state": State.REFUSED.value,
        "reason": reason,
        "reviewed_by": reviewed_by,
        "reviewed_at_ns": now_ns,
        "ended_at_ns": now_ns,
    }
    if not _step(connection, request_id, State.REQUESTED, values):
        return _decided(connection, request_id, State.REFUSED)
    refused = _existing(connection, request_id)
    tell_refusal(connection, tools.people, refused, reason, now_ns=now_ns)
    _mirror(connection, refused, RequestState.REFUSED, now_ns=now_ns)
    return refused


def note(connection: Connection, request_id: str, text: str) -> DataRequest:
    """What operators want to remember about it; the person never sees it. DataRequestNotFound, WordsInvalid."""
    if not is_words(text, NOTE_LENGTH_MAX):
        raise WordsInvalid
    _existing(connection, request_id)
    connection.execute(update(data_requests).where(data_requests.c.id == request_id).values(note=text))
    return _existing(connection, request_id)


def cancel(
    connection: Connection,
    tools: RightsTools,
    request_id: str,
    *,
    account_id: AccountId | None = None,
    now_ns: int,
) -> DataRequest:
    """Takes a request back while it can be; after a deletion was approved the keys work again. With `account_id` only
    that account's own. Cancelling again changes nothing. DataRequestNotFound, DataRequestDecided."""
    request = _existing(connection, request_id)
    if account_id is not None and request_of_account(connection, request_id, account_id=account_id) is None:
        raise DataRequestNotFound
    values: dict[str, object] = {"state": State.CANCELLED.value, "ended_at_ns": now_ns, "waits_for": None}
    if not any(_step(connection, request_id, state, values) for state in (State.REQUESTED, State.APPROVED)):
        return _decided(connection, request_id, State.CANCELLED)
    request = _existing(connection, request_id)
    _void_links(connection, request)
    if request.kind is RequestKind.DELETION and request.reviewed_at_ns is not None:
        assert request.account_id is not None, "an approved request has an account"
        _let_go_on(connection, request, request.account_id)
    tell_status(connection, tools.people, request, "cancelled", at_ns=now_ns, now_ns=now_ns)
    _mirror(connection, request, RequestState.CANCELLED, now_ns=now_ns)
    return request


def give_up_balance(connection: Connection, request_id: str) -> DataRequest:
    """The person has said, after asking, that what is left may be lost. DataRequestNotFound, DataRequestDecided."""
    _existing(connection, request_id)
    is_open = data_requests.c.id == request_id, data_requests.c.ended_at_ns.is_(None)
    if not connection.execute(update(data_requests).where(*is_open).values(gives_up_balance=1)).rowcount:
        raise DataRequestDecided
    return _existing(connection, request_id)


def expire(connection: Connection, tools: RightsTools, request_id: str, *, now_ns: int) -> bool:
    """Nobody fetched the copy in time; False when somebody did, or it was cancelled."""
    request = _existing(connection, request_id)
    assert request.until_ns is not None, "an approved request has an end"
    values: dict[str, object] = {"state": State.EXPIRED.value, "ended_at_ns": now_ns}
    if not _step(connection, request_id, State.APPROVED, values):
        return False
    _void_links(connection, request)
    tell_status(connection, tools.people, request, "expired", at_ns=request.until_ns, now_ns=now_ns)
    _mirror(connection, request, RequestState.CANCELLED, now_ns=now_ns)
    return True


def complete_export(connection: Connection, request_id: str, *, now_ns: int) -> bool:
    """The copy is in its owner's hands; False when the request has ended otherwise meanwhile."""
    request = _existing(connection, request_id)
    values: dict[str, object] = {"state": State.DONE.value, "ended_at_ns": now_ns}
    if not _step(connection, request_id, State.APPROVED, values):
        return False
    _mirror(connection, request, RequestState.DONE, now_ns=now_ns)
    return True


def _require_balance_settled(connection: Connection, account_id: AccountId, *, gives_up_balance: bool) -> None:
    found = obstacles(connection, account_id, gives_up_balance=gives_up_balance)
    if Obstacle.BALANCE in found and Obstacle.REFUND not in found:
        raise BalanceLeft


def _existing(connection: Connection, request_id: str) -> DataRequest:
    request = request_by_id(connection, request_id)
    if request is None:
        raise DataRequestNotFound
    return request


def _step(connection: Connection, request_id: str, old: State, values: dict[str, object]) -> bool:
    """Changes the row if it is in the state `old`. DataRequestOpen when the named account has such a request."""
    moved = update(data_requests).where(data_requests.c.id == request_id, data_requests.c.state == old.value)
    try:
        with connection.begin_nested():
            return connection.execute(moved.values(values)).rowcount == 1
    except IntegrityError:
        raise DataRequestOpen from None


def _decided(connection: Connection, request_id: str, wanted: State) -> DataRequest:
    """The request, when somebody else has just taken the same step."""
    request = _existing(connection, request_id)
    if request.state is not wanted:
        raise DataRequestDecided
    return request


def _stop_account(connection: Connection, request_id: str, account_id: AccountId, *, now_ns: int) -> None:
    """Keys and management keys are refused within a second, sessions end, nothing is charged any more."""
    frozen_at_ns = connection.execute(
        select(accounts.c.frozen_at_ns).where(accounts.c.id == account_id)
    ).scalar_one_or_none()
    is_by_operator = frozen_at_ns is not None and frozen_at_ns not in _payment_freezes(connection, account_id)
    if is_by_operator:
        kept = update(data_requests).where(data_requests.c.id == request_id)
        connection.execute(kept.values(frozen_before_ns=frozen_at_ns))
    freeze_account(connection, account_id, is_frozen=True, now_ns=now_ns)
    end_sessions(connection, account_id, EndReason.REVOKED, now_ns=now_ns)
    stop_recharge(connection, account_id, now_ns=now_ns)


def _let_go_on(connection: Connection, request: DataRequest, account_id: AccountId) -> None:
    """Undoes `_stop_account`, unless an operator or a payment had stopped the account too."""
    causes = _payment_freezes(connection, account_id)
    since_ns = request.frozen_before_ns or (min(causes) if causes else None)
    ours = accounts.c.id == account_id, accounts.c.frozen_at_ns == request.reviewed_at_ns
    if connection.execute(update(accounts).where(*ours).values(frozen_at_ns=since_ns)).rowcount:
        record_change(connection, f"account/{account_id}")


def _payment_freezes(connection: Connection, account_id: AccountId) -> list[int]:
    wanted = select(payment_freezes.c.since_ns).where(payment_freezes.c.account_id == account_id)
    return list(connection.execute(wanted).scalars())


def _void_links(connection: Connection, request: DataRequest) -> None:
    kinds = (TokenKind.EXPORT.value, TokenKind.KEEP.value)
    mine = one_time_links.c.details == request.id, one_time_links.c.kind.in_(kinds)
    connection.execute(delete(one_time_links).where(one_time_links.c.account_id == request.account_id, *mine))


def _mirror(connection: Connection, request: DataRequest, state: RequestState, *, now_ns: int) -> None:
    """The ticket that asked for it shows how far it is, and closes with it."""
    if request.ticket_id is not None:
        follow_request(connection, request.ticket_id, state, now_ns=now_ns)

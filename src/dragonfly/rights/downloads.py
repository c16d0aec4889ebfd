"""The way to an approved copy: a link that works once and soon, made when its owner asks for it."""

from sqlalchemy import Connection, delete

from dragonfly.accounts.links import Link, LinkInvalid, make_link, take_link
from dragonfly.accounts.tables import one_time_links
from dragonfly.core.credentials import Seal, Token, TokenKind
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret
from dragonfly.rights.actions import DataRequestNotFound
from dragonfly.rights.queries import DataRequest, request_by_id, request_of_account
from dragonfly.rights.rules import RequestKind, State


class NothingToFetch(DragonflyError):
    """No copy, not approved, fetched already, or too late."""

    code = "nothing_to_fetch"
    status = 409

    def __init__(self) -> None:
        super().__init__("There is no copy to fetch here: only an approved export has one, once and for some days.")


def make_download(
    connection: Connection, seal: Seal, request_id: str, *, account_id: AccountId, now_ns: int
) -> Secret:
    """A token that fetches the copy once within ten minutes; an earlier one stops working.

    DataRequestNotFound, NothingToFetch.
    """
    request = request_of_account(connection, request_id, account_id=account_id)
    if request is None:
        raise DataRequestNotFound
    if not _can_be_fetched(request, now_ns):
        raise NothingToFetch
    links = one_time_links.c
    earlier = links.account_id == account_id, links.kind == TokenKind.EXPORT.value, links.used_at_ns.is_(None)
    connection.execute(delete(one_time_links).where(*earlier))
    return make_link(connection, seal, TokenKind.EXPORT, Link(account_id, None, None, request_id), now_ns=now_ns)


def take_download(connection: Connection, token: Token, *, now_ns: int) -> DataRequest:
    """Uses the token up and says which request it is for. LinkInvalid.

    The request itself ends when all of the copy has left (`complete_export`): whoever is cut off asks for another
    link.
    """
    link = take_link(connection, token, TokenKind.EXPORT, now_ns=now_ns)
    request = request_by_id(connection, link.details or "")
    if request is None or request.account_id != link.account_id or not _can_be_fetched(request, now_ns):
        raise LinkInvalid
    return request


def request_to_keep(connection: Connection, token: Token, *, now_ns: int) -> DataRequest:
    """The deletion that the link from the mail cancels; used up with that. LinkInvalid."""
    link = take_link(connection, token, TokenKind.KEEP, now_ns=now_ns)
    request = request_by_id(connection, link.details or "")
    if request is None or request.account_id != link.account_id:
        raise LinkInvalid
    return request


def _can_be_fetched(request: DataRequest, now_ns: int) -> bool:
    is_ready = request.kind is RequestKind.EXPORT and request.state is State.APPROVED
    return is_ready and request.until_ns is not None and request.until_ns > now_ns

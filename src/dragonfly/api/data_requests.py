"""/api/data-requests: a copy of one's data, and the end of one's account."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from dragonfly.accounts.links import LIFETIME_S, LinkInvalid
from dragonfly.accounts.second_factors import has_second_factor
from dragonfly.accounts.sessions import require_fresh
from dragonfly.api.desk import Desk, Moderate
from dragonfly.api.downloads import Downloads
from dragonfly.api.principal import Forbidden, Principal, customer
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, Strict, cursor_position, page_of
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.credentials import TokenKind
from dragonfly.core.ids import AccountId
from dragonfly.privacy.obstacles import Obstacle
from dragonfly.rights.actions import DataRequestNotFound, RightsTools, cancel, open_request
from dragonfly.rights.downloads import make_download, request_to_keep
from dragonfly.rights.queries import DataRequest, request_of_account, requests_of_account
from dragonfly.rights.rules import Origin, RequestKind, State

DOWNLOAD_PATH = "/api/data-requests/download"
NS_PER_S = 1_000_000_000

Customer = Annotated[Principal, Depends(customer)]
RequestPath = Annotated[str, Path(min_length=1, max_length=64, description="drq-…")]
ZIP: dict[int | str, dict[str, object]] = {
    200: {
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        "description": "JSON and CSV of every table, and README.txt.",
    }
}


class DataRequestWanted(Strict):
    """What is asked for."""

    kind: Literal["export", "deletion"]
    gives_up_balance: Annotated[
        bool, Field(description="For a deletion: what is left of the balance after open refunds may be lost.")
    ] = False


class TokenGiven(Strict):
    """The part of a mail's link behind #token=."""

    token: Annotated[str, Field(min_length=1, max_length=200)]


class DataRequestShown(BaseModel):
    """One request."""

    id: str
    kind: RequestKind
    state: State
    origin: Origin
    gives_up_balance: bool
    created_at: str
    due_at: Annotated[str, Field(description="When it is answered at the latest.")]
    reviewed_at: str | None
    until: Annotated[
        str | None,
        Field(description="Approved copy: until when it can be fetched. Approved deletion: when it happens."),
    ]
    waits_for: Annotated[
        Obstacle | None, Field(description="What must be settled before an approved deletion can happen.")
    ]
    reason: Annotated[str | None, Field(description="Why it was refused.")]
    ended_at: str | None


class DownloadLink(BaseModel):
    """Fetches the copy once."""

    url: Annotated[str | None, Field(description="GET it within ten minutes. Shown this once.")]
    expires_at: str


def data_request_shown(request: DataRequest) -> DataRequestShown:
    """As its owner sees it."""
    return DataRequestShown(
        id=request.id,
        kind=request.kind,
        state=request.state,
        origin=request.origin,
        gives_up_balance=request.gives_up_balance,
        created_at=moment_text(request.created_at_ns),
        due_at=moment_text(request.due_at_ns),
        reviewed_at=_moment(request.reviewed_at_ns),
        until=_moment(request.until_ns),
        waits_for=request.waits_for,
        reason=request.reason,
        ended_at=_moment(request.ended_at_ns),
    )


class RightsDesk:
    """The use cases of one's own requests, each in one transaction."""

    def __init__(self, desk: Desk, tools: RightsTools) -> None:
        self._desk = desk
        self._tools = tools

    async def page(self, account_id: AccountId, *, limit: int, cursor: str | None) -> Page[DataRequestShown]:
        position = cursor_position("data_requests", cursor, str)
        before = None if position is None else str(position[0])

        def find(connection: Connection) -> Page[DataRequestShown]:
            found = requests_of_account(connection, account_id, before=before, limit=limit + 1)
            page, following = page_of(found, limit, "data_requests", lambda one: (one.id,))
            return Page(data=[data_request_shown(one) for one in page], next_cursor=following)

        return await self._desk.read(find)

    async def one(self, account_id: AccountId, request_id: str) -> DataRequestShown:
        return data_request_shown(await self._desk.read(lambda connection: _own(connection, account_id, request_id)))

    async def open(self, principal: Principal, wanted: DataRequestWanted) -> DataRequestShown:
        now_ns = self._desk.clock.now_ns()

        def work(connection: Connection) -> DataRequest:
            _require_proof(connection, principal, now_ns)
            return open_request(
                connection,
                self._tools,
                account_id=principal.account_id,
                kind=RequestKind(wanted.kind),
                origin=Origin.DASHBOARD,
                ticket_id=None,
                gives_up_balance=wanted.gives_up_balance,
                now_ns=now_ns,
            )

        return data_request_shown(await self._desk.write(work))

    async def cancel(self, account_id: AccountId, request_id: str) -> DataRequestShown:
        now_ns = self._desk.clock.now_ns()
        cancelled = await self._desk.write(
            lambda connection: cancel(connection, self._tools, request_id, account_id=account_id, now_ns=now_ns)
        )
        return data_request_shown(cancelled)

    async def keep(self, text: str) -> DataRequestShown:
        token, now_ns = self._tools.people.seal.read(TokenKind.KEEP, text), self._desk.clock.now_ns()
        if token is None:
            raise LinkInvalid

        def work(connection: Connection) -> DataRequest:
            request = request_to_keep(connection, token, now_ns=now_ns)
            return cancel(connection, self._tools, request.id, now_ns=now_ns)

        return data_request_shown(await self._desk.write(work))

    async def link(self, principal: Principal, request_id: str) -> DownloadLink:
        now_ns = self._desk.clock.now_ns()

        def work(connection: Connection) -> str:
            _own(connection, principal.account_id, request_id)
            _require_proof(connection, principal, now_ns)
            made = make_download(
                connection, self._tools.people.seal, request_id, account_id=principal.account_id, now_ns=now_ns
            )
            return made.reveal()

        token = await self._desk.write(work)
        expires_at_ns = now_ns + LIFETIME_S[TokenKind.EXPORT] * NS_PER_S
        url = f"{self._tools.people.site_url}{DOWNLOAD_PATH}?token={token}"
        return DownloadLink(url=url, expires_at=moment_text(expires_at_ns))


def data_request_routes(desk: Desk, tools: RightsTools, moderate: Moderate) -> APIRouter:
    """One's own requests, and what the links of mails lead to."""
    routes = APIRouter(prefix="/api/data-requests", tags=["data requests"])
    own, downloads = RightsDesk(desk, tools), Downloads(desk, tools)

    @routes.get(
        "/download", operation_id="fetch_data", summary="Fetch the copy", response_class=Response, responses=ZIP
    )
    async def fetch(
        request: Request, token: Annotated[str, Query(max_length=200, description="From the link.")]
    ) -> Response:
        """A ZIP, made while it is sent. The link works once; whoever is cut off makes another one."""
        moderate(request)
        return await downloads.take(token)

    @routes.post("/keep", operation_id="keep_account", summary="Cancel a deletion with the link from the mail")
    async def keep(request: Request, given: TokenGiven) -> DataRequestShown:
        """Keys work again within a second; sessions do not come back."""
        moderate(request)
        return await own.keep(given.token)

    @routes.get("", operation_id="list_data_requests", summary="List one's requests about data")
    async def requests(
        principal: Customer, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
    ) -> Page[DataRequestShown]:
        """The newest first."""
        return await own.page(principal.account_id, limit=limit, cursor=cursor)

    @routes.post(
        "",
        operation_id="open_data_request",
        status_code=201,
        summary="Ask for a copy of one's data, or for deletion",
        openapi_extra=kept(),
    )
    async def open_one(principal: Customer, wanted: DataRequestWanted) -> DataRequestShown:
        """Wants a recent sign-in. One open request of each kind; where people serve themselves, approved at once."""
        return await own.open(principal, wanted)

    @routes.get("/{request_id}", operation_id="read_data_request", summary="Read a request about data")
    async def request(principal: Customer, request_id: RequestPath) -> DataRequestShown:
        return await own.one(principal.account_id, request_id)

    @routes.post(
        "/{request_id}/cancel",
        operation_id="cancel_data_request",
        summary="Cancel a request about data",
        openapi_extra=kept(),
    )
    async def cancel_one(principal: Customer, request_id: RequestPath) -> DataRequestShown:
        """Until it has ended; after an approved deletion the keys work again."""
        return await own.cancel(principal.account_id, request_id)

    @routes.post(
        "/{request_id}/link",
        operation_id="make_download_link",
        summary="Make a link that fetches the copy once",
        openapi_extra=kept("url"),
    )
    async def link(principal: Customer, request_id: RequestPath) -> DownloadLink:
        """Wants a recent sign-in. An earlier link stops working."""
        return await own.link(principal, request_id)

    return routes


def _require_proof(connection: Connection, principal: Principal, now_ns: int) -> None:
    """A stolen, unattended session must neither take everything away nor end the account."""
    require_fresh(connection, principal.session_id, now_ns=now_ns)
    if has_second_factor(connection, principal.account_id) and not principal.second_factor:
        raise Forbidden


def _own(connection: Connection, account_id: AccountId, request_id: str) -> DataRequest:
    request = request_of_account(connection, request_id, account_id=account_id)
    if request is None:
        raise DataRequestNotFound
    return request


def _moment(at_ns: int | None) -> str | None:
    return None if at_ns is None else moment_text(at_ns)

"""The copy of somebody's data on its way: made while it is sent, from one snapshot, within bounds."""

import asyncio
from collections.abc import Generator
from contextlib import ExitStack, suppress

from sqlalchemy import Connection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dragonfly.accounts.links import LinkInvalid
from dragonfly.api.desk import Desk
from dragonfly.core.credentials import TokenKind
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import read
from dragonfly.privacy.export import Export
from dragonfly.rights.actions import RightsTools, complete_export
from dragonfly.rights.downloads import take_download

DOWNLOADS_MAX = 2
"""At the same time in one process: each occupies a connection to the database."""
STALL_S = 30.0
"""A reader that takes nothing for this long is gone."""
DOWNLOAD_S_MAX = 900.0
"""A snapshot that is held longer keeps the database from tidying up."""


class TooManyDownloads(DragonflyError):
    code = "too_many_downloads"
    status = 429

    def __init__(self) -> None:
        super().__init__("Other copies are being fetched at the moment. Try again in a minute; the link still works.")
        self.retry_after_s = 60.0


class Downloads:
    """Hands out copies."""

    def __init__(self, desk: Desk, tools: RightsTools) -> None:
        self._desk = desk
        self._tools = tools
        self.running = 0

    async def take(self, text: str) -> "Download":
        """The copy that a link leads to; the link is used up. LinkInvalid, TooManyDownloads."""
        token = self._tools.people.seal.read(TokenKind.EXPORT, text)
        if token is None:
            raise LinkInvalid
        if self.running >= DOWNLOADS_MAX:
            raise TooManyDownloads
        self.running += 1
        now_ns = self._desk.clock.now_ns()
        try:
            request = await self._desk.write(lambda connection: take_download(connection, token, now_ns=now_ns))
        except BaseException:
            self.running -= 1
            raise
        assert request.account_id is not None, "an approved request has an account"
        return Download(self, request.id, request.account_id)

    async def done(self, request_id: str) -> None:
        """All of it has left."""
        now_ns = self._desk.clock.now_ns()
        await self._desk.write(lambda connection: complete_export(connection, request_id, now_ns=now_ns))

    def pieces(self, account_id: AccountId) -> Generator[bytes, None, None]:
        """The ZIP, from a snapshot that is held until the last piece is taken or the generator closed."""
        with ExitStack() as stack:
            connection: Connection = stack.enter_context(read(self._desk.engine))
            yield from Export(connection, account_id, now_ns=self._desk.clock.now_ns()).pieces()


class Download(Response):
    """One ZIP on its way. Only when all of it is sent to somebody who is still there, the request is done."""

    def __init__(self, downloads: Downloads, request_id: str, account_id: AccountId) -> None:
        name = f"dragonfly-{account_id}.zip"
        super().__init__(media_type="application/zip")
        self.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        del self.headers["content-length"]  # of the empty body that it was made with
        self._downloads = downloads
        self._request_id = request_id
        self._account_id = account_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces = self._downloads.pieces(self._account_id)
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with asyncio.timeout(DOWNLOAD_S_MAX):
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    async with asyncio.timeout(STALL_S):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    if gone.done():
                        return
            await asyncio.sleep(0)  # whoever left with the last piece is noticed now
            if gone.done():
                return
            await self._downloads.done(self._request_id)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # the server closes a connection whose answer has no end
        finally:
            gone.cancel()
            self._downloads.running -= 1
            with suppress(ValueError):  # a thread makes a piece that nobody waits for; then it closes itself
                await asyncio.to_thread(pieces.close)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

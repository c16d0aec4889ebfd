"""uvicorn's flow control with what a connection of the lane never needs made only when it is needed."""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class LaneFlow(FlowControl):
    """The same object for uvicorn's ASGI cycles; the event that they wait for is made at the first wait.

    An asyncio.Event takes 0.7 KiB, and ten thousand streams would hold one each.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = False
        self.write_paused = False
        self._writable: asyncio.Event | None = None

    async def drain(self) -> None:
        """Wait until the client has taken what is buffered."""
        if self._writable is None:
            self._writable = asyncio.Event()
            if not self.write_paused:
                self._writable.set()
        await self._writable.wait()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._writable is not None:
            self._writable.clear()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()

"""The default: shows each mail's text where the program runs. For trying things out; nobody receives anything."""

import asyncio
from typing import TextIO

from dragonfly.mail.messages import Message


class ConsoleTransport:
    """Writes to `stream`, which is not the log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    async def send(self, message: Message) -> str | None:
        """Never fails for the mail's sake; a closed stream loses the text, as there is nobody to read it."""
        shown = f"\n--- mail to {message.address}: {message.subject}\n{message.text}\n---\n"
        await asyncio.to_thread(self._write, shown)
        return None

    def _write(self, shown: str) -> None:
        try:
            self._stream.write(shown)
            self._stream.flush()
        except (OSError, ValueError):
            pass

    async def close(self) -> None:
        return None

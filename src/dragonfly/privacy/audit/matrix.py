"""The matrix: every shape of a request with every ending, each with a canary of its own."""

import asyncio
import contextlib
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from dragonfly.privacy.audit.instance import Instance, Where
from dragonfly.privacy.audit.places import Search
from dragonfly.privacy.audit.provider import Ending
from dragonfly.privacy.audit.shapes import BASE62, FORWARDED, REFUSED, Ask, Shape

RUN_LETTERS = 20
CASE_DIGITS = 4
ANSWER_S_MAX = 40.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024
TRIES_MAX = 100
PAUSE_S = 0.02
REDUCED_EVERY = 7
"""In the reduced matrix each shape meets every seventh ending, shifted, so that all of both occur."""
NOT_NOW = b"no_healthy_channel"


class Client:
    """What the client does besides asking; the value is shown in the report."""

    GONE_EARLY = "client gone before the answer"
    GONE_MIDWAY = "client gone in the middle"
    HALF_CLOSED = "client half closed"
    NO_FUNDS = "no credit"
    REVOKED = "key revoked"
    SHUTDOWN = "shutdown in the middle"
    KILLED = "kill -9 in the middle"
    ABORTED = "abort in the middle"


@dataclass(slots=True)
class Canaries:
    """Words that nobody else says. All of a run begin alike, so that one search finds every one of them."""

    run: str = field(default_factory=lambda: "".join(secrets.choice(BASE62) for _ in range(RUN_LETTERS)))
    cases: list[str] = field(default_factory=list)

    def next(self, case: str) -> str:
        """A canary for `case`."""
        number = len(self.cases)
        self.cases.append(case)
        return f"{self.run}{number:0{CASE_DIGITS}d}"


@dataclass(slots=True)
class Driven:
    """What was sent and what came back."""

    cases: int = 0
    shapes: set[str] = field(default_factory=set)
    endings: set[str] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)

    def note(self, shape: str, ending: str, answer: bytes) -> None:
        """One case is done."""
        self.cases += 1
        self.shapes.add(shape)
        self.endings.add(ending)
        self.statuses[answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "none"] += 1


@dataclass(frozen=True, slots=True)
class Drive:
    """One run over one instance."""

    instance: Instance
    canaries: Canaries
    search: Search
    driven: Driven
    is_reduced: bool

    async def endings(self) -> None:
        """Every forwarded shape with everything that a provider can do; endings side by side."""
        async with asyncio.TaskGroup() as group:
            for number, ending in enumerate(Ending):
                group.create_task(self._ending(ending, number), name=ending.value)

    async def _ending(self, ending: Ending, number: int) -> None:
        for name, shape in self._some(number):
            await self._patiently(name, shape, ending)

    def _some(self, number: int) -> Iterator[tuple[str, Shape]]:
        for position, (name, shape) in enumerate(FORWARDED.items()):
            if not self.is_reduced or (position + number) % REDUCED_EVERY == 0:
                yield name, shape

    async def _patiently(self, name: str, shape: Shape, ending: Ending) -> None:
        """Asks again while the channel rests from what the last request did to it."""
        case = f"{name} / {ending.value}"
        for _ in range(TRIES_MAX):
            ask = self._ask(case, ending)
            answer = await exchange(self.instance.where, shape(ask))
            self.look(case, answer, is_error=False)
            if NOT_NOW not in answer:
                break
            await asyncio.sleep(PAUSE_S)
        self.driven.note(name, ending.value, answer)

    def _ask(self, case: str, ending: Ending, key: str = "") -> Ask:
        instance = self.instance
        canary = self.canaries.next(case)
        return Ask(canary, f"audit/{ending.value}", key or instance.key, instance.where.authority)

    async def refusals(self) -> None:
        """Every shape that the gateway itself answers."""
        for name, shape in REFUSED.items():
            answer = await exchange(self.instance.where, shape(self._ask(name, Ending.COMPLETE)))
            self.look(name, answer, is_error=not answer.startswith(b"HTTP/1.1 200"))
            self.driven.note(name, "refused", answer)

    async def clients(self) -> None:
        """Clients that leave, and clients that may not."""
        for number, (name, shape) in enumerate(FORWARDED.items()):
            if self.is_reduced and number % REDUCED_EVERY:
                continue
            for case, key in ((Client.NO_FUNDS, self.instance.poor_key), (Client.REVOKED, self.instance.revoked_key)):
                answer = await exchange(self.instance.where, shape(self._ask(case, Ending.COMPLETE, key)))
                self.look(f"{name} / {case}", answer, is_error=True)
                self.driven.note(name, case, answer)
            for case, ending, mark in (
                (Client.GONE_EARLY, Ending.LATE_HEAD, b""),
                (Client.GONE_MIDWAY, Ending.LATE_REST, b"\r\n\r\n"),
            ):
                answer = await abandon(self.instance.where, shape(self._ask(case, ending)), mark)
                self.driven.note(name, case, answer)
            request = shape(self._ask(Client.HALF_CLOSED, Ending.COMPLETE))
            self.driven.note(name, Client.HALF_CLOSED, await exchange(self.instance.where, request, half_close=True))

    async def ends(self, case: str, number: signal.Signals) -> None:
        """The process ends while every shape is being answered."""
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(exchange(self.instance.where, shape(self._ask(case, Ending.LATE_REST))), name=name)
                for name, shape in FORWARDED.items()
            ]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=SOME_S)
            await self.instance.end(number)
        for task in asked:
            self.driven.note(task.get_name(), case, task.result())

    def look(self, case: str, answer: bytes, *, is_error: bool) -> None:
        look_at_answer(self.search, case, answer, is_error=is_error)


def look_at_answer(search: Search, case: str, answer: bytes, *, is_error: bool) -> None:
    """Heads and errors must not repeat what was said; answers do, that is what they are for."""
    head, _, body = answer.partition(b"\r\n\r\n")
    search.look_at(f"heads of answers: {case}", head)
    if is_error or (head[9:10] > b"3"):
        search.look_at(f"errors: {case}", body)
    for line in body.split(b"\n"):
        if line.startswith(b'data: {"error"'):
            search.look_at(f"errors in streams: {case}", line)


SOME_S = 0.4
"""Answers have begun by then, and none has ended."""


async def exchange(where: Where, request: bytes, *, half_close: bool = False) -> bytes:
    """Sends a request on a connection of its own and reads until the connection ends; what came, cut or whole."""
    parts: list[bytes] = []
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(where.host, where.port, ssl=where.tls or None)
        try:
            writer.write(request)
            if half_close:
                await writer.drain()
                writer.write_eof()
            async with asyncio.timeout(ANSWER_S_MAX):
                while part := await reader.read(65_536):
                    parts.append(part)
        finally:
            writer.transport.abort()
    return b"".join(parts)


async def abandon(where: Where, request: bytes, mark: bytes) -> bytes:
    """Sends a request, waits until the answer holds `mark`, and leaves; what came until then."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(
            where.host, where.port, ssl=where.tls or None, limit=ANSWER_BYTES_MAX
        )
        try:
            writer.write(request)
            await writer.drain()
            async with asyncio.timeout(ANSWER_S_MAX):
                return await reader.readuntil(mark) if mark else b""
        except asyncio.IncompleteReadError as ended:
            return ended.partial
        finally:
            writer.transport.abort()
    return b""

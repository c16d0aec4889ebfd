"""A real `dragonfly serve` between raw clients and a scripted provider: a process, a database file, sockets."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.factories import PEPPER
from tests.fakes.upstream import FakeUpstream, Received, Script, answer, chunk, stream
from tests.http.rig import Answer, Client, post
from tests.system.program import Program, Running

MODEL = "acme/chat"
UPSTREAM_MODEL = "chat-v1"
PRICE_PROMPT, PRICE_COMPLETION = "1", "2"
"""USD per million tokens."""
USAGE = {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 40}
COST = "0.00005"
"""Of an answer with USAGE."""
OUTAGE_S = float(os.environ.get("OUTAGE_S", "2"))
"""How long tests keep the database away; some answers wait for it."""
WAIT_S = 60.0 + OUTAGE_S
UNLOCKED = '[privacy]\nlockdown = "off"\n'
"""For tests that look into the process: one that is locked down shows its descriptors to root only."""
DONE = b"data: [DONE]\n\n"

SETTINGS = """\
{top}
[server]
port = 0
shutdown_s = 2
{server}
[catalog]
builtin = false
[providers.acme]
base_url = "http://127.0.0.1:{port}/v1"
api_key = "{upstream_key}"
{acme}
[[models]]
id = "{model}"
context_tokens = 100_000
output_tokens_max = 50_000
channels = [{{ provider = "acme", model = "{upstream_model}", prices = [{{ prompt = "1", completion = "2" }}] }}]
{more}
"""


def event(content: str, finish_reason: str | None = None, **more: Any) -> bytes:
    """One chunk of a stream."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": UPSTREAM_MODEL, "choices": [choice]}
    return b"data: " + json.dumps({**body, **more}).encode() + b"\n\n"


def ending(**usage: Any) -> list[bytes]:
    """The last events of a good stream."""
    return [event("", "stop", usage={**USAGE, **usage}), DONE]


def whole(content: str = "Hi", **more: Any) -> bytes:
    """A good answer that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": UPSTREAM_MODEL, "choices": [choice]}
    return json.dumps({**body, "usage": USAGE, **more}).encode()


def well(request: Received) -> Script:
    """A provider without faults."""
    if json.loads(request.body).get("stream"):
        return stream([*(event(f"word {number} ") for number in range(20)), *ending()])
    return answer(200, whole())


def chat(**fields: Any) -> bytes:
    """A request's body."""
    values = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}
    return json.dumps({**values, **fields}).encode()


class PatientClient(Client):
    """Waits longer than a database's time-outs add up to. The end of the connection is an incomplete answer."""

    async def receive(self) -> Answer:
        async with asyncio.timeout(WAIT_S):
            while not self._done:
                data = await self.reader.read(65_536)
                if not data:
                    return Answer() if self.answer.complete else self.answer
                self._parser.feed_data(data)
        return self._done.pop(0)


class Served:
    """The process, its folder, and a customer with credit. `start` again after `kill`."""

    def __init__(self, program: Program, upstream: FakeUpstream, workers: int = 1) -> None:
        self.program = program
        self.upstream = upstream
        self.running: Running | None = None
        self.port = 0
        self.workers = workers
        self.key = ""
        """Of the customer who is there from the start."""
        self._accounts: dict[str, str] = {}
        self._clients: list[PatientClient] = []

    @property
    def database(self) -> Path:
        return self.program.folder / "data/dragonfly.db"

    @property
    def process_id(self) -> int:
        assert self.running is not None
        return self.running.process.pid

    def sockets(self) -> int:
        """Sockets that the process holds, listening ones included."""
        count = 0
        for link in Path(f"/proc/{self.process_id}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += os.readlink(link).startswith("socket:")
        return count

    def customer(self, credit: str = "10", *options: str) -> str:
        """The key of a new account."""
        account = self.program.run("account", "create", "Alice", *options).output.strip()
        if credit != "0":
            assert self.program.run("credit", "grant", account, credit).code == 0
        return self._key_of(account, "--requests-per-minute", "0")

    def another_key(self, *options: str) -> str:
        """A further key of the first customer."""
        return self._key_of(self._accounts[self.key], *options)

    def account_of(self, key: str) -> str:
        """The account that a key of ours belongs to."""
        return self._accounts[key]

    def _key_of(self, account: str, *options: str) -> str:
        created = self.program.run("key", "create", account, *options)
        assert created.code == 0, created.errors
        key = created.output.strip()
        self._accounts[key] = account
        return key

    async def connect(self) -> PatientClient:
        client = PatientClient(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))
        self._clients.append(client)
        return client

    async def send(self, request: bytes) -> Answer:
        """One request on a connection of its own; its answer."""
        client = await self.connect()
        try:
            client.send(request)
            return await client.receive()
        finally:
            client.close()

    async def ask(self, body: bytes | None = None, *, key: str = "", headers: tuple[str, ...] = ()) -> Answer:
        sent = post(chat() if body is None else body, key=(key or self.key).encode(), headers=headers)
        return await self.send(sent)

    async def begin(self, mark: bytes, *, key: str = "", **fields: Any) -> Client:
        """Starts a stream and waits until `mark` has come."""
        client = await self.connect()
        client.send(post(chat(stream=True, **fields), key=(key or self.key).encode()))
        await client.receive_until(mark)
        return client

    async def get(self, path: str, *, key: str = "") -> Answer:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key or self.key}\r\n\r\n"
        return await self.send(head.encode())

    async def credits(self, *, key: str = "") -> dict[str, Any]:
        return dict((await self.get("/v1/credits", key=key)).json()["data"])

    async def until_nothing_is_held(self, *, key: str = "") -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            while (found := await self.credits(key=key))["held"] != "0":
                await asyncio.sleep(0.05)
        return found

    async def until_ready(self, status: int) -> None:
        """Until /readyz answers with this status."""
        async with asyncio.timeout(WAIT_S):
            while (await self.get("/readyz")).status != status:
                await asyncio.sleep(0.05)

    def books_are_right(self) -> bool:
        return self.program.run("ledger", "verify").code == 0

    async def kill(self) -> None:
        """As the kernel does when memory runs out."""
        assert self.running is not None
        self.running.process.kill()
        await self.running.process.wait()

    @contextlib.asynccontextmanager
    async def another_node(self) -> AsyncIterator["Served"]:
        """A second installation on the same database, in a folder of its own; it knows the same customers."""
        with tempfile.TemporaryDirectory() as folder:
            program = Program(Path(folder))
            shutil.copy(self.program.folder / "dragonfly.toml", folder)
            node = Served(program, self.upstream, self.workers)
            node.key, node._accounts = self.key, self._accounts
            async with node.start():
                yield node

    @contextlib.asynccontextmanager
    async def start(self) -> AsyncIterator[None]:
        async with self.program.running("serve") as self.running:
            mark = '"started"' if self.workers == 1 else '"workers_ready"'
            self.port = json.loads(await self.running.until(mark, errors=True))["port"]
            try:
                yield
            finally:
                for client in self._clients:
                    client.close()
                self._clients.clear()


@contextlib.asynccontextmanager
async def served(
    program: Program,
    provider: Callable[[Received], Script] = well,
    *,
    upstream_key: str = "",
    url: str = "",
    workers: int = 1,
    **settings: str,
) -> AsyncIterator[Served]:
    """Serves with a customer who has 10 USD, on SQLite or the database at `url`. Further settings: lines for
    [server] (server=), for [providers.acme] (acme=), and behind all (more=)."""
    with FakeUpstream.in_thread(provider) as upstream:
        lines = {"server": "", "acme": "", "more": "", **settings}
        lines["server"] += f"\nworkers = {workers}"
        lines["top"] = f'key_pepper = "{PEPPER.decode()}"' + (f'\ndatabase_url = "{url}"' if url else "")
        text = SETTINGS.format(
            port=upstream.port, model=MODEL, upstream_model=UPSTREAM_MODEL, upstream_key=upstream_key, **lines
        )
        (program.folder / "dragonfly.toml").write_text(text)
        one = Served(program, upstream, workers)
        async with one.start():
            one.key = one.customer()
            yield one


def cost_of(answered: Answer) -> str:
    """`usage.cost` of an answer or a stream; "" when there is none."""
    found = re.search(rb'"cost":"([0-9.]+)"', answered.body)
    return found[1].decode() if found else ""


def http_chunks(*pieces: bytes) -> bytes:
    """Pieces of a chunked body in one go, without its end."""
    return b"".join(chunk(piece) for piece in pieces)

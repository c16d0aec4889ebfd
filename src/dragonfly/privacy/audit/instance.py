"""The audited instance: a real `dragonfly serve` in a folder of its own, with an account, credit and a key."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dragonfly.core.errors import DragonflyError
from dragonfly.core.secrets import key_id_of
from dragonfly.privacy.audit.provider import Ending

START_S_MAX = 60.0
STOP_S_MAX = 40.0
COMMAND_S_MAX = 60.0
LOOK_EVERY_S = 0.02
PROGRAM = (sys.executable, "-m", "dragonfly")

METRICS_TOKEN = "a-token-of-the-audit"
_HEAD = """\
[server]
port = 0
shutdown_s = 1
metrics_token = "{metrics_token}"
[limits]
client_stall_s = 2
[upstream]
attempts_max = 2
backoff_s = 0.01
backoff_max_s = 0.02
cooldown_s = 0.01
cooldown_max_s = 0.02
[catalog]
builtin = false
[privacy]
lockdown = "{lockdown}"
"""
_WAY = """\
[providers.{name}]
base_url = "http://127.0.0.1:{port}/v1"
api_key_file = "{credential}"
[providers.{name}.timeouts]
head_s = {patience_s}
idle_s = {patience_s}
[[models]]
id = "audit/{name}"
context_tokens = 2_000_000
output_tokens_max = 50_000
input_modalities = ["text", "image"]
channels = [{{ provider = "{name}", model = "{name}", prices = [{{ prompt = "1", completion = "2" }}] }}]
"""
PATIENCE_S, SHORT_PATIENCE_S = 20, 1
_LATE = (Ending.LATE_HEAD, Ending.LATE_REST)


class AuditFailed(DragonflyError):
    """The audit could not be done, so nothing is proven."""

    code = "audit_failed"


class Where(NamedTuple):
    """An address to ask."""

    host: str
    port: int
    tls: bool = False

    @property
    def authority(self) -> str:
        """As it stands in the header Host."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the instance is to be run."""

    folder: Path
    provider_port: int
    credential_file: Path
    """Holds the provider's key, a secret that must not be found either; lies outside the folder."""
    database_url: str = ""
    program: tuple[str, ...] = PROGRAM


class Instance:
    """The process while it runs; its standard streams go to files in the folder."""

    def __init__(self, wishes: Wishes) -> None:
        self.wishes = wishes
        self.port = 0
        self.process: asyncio.subprocess.Process | None = None
        self.key = ""
        self.poor_key = ""
        """Of an account without credit."""
        self.revoked_key = ""
        self.account_id = ""

    @property
    def data(self) -> Path:
        return self.wishes.folder / "data"

    @property
    def where(self) -> Where:
        return Where("127.0.0.1", self.port)

    def environment(self) -> Mapping[str, str]:
        """Everything that a program may be tempted to write to lies in the folder."""
        folder = self.wishes.folder
        places = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PATH": os.environ.get("PATH", "")}
        url = {"DRAGONFLY_DATABASE_URL": self.wishes.database_url} if self.wishes.database_url else {}
        return {**places, **url, "LANG": "C.UTF-8"}

    async def set_up(self) -> None:
        """Makes the folder, the database and the customers."""
        for name in ("home", "tmp"):
            (self.wishes.folder / name).mkdir()
        self.configure("off")
        await self.command("migrate")
        self.account_id = rich = (await self.command("account", "create", "Audit")).strip()
        poor = (await self.command("account", "create", "Without credit")).strip()
        await self.command("credit", "grant", rich, "1000")
        unlimited = ("--requests-per-minute", "0")
        self.key = (await self.command("key", "create", rich, *unlimited)).strip()
        self.poor_key = (await self.command("key", "create", poor)).strip()
        self.revoked_key = (await self.command("key", "create", rich)).strip()
        await self.command("key", "revoke", key_id_of(self.revoked_key))

    def configure(self, lockdown: str) -> None:
        """Writes the settings: one provider and one model for each ending."""
        wishes = self.wishes
        ways = [
            _WAY.format(
                name=ending.value,
                port=wishes.provider_port,
                credential=wishes.credential_file,
                patience_s=SHORT_PATIENCE_S if ending in _LATE else PATIENCE_S,
            )
            for ending in Ending
        ]
        (wishes.folder / "dragonfly.toml").write_text(
            _HEAD.format(lockdown=lockdown, metrics_token=METRICS_TOKEN) + "".join(ways)
        )

    async def command(self, *arguments: str) -> str:
        """Runs one command to its end; its output. AuditFailed when it is refused."""
        process = await asyncio.create_subprocess_exec(
            *self.wishes.program,
            *arguments,
            cwd=self.wishes.folder,
            env=self.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), COMMAND_S_MAX)
        except TimeoutError:
            process.kill()
            raise AuditFailed(f"dragonfly {arguments[0]} took longer than {COMMAND_S_MAX:g} s.") from None
        if process.returncode != 0:
            raise AuditFailed(f"dragonfly {' '.join(arguments[:2])} failed: {errors.decode(errors='replace')[:500]}")
        return output.decode()

    @contextlib.asynccontextmanager
    async def serving(self, *, lockdown: str) -> AsyncIterator[None]:
        """Serves until the end of the block; cores are allowed as far as the system allows them."""
        self.configure(lockdown)
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        log = self.wishes.folder / "log"
        before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as errors, (self.wishes.folder / "output").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.wishes.program,
                "serve",
                cwd=self.wishes.folder,
                env=self.environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
        try:
            self.port = await self._started(log, before)
            yield
        finally:
            await self.end(signal.SIGTERM)

    async def _started(self, log: Path, before: int) -> int:
        assert self.process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S_MAX):
                while self.process.returncode is None:
                    if port := _port_in(log, before):
                        return port
                    await asyncio.sleep(LOOK_EVERY_S)
        raise AuditFailed(f"The audited instance did not start. Its log ends with: {_end_of(log)}")

    async def end(self, number: signal.Signals) -> None:
        """Sends a signal, if it still runs, and waits for its end."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), STOP_S_MAX)
        except TimeoutError:
            process.kill()
            await process.wait()


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-500:]


def _port_in(log: Path, before: int) -> int:
    """The port that a start told of, after the first `before` bytes; 0 when there is none yet."""
    for line in log.read_bytes()[before:].splitlines():
        if b'"event":"started"' in line:
            return int(json.loads(line)["port"])
    return 0

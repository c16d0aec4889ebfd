"""Runs the `dragonfly` program in a folder and an environment of its own."""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from dragonfly.cli import main

START_S_MAX = 60.0
STOP_S_MAX = 10.0


@dataclass(frozen=True)
class Ended:
    """What one command did."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> object:
        return json.loads(self.output)


class Running:
    """A process that goes on until it is told to stop."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self.errors = ""

    async def until(self, mark: str, *, errors: bool = False) -> str:
        """Reads lines until one holds `mark`; returns that line. Fails with what was said when the process ends."""
        stream = self.process.stderr if errors else self.process.stdout
        assert stream is not None
        async with asyncio.timeout(START_S_MAX):
            while line := (await stream.readline()).decode():
                if errors:
                    self.errors += line
                else:
                    self.output += line
                if mark in line:
                    return line
        _, rest = await self.process.communicate()
        raise AssertionError(f"ended without {mark!r}: {self.output}{self.errors}{rest.decode()}")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal and waits for the end, as long as the contract allows; returns the exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(STOP_S_MAX):
            output, errors = await self.process.communicate()
        self.output += output.decode()
        self.errors += errors.decode()
        assert self.process.returncode is not None
        return self.process.returncode


@dataclass(frozen=True)
class Program:
    """The program, working in `folder` without anything of the caller's environment but the path."""

    folder: Path
    python: str = sys.executable

    def environment(self, **variables: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", "TERM": "dumb", **variables}

    def run(self, *arguments: str, **variables: str) -> Ended:
        """One command to its end, inside this process: starting an interpreter for each takes a second."""
        output, errors = io.StringIO(), io.StringIO()
        with (
            self._here(["dragonfly", *arguments], variables),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            try:
                main()
            except SystemExit as end:
                code = end.code
        assert isinstance(code, int)
        assert "Traceback" not in errors.getvalue(), errors.getvalue()
        return Ended(code, output.getvalue(), errors.getvalue())

    @contextlib.asynccontextmanager
    async def running(self, *arguments: str, **variables: str) -> AsyncIterator["Running"]:
        """A process of its own, gone at the end."""
        process = await asyncio.create_subprocess_exec(
            self.python,
            "-m",
            "dragonfly",
            *arguments,
            cwd=self.folder,
            env=self.environment(**variables),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield Running(process)
        finally:
            if process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.communicate(), STOP_S_MAX)
            if process.returncode is None:
                process.kill()
                await process.wait()

    @contextlib.contextmanager
    def _here(self, arguments: list[str], variables: dict[str, str]) -> Iterator[None]:
        environment = mock.patch.dict(os.environ, self.environment(**variables), clear=True)
        with environment, mock.patch.object(sys, "argv", arguments), contextlib.chdir(self.folder):
            yield

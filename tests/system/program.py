"""Runs the `dragonfly` program in a folder and an environment of its own."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from dragonfly.cli import main


@dataclass(frozen=True)
class Ended:
    """What one command did."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> object:
        return json.loads(self.output)


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

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """A process of its own; its standard output and error are pipes."""
        return subprocess.Popen(
            [self.python, "-m", "dragonfly", *arguments],
            cwd=self.folder,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextlib.contextmanager
    def _here(self, arguments: list[str], variables: dict[str, str]) -> Iterator[None]:
        environment = mock.patch.dict(os.environ, self.environment(**variables), clear=True)
        with environment, mock.patch.object(sys, "argv", arguments), contextlib.chdir(self.folder):
            yield

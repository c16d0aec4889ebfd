"""Starting, awaiting and ending the processes of the benchmark; only processes started here are ever ended."""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httptools

from bench.modes import mode_of
from bench.prompts import Target, request
from bench.verify import Verdict, judge

_PR_SET_PDEATHSIG = 1
STOP_TIMEOUT_S = 10.0
PROBE_PAUSE_S = 0.005
DESCRIPTORS = 65_536
LOG_TAIL_BYTES = 600
ANSWER_BYTES_MAX = 64 * 1024 * 1024


class NotRunning(RuntimeError):
    """A comparator could not be started or did not answer correctly; the text says how."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a comparator runs: its folder, the programs, the mock and the cores."""

    folder: Path
    programs: Path
    """The benchmark's own virtual environment."""
    mock_port: int
    port: int
    gateway_core: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a comparator and how to speak to it."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    """0: the program prints its port as the last word of the first line on standard output."""
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    model_prefix: str = ""
    fixed_model: str = ""
    ready_timeout_s: float = 30.0
    configuration: Mapping[str, str] = field(default_factory=dict)
    """File name or setting to its text, as published with the result."""


def installed_folder(site: Site, package: str) -> Path:
    """The folder of a package in the benchmark's virtual environment."""
    found = next(site.programs.glob(f"lib/python*/site-packages/{package}"), None)
    if found is None:
        raise NotRunning("its package is not installed")
    return found


def raise_descriptor_limit() -> int:
    """As many open files as may be had, up to DESCRIPTORS; the number in force."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (DESCRIPTORS, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except (ValueError, OSError):
            continue
        return wanted
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _settle_in(core: int, prctl: Callable[[int, int], int]) -> None:
    """In the new process: one core only, and no life after the benchmark's own end."""
    os.sched_setaffinity(0, {core})
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def start(
    arguments: tuple[str, ...], environment: Mapping[str, str], folder: Path, core: int
) -> subprocess.Popen[bytes]:
    """Start a program in its own session, pinned to one core, its output in `folder`/output."""
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    output = (folder / "output").open("wb")
    with output:
        return subprocess.Popen(
            arguments,
            cwd=folder,
            env={**inherited, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(_settle_in, core, ctypes.CDLL(None).prctl),
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program that `start` started, and what it started in its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Running:
    """A program that has answered correctly."""

    target: Target
    process: subprocess.Popen[bytes]
    folder: Path
    first_answer_s: float
    """From its start to its first correct answer."""
    verdict: Verdict

    def ended(self) -> str:
        """How it has ended, though nobody asked it to; "" while it runs."""
        status = self.process.poll()
        return "" if status is None else f"ended by itself with status {status}: {log_tail(self.folder)}"


@contextlib.contextmanager
def mock_upstream(port: int, folder: Path, core: int, *, certificate: Path | None = None) -> Iterator[Running]:
    """The mock upstream as a process on its core; its target is the direct path (no CPU time is taken of it).

    With a certificate it speaks TLS, and nobody asks it before it is handed out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parent.parent
    tls = ("--certificate", str(certificate)) if certificate else ()
    arguments = (sys.executable, "-m", "bench.mock", "--port", str(port), *tls)
    process = start(arguments, {"PYTHONPATH": str(root)}, folder, core)
    target = Target("direct", "127.0.0.1", port)
    started_s = time.monotonic()
    try:
        verdict = Verdict.EXACT
        if certificate is None:
            verdict = await_answer(target, process, folder, timeout_s=10.0)
        yield Running(target, process, folder, time.monotonic() - started_s, verdict)
    finally:
        stop(process)


@contextlib.contextmanager
def running(name: str, launch: Launch, site: Site) -> Iterator[Running]:
    """Start a comparator, wait for its first correct answer, and end it afterwards."""
    started_s = time.monotonic()
    process = start(launch.arguments, launch.environment, site.folder, site.gateway_core)
    try:
        port = launch.port or announced_port(process, site.folder, launch.ready_timeout_s)
        target = Target(
            name,
            "127.0.0.1",
            port,
            path=launch.path,
            headers=launch.headers,
            model_prefix=launch.model_prefix,
            fixed_model=launch.fixed_model,
            pid=process.pid,
        )
        verdict = await_answer(target, process, site.folder, timeout_s=launch.ready_timeout_s)
        yield Running(target, process, site.folder, time.monotonic() - started_s, verdict)
    finally:
        stop(process)


def announced_port(process: subprocess.Popen[bytes], folder: Path, timeout_s: float) -> int:
    """The port that a program prints as `listening on PORT`."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        for line in (folder / "output").read_text(errors="replace").splitlines():
            if line.startswith("listening on "):
                return int(line.split()[-1])
        if process.poll() is not None:
            raise NotRunning(f"ended with status {process.returncode}: {log_tail(folder)}")
        time.sleep(PROBE_PAUSE_S)
    raise NotRunning(f"announced no port within {timeout_s:.0f} s: {log_tail(folder)}")


def await_answer(target: Target, process: subprocess.Popen[bytes], folder: Path, *, timeout_s: float) -> Verdict:
    """Ask until the first correct answer; NotRunning when the time is over or the program has ended."""
    deadline_s = time.monotonic() + timeout_s
    trouble = "no connection"
    while time.monotonic() < deadline_s:
        try:
            return answered(target, "bench-json-230", timeout_s=max(0.1, deadline_s - time.monotonic()))
        except (OSError, NotRunning) as error:
            trouble = str(error) or type(error).__name__
        if process.poll() is not None:
            raise NotRunning(f"ended with status {process.returncode}: {log_tail(folder)}")
        time.sleep(PROBE_PAUSE_S)
    raise NotRunning(f"no correct answer within {timeout_s:.0f} s ({trouble}): {log_tail(folder)}")


def log_tail(folder: Path) -> str:
    """The end of a program's output, on one line, its folder's path left out."""
    text = (folder / "output").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
    return " | ".join(text.replace(str(folder), "FOLDER").split("\n")[-5:]).strip()


class _Reply:
    """Collects one answer for llhttp."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data
        assert len(self.body) <= ANSWER_BYTES_MAX

    def on_message_complete(self) -> None:
        self.complete = True


def answered(target: Target, mode: str, *, timeout_s: float) -> Verdict:
    """Ask once over a fresh blocking connection; NotRunning unless the answer is correct."""
    reply = _Reply()
    parser = httptools.HttpResponseParser(reply)
    with socket.create_connection((target.host, target.port), timeout_s) as connection:
        connection.sendall(request(target, mode))
        while not reply.complete:
            data = connection.recv(65_536)
            if not data:
                raise NotRunning("closed before the end of the answer")
            try:
                parser.feed_data(data)
            except httptools.HttpParserError:
                raise NotRunning("the answer is not HTTP") from None
    if parser.get_status_code() != 200:
        raise NotRunning(f"status {parser.get_status_code()}")
    verdict = judge(mode_of(mode), reply.body)
    if verdict is Verdict.WRONG:
        raise NotRunning("the answer is not what the mock sent")
    return verdict

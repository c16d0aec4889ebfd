"""A process that is locked down cannot write elsewhere, start programs, be dumped or be read; nor can `serve`."""

import asyncio
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.program import Program
from tests.system.served import chat, served

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
PROCESS = Path(__file__).with_name("walled_process.py")
ROOT = PROCESS.parents[2]
NOBODY = 65_534
LANDLOCK_CREATE_RULESET = 444


def landlock_version() -> int:
    if sys.platform != "linux":
        return 0
    return int(ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))


needs_landlock = pytest.mark.skipif(landlock_version() < 6, reason="this kernel has no Landlock, or an old one")


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "there").write_text("something")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def try_to(what: str, folder: Path, port: int) -> str:
    command = [sys.executable, str(PROCESS), what, str(folder), str(port)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout.strip()


@needs_landlock
@pytest.mark.parametrize("what", ["write_inside", "connect"])
def test_what_is_needed_stays_possible(folder: Path, port: int, what: str) -> None:
    assert try_to(what, folder, port) == "done"


@needs_landlock
@pytest.mark.parametrize(
    "what",
    [
        "write_outside",
        "overwrite_outside",
        "shorten_outside",
        "link_outside",
        "write_in_a_later_thread",
        "run_a_program",
        "run_a_program_in_a_child",
        "connect_elsewhere",
        "listen",
        "signal_the_parent",
    ],
)
def test_what_is_not_needed_is_refused(folder: Path, port: int, what: str) -> None:
    assert try_to(what, folder, port) == "refused"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["data", "there"]
    assert (folder.parent / "there").read_text() == "something"


def test_walls_that_would_not_hold_for_a_thread_are_not_claimed(folder: Path, port: int) -> None:
    assert "one_thread" in try_to("lock_down_with_two_threads", folder, port)


def reading_of(what: str, port: int) -> int:
    """How another process of the same user fares that looks at the memory of the waiting one; 0: well."""
    command = [sys.executable, str(PROCESS), what, tempfile.gettempdir(), str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waiting:
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"waiting\n"
        attempt = ["head", "-c1", f"/proc/{waiting.pid}/maps"]
        other = subprocess.run(attempt, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False)
        waiting.stdin.close()
        assert waiting.wait(20) == 0
    return other.returncode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@needs_landlock
def test_another_process_of_the_same_user_cannot_read_its_memory(port: int) -> None:
    assert reading_of("wait_unlocked", port) == 0, "else this proves nothing"
    assert reading_of("wait", port) != 0


def said_of(process_id: int, name: str) -> str:
    return Path(f"/proc/{process_id}/{name}").read_text()


async def test_a_serving_process_is_locked_down_before_its_first_request(program: Program) -> None:
    async with served(program) as one:
        status, limits = said_of(one.process_id, "status"), said_of(one.process_id, "limits")
        assert "NoNewPrivs:\t1" in status
        (cores,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert cores.split()[4:6] == ["0", "0"]
        assert (await one.ask()).status == 200
        assert one.running is not None
        said = one.running.errors
        if landlock_version() >= 4:
            assert json.loads(said.splitlines()[0])["event"] == "locked_down"
            assert said.index("locked_down") < said.index('"started"')


async def test_a_serving_process_that_aborts_leaves_no_core(program: Program) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    if before[1] == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        async with served(program) as one:
            stream = await one.begin(b"word 1")
            assert one.running is not None
            one.running.process.send_signal(signal.SIGABRT)
            assert await asyncio.wait_for(one.running.process.wait(), 20) == -signal.SIGABRT
            stream.close()
        assert not [path for path in program.folder.rglob("*") if path.name.startswith("core")]
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (before[0], before[1]))


WITHOUT_LANDLOCK = f"""
import ctypes, os, struct, sys
step = lambda code, yes, no, value: struct.pack("HBBI", code, yes, no, value)
program = b"".join([
    step(0x20, 0, 0, 0),
    step(0x15, 0, 1, {LANDLOCK_CREATE_RULESET}),
    step(0x06, 0, 0, 0x00050000 | 38),
    step(0x06, 0, 0, 0x7FFF0000),
])
steps = ctypes.create_string_buffer(program)
head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(steps)))
library = ctypes.CDLL(None)
assert library.prctl(38, 1, 0, 0, 0) == 0
assert library.prctl(22, 2, head, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "dragonfly", "serve"])
"""
"""Starts `dragonfly serve` where the kernel answers Landlock's first call as one that does not know it."""


async def start_without_landlock(program: Program, demand: str) -> asyncio.subprocess.Process:
    (program.folder / "dragonfly.toml").write_text(
        f'[server]\nport = 0\n[catalog]\nbuiltin = false\n[privacy]\nlockdown = "{demand}"\n'
    )
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WITHOUT_LANDLOCK,
        cwd=program.folder,
        env=program.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_start_that_demands_the_lockdown_fails_where_it_is_not_available(program: Program) -> None:
    process = await start_without_landlock(program, "required")
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 3
    assert b"cannot provide: landlock" in errors
    assert b'"started"' not in output + errors


async def test_a_start_that_does_not_demand_it_says_what_is_missing(program: Program) -> None:
    process = await start_without_landlock(program, "available")
    assert process.stderr is not None
    said = []
    async with asyncio.timeout(30):
        while not said or said[-1]["event"] != "started":
            said.append(json.loads(await process.stderr.readline()))
    process.terminate()
    await asyncio.wait_for(process.communicate(), 20)
    assert said[0]["event"] == "lockdown_incomplete"
    assert said[0]["missing"] == ["landlock"]


async def test_a_lockdown_that_is_switched_off_is_told_of(program: Program) -> None:
    async with served(program, more='[privacy]\nlockdown = "off"\n') as one:
        assert (await one.ask(chat())).status == 200
        assert one.running is not None
        assert json.loads(one.running.errors.splitlines()[0])["missing"] == ["everything"]

"""What the kernel sees: no write to a file holds a word of a request or of an answer, not even for a moment."""

import asyncio
import dataclasses
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from dragonfly.privacy.audit.instance import PROGRAM, Instance, Wishes
from dragonfly.privacy.audit.matrix import Canaries, Drive, Driven
from dragonfly.privacy.audit.needles import needles_for
from dragonfly.privacy.audit.places import Search
from dragonfly.privacy.audit.provider import EchoingProvider

STRACE = shutil.which("strace")
CALLS = "write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,splice,ftruncate"
TO_A_FILE = re.compile(r"^\d+ +\w+\(\d+</(?!dev/)")
WAIT_S = 60.0


async def traced(trace: Path) -> str:
    """The whole trace, once the tracer has seen the end."""
    async with asyncio.timeout(WAIT_S):
        while "+++ exited with" not in (text := trace.read_text(errors="replace"))[-20_000:]:  # noqa: ASYNC240
            await asyncio.sleep(0.05)
    return text


@pytest.mark.slow
@pytest.mark.skipif(STRACE is None or sys.platform != "linux", reason="there is no strace")
async def test_no_write_to_a_file_holds_a_word_of_a_request_or_an_answer(tmp_path: Path) -> None:
    trace, work = tmp_path / "trace", tmp_path / "work"
    work.mkdir()
    (tmp_path / "credential").write_text("a-credential-of-nobody")
    canaries = Canaries()
    search = Search((("canary", needles_for(canaries.run)),))
    async with EchoingProvider() as provider:
        instance = Instance(Wishes(work, provider.port, tmp_path / "credential"))
        await instance.set_up()
        tracer = (str(STRACE), "-D", "-f", "-yy", "-s", "1000000", "-e", f"trace={CALLS}", "-o", str(trace))
        instance.wishes = dataclasses.replace(instance.wishes, program=(*tracer, *PROGRAM))
        async with instance.serving(lockdown="available"):
            drive = Drive(instance, canaries, search, Driven(), is_reduced=True)
            await drive.endings()
            await drive.refusals()
            await instance.end(signal.SIGTERM)
        lines = (await traced(trace)).splitlines()
    holding = [line for line in lines if canaries.run in line]
    assert [line[:200] for line in holding if TO_A_FILE.match(line)] == []
    assert any("<TCP" in line[:60] for line in holding), "else the trace saw nothing"
    assert any(TO_A_FILE.match(line) for line in lines), "else the trace knows no files"

"""Load beside which something else is measured, in a process of its own: `python -m bench.background` < order."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvloop

from bench.closed import closed_loop
from bench.modes import JSON_SMALL, STREAM_LONG
from bench.prompts import Target
from bench.streams import whole_streams

READY_TIMEOUT_S = 30.0
END_TIMEOUT_S = 60.0


class Order(msgspec.Struct, frozen=True):
    """What to do and for how long. `streams` of STREAM_LONG (7 s); or `connections` sending prompts."""

    target: Target
    seconds: float
    streams: int = 0
    connections: int = 0
    prompt_bytes: int = 0


async def carry_out(order: Order) -> None:
    """Run the load until its time is over; the exit status says whether all answers were right."""
    if order.streams:
        (await whole_streams(order.target, STREAM_LONG, count=order.streams)).accept()
        return
    window = await closed_loop(
        order.target,
        JSON_SMALL,
        connections=order.connections,
        seconds=order.seconds,
        warm_s=0.1,
        prompt_bytes=order.prompt_bytes,
    )
    window.accept()


@contextmanager
def background(order: Order) -> Iterator[subprocess.Popen[bytes]]:
    """Run an order in a process beside this one, on the same core; it is waited for at the end."""
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(
        (sys.executable, "-m", "bench.background"), cwd=root, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(order))
    process.stdin.close()
    try:
        yield process
    finally:
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


async def _main() -> None:
    order = msgspec.json.decode(await asyncio.to_thread(sys.stdin.buffer.read), type=Order)
    await carry_out(order)


if __name__ == "__main__":
    uvloop.run(_main())

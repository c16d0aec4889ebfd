"""The pool on real sockets, on both event loops: reuse, bounds, dialling, and what providers do to connections."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from dragonfly.providers.channel import Channel, Origin
from dragonfly.providers.connection import BrokenKind, Connection
from dragonfly.providers.pool import Pool, PoolLimits, UnreachableKind, UpstreamUnreachable
from tests.fakes.calls import Collector, MovedClock, call, channel_to, new_pool, start_call
from tests.fakes.upstream import (
    Close,
    FakeUpstream,
    Gate,
    HalfClose,
    Received,
    Reset,
    Script,
    Send,
    Split,
    Stall,
    WaitFor,
    answer,
    chunk,
    cut,
    stream,
)

BOTH_LOOPS = True
OK = answer(200, b"{}")
LIMITS = PoolLimits(idle_connections_max=64, connections_max=100, dials_max=8, idle_s=30.0)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    running = new_pool()
    yield running
    await running.close()
    assert running.open_connections == 0


@asynccontextmanager
async def serving(*scripts: Script) -> AsyncIterator[tuple[FakeUpstream, Channel]]:
    async with FakeUpstream(list(scripts)) as upstream:
        yield upstream, channel_to(upstream.port)


async def test_one_connection_serves_many_requests_and_the_provider_gets_them_whole(pool: Pool) -> None:
    async with serving(OK) as (upstream, channel):
        for number in range(20):
            assert (await call(pool, channel, b'{"n":%d}' % number)).body == b"{}"
        assert upstream.connections == 1
        assert [one.body for one in upstream.requests] == [b'{"n":%d}' % number for number in range(20)]
        assert pool.open_connections == pool.idle_connections(channel.origin) == 1


async def test_a_large_body_arrives_whole(pool: Pool) -> None:
    body = bytes(range(256)) * 40_000
    async with serving(OK) as (upstream, channel):
        assert (await call(pool, channel, body)).end == "end"
        assert upstream.requests[0].body == body


async def test_the_warmest_connection_is_taken_first(pool: Pool) -> None:
    async with serving(OK) as (_, channel):
        connections = [await pool.dial(channel) for _ in range(3)]
        for connection in connections:
            collector = Collector()
            connection.send(collector, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            await collector.ended()
        assert [pool.take(channel) for _ in range(4)] == [*reversed(connections), None]


async def test_only_so_many_connections_stay_idle() -> None:
    pool = new_pool(idle_connections_max=2)
    gate = Gate()
    async with serving([WaitFor(gate), *OK]) as (upstream, channel):
        calls = [await start_call(pool, channel) for _ in range(5)]
        gate.open()
        for _, collector in calls:
            await collector.ended()
        assert pool.idle_connections(channel.origin) == 2
        await upstream.until_left(3)
    await pool.close()


async def test_open_connections_are_bounded_and_a_place_becomes_free_again() -> None:
    pool = new_pool(connections_max=2)
    async with serving([Stall()]) as (upstream, channel):
        calls = [await start_call(pool, channel) for _ in range(2)]
        with pytest.raises(UpstreamUnreachable) as caught:
            await pool.dial(channel)
        assert caught.value.kind is UnreachableKind.BUSY
        calls[0][0].abort()
        await start_call(pool, channel)
        await upstream.received(3)
    await pool.close()


async def test_dials_at_the_same_time_are_bounded_and_all_are_served() -> None:
    pool = new_pool(dials_max=2)
    async with serving(OK) as (_, channel):
        calls = await asyncio.gather(*(call(pool, channel) for _ in range(20)))
        assert [one.body for one in calls] == [b"{}"] * 20
    await pool.close()


async def test_two_origins_share_nothing(pool: Pool) -> None:
    async with serving(OK) as (first, one), serving(OK) as (second, other):
        await call(pool, one)
        await call(pool, other)
        assert (first.connections, second.connections) == (1, 1)
        assert pool.idle_connections(one.origin) == pool.idle_connections(other.origin) == 1


async def test_two_channels_of_one_origin_share_its_connections_and_keep_their_own_timeouts(pool: Pool) -> None:
    async with serving(OK) as (upstream, channel):
        patient = channel_to(upstream.port, head_s=99.0)
        await call(pool, channel)
        connection = pool.take(patient)
        assert connection is not None
        assert connection.timeouts.head_s == 99.0


async def test_nodelay_is_set(pool: Pool) -> None:
    async with serving(OK) as (_, channel):
        connection = await pool.dial(channel)
        assert connection.transport is not None
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_the_system_probes_silent_connections(pool: Pool) -> None:
    async with serving(OK) as (_, channel):
        connection = await pool.dial(channel)
        assert connection.transport is not None
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


async def test_nobody_listening_is_refused(pool: Pool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        channel = channel_to(taken.getsockname()[1])
        with pytest.raises(UpstreamUnreachable) as caught:
            await pool.dial(channel)
    assert caught.value.kind is UnreachableKind.REFUSED
    assert caught.value.__cause__ is None
    assert str(channel.origin.port) not in str(caught.value)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
async def test_a_name_without_an_address_is_told_as_such(pool: Pool, host: str) -> None:
    with pytest.raises(UpstreamUnreachable) as caught:
        await pool.dial(channel_to(443, host=host))
    assert caught.value.kind is UnreachableKind.NAME


async def test_a_dial_that_takes_too_long_ends_and_leaks_nothing(pool: Pool) -> None:
    # A listening socket whose queue is full: the system answers no further SYN.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        channel = channel_to(full.getsockname()[1], connect_s=0.2)
        with pytest.raises(UpstreamUnreachable) as caught:
            await pool.dial(channel)
        for filler in fillers:
            filler.close()
    assert caught.value.kind is UnreachableKind.TIMEOUT
    assert pool.open_connections == 0


async def test_a_cancelled_dial_gives_its_place_back() -> None:
    pool = new_pool(connections_max=1)
    async with serving(OK) as (_, channel):
        task = asyncio.create_task(pool.dial(channel))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await call(pool, channel)).end == "end"
    await pool.close()


async def test_an_idle_connection_that_the_provider_closes_is_never_handed_out(pool: Pool) -> None:
    gate = Gate()
    async with serving([*OK, WaitFor(gate), Close()]) as (upstream, channel):
        await call(pool, channel)
        assert pool.idle_connections(channel.origin) == 1
        gate.open()
        await upstream.until(lambda: upstream.open_connections == 0)
        await until(lambda: pool.open_connections == 0)
        assert pool.take(channel) is None


async def test_an_idle_connection_that_the_provider_half_closes_is_never_handed_out(pool: Pool) -> None:
    gate = Gate()
    async with serving([*OK, WaitFor(gate), HalfClose(), Stall()]) as (upstream, channel):
        await call(pool, channel)
        gate.open()
        await upstream.until_left()
        assert pool.take(channel) is None


async def test_an_idle_connection_on_which_something_arrives_is_closed(pool: Pool) -> None:
    gate = Gate()
    forged = Send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    async with serving([*OK, WaitFor(gate), forged, Stall()], OK) as (upstream, channel):
        await call(pool, channel)
        gate.open()
        await upstream.until_left()
        assert (await call(pool, channel)).body == b"{}"


async def test_a_request_that_crosses_the_providers_close_is_stale(pool: Pool) -> None:
    async with serving(OK, [Close()], OK) as (_, channel):
        await call(pool, channel)
        assert (await call(pool, channel)).end is BrokenKind.STALE
        assert (await call(pool, channel)).end == "end"


async def test_a_first_request_that_is_closed_or_reset_is_no_stale_connection(pool: Pool) -> None:
    async with serving([Close()], [Reset()]) as (_, channel):
        assert (await call(pool, channel)).end is BrokenKind.RESET
        assert (await call(pool, channel)).end is BrokenKind.RESET


@pytest.mark.parametrize("end", [Close(), Reset()])
async def test_an_answer_cut_inside_its_body_is_cut(pool: Pool, end: Close | Reset) -> None:
    script = cut(stream([b"data: a\n\n", b"data: b\n\n"]), at_byte=120, end=end)
    gate = Gate()
    async with serving([script[0], WaitFor(gate), end]) as (_, channel):
        _, collector = await start_call(pool, channel)
        await collector.has_read(1)
        gate.open()
        assert await collector.ended() is BrokenKind.CUT
        assert pool.open_connections == 0


async def test_a_stream_in_single_bytes_is_whole(pool: Pool) -> None:
    data = b"".join(step.data for step in stream([b"data: a\n\n", b"data: b\n\n"]) if isinstance(step, Send))
    async with serving([Split(data)]) as (_, channel):
        collector = await call(pool, channel)
        assert (collector.body, collector.end) == (b"data: a\n\ndata: b\n\n", "end")


async def test_a_body_that_lasts_until_the_close_is_whole(pool: Pool) -> None:
    async with serving([Send(b"HTTP/1.1 200 OK\r\n\r\nabc"), Close()]) as (_, channel):
        collector = await call(pool, channel)
        assert (collector.body, collector.end) == (b"abc", "end")
        assert pool.open_connections == 0


async def test_aborting_tells_the_provider_at_once(pool: Pool) -> None:
    async with serving([Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), Stall()]) as (upstream, channel):
        connection, collector = await start_call(pool, channel)
        await collector.has_read(3)
        connection.abort()
        await upstream.until_left()
        assert collector.end is None
        assert collector.calls == ["response", "bytes"]


async def test_a_paused_reader_holds_the_provider_back(pool: Pool) -> None:
    # Far more than kernel buffers take: unless the reader is paused for good, all of it would be read.
    piece = b"x" * 65_536
    pieces = 512
    done = Gate()
    script = [*stream([piece] * pieces), WaitFor(done)]
    async with FakeUpstream([script], send_buffer=65_536) as upstream:
        connection, collector = await start_call(pool, channel_to(upstream.port))
        await collector.has_read(1)
        connection.pause_reading()
        held = len(collector.body)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(collector.body) <= held + 2 * 1024 * 1024
        assert collector.end is None
        connection.resume_reading()
        assert await collector.ended() == "end"
        assert len(collector.body) == pieces * len(piece)
        done.open()


async def test_deadlines_are_kept_by_the_sweep_alone() -> None:
    clock = MovedClock()
    pool = Pool(limits=LIMITS, clock=clock)
    answering = [Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), Stall()]
    async with serving([Stall()], answering) as (upstream, _):
        channel = channel_to(upstream.port, head_s=600.0, idle_s=120.0)
        _, silent = await start_call(pool, channel)
        await upstream.received(1)
        _, begun = await start_call(pool, channel)
        await begun.has_read(3)
        pool.sweep()
        clock.at_s += 119.0
        pool.sweep()
        assert (silent.end, begun.end) == (None, None)
        clock.at_s += 2.0
        pool.sweep()
        assert (silent.end, begun.end) == (None, BrokenKind.TIMEOUT)
        clock.at_s += 500.0
        pool.sweep()
        assert silent.end is BrokenKind.TIMEOUT
        await upstream.until_left(2)
    await pool.close()


async def test_the_sweep_runs_by_itself_and_rests_without_connections() -> None:
    clock = MovedClock()
    pool = Pool(limits=LIMITS, clock=clock, sweep_s=0.01)
    async with serving(OK) as (upstream, channel):
        await call(pool, channel)
        while not upstream.departures:
            clock.at_s += LIMITS.idle_s  # silence is measured from sweep to sweep
            await asyncio.sleep(0.01)
        assert pool.open_connections == 0
        await call(pool, channel)
        assert pool.idle_connections(channel.origin) == 1
    await pool.close()


async def test_closing_breaks_what_runs_and_refuses_what_comes(pool: Pool) -> None:
    async with serving([Stall()]) as (upstream, channel):
        _, collector = await start_call(pool, channel)
        await upstream.received()
        await pool.close()
        assert collector.end is BrokenKind.RESET
        with pytest.raises(UpstreamUnreachable) as caught:
            await pool.dial(channel)
        assert caught.value.kind is UnreachableKind.CLOSED


async def test_a_dial_under_way_while_the_pool_closes_leaves_no_connection() -> None:
    pool = new_pool()
    async with serving(OK) as (_, channel):
        task = asyncio.create_task(pool.dial(channel))
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(UpstreamUnreachable):
            await task
        await until(lambda: pool.open_connections == 0)


def living_connections() -> int:
    return sum(isinstance(one, Connection) for one in gc.get_objects())


async def test_closed_connections_are_freed_without_the_cycle_collector(pool: Pool) -> None:
    async with serving([Close()]) as (_, channel):
        gc.collect()
        before = living_connections()
        gc.disable()
        try:
            await call(pool, channel)
            await until(lambda: pool.open_connections == 0)
            await until(lambda: living_connections() == before)
        finally:
            gc.enable()


async def test_an_origin_is_known_again_under_a_channel_that_was_replaced(pool: Pool) -> None:
    async with serving(OK) as (first, channel), serving(OK) as (second, _):
        await call(pool, channel)
        moved = Channel(
            **{name: getattr(channel, name) for name in Channel.__slots__ if name != "origin"},
            origin=Origin(second.host, second.port, tls=False),
        )
        assert (await call(pool, moved)).end == "end"
        assert (first.connections, second.connections) == (1, 1)


async def test_a_provider_that_answers_by_request_can_be_scripted(pool: Pool) -> None:
    def mirror(request: Received) -> Script:
        return answer(200, request.body)

    async with FakeUpstream(mirror) as upstream:
        assert (await call(pool, channel_to(upstream.port), b"abc")).body == b"abc"


async def test_a_second_answer_in_the_read_of_the_first_is_not_served(pool: Pool) -> None:
    twice = [Send(OK[0].data + OK[0].data)] if isinstance(OK[0], Send) else []
    async with serving(twice, answer(200, b"second")) as (upstream, channel):
        assert (await call(pool, channel)).body == b"{}"
        assert (await call(pool, channel)).body == b"second"
        assert upstream.connections == 2


async def test_chunks_are_decoded_wherever_the_socket_cuts_them(pool: Pool) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"abc") + chunk(b"de") + chunk(b"")
    for position in range(1, len(data), 7):
        async with serving([Split(data, [position])]) as (_, channel):
            assert (await call(pool, channel)).body == b"abcde"


async def until(condition: Callable[[], bool]) -> None:
    """Turns the loop until a condition on the pool holds, bounded."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def test_a_connection_carries_no_dict(pool: Pool) -> None:
    async with serving(OK) as (_, channel):
        assert not hasattr(await pool.dial(channel), "__dict__")

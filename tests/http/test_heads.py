"""What the lane accepts as a request, and what it refuses, byte by byte."""

import asyncio
import json
import socket

import pytest

from dragonfly.gateway.receiving import PIPELINE_MAX
from dragonfly.settings import LimitSettings
from tests.fakes.purse import KEY
from tests.fakes.upstream import answer
from tests.http.rig import Rig, chat_body, post

WHOLE = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "deepseek-v4-flash",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()
BODY = chat_body()
START = b"POST /v1/chat/completions HTTP/1.1\r\n"
AUTH = b"Authorization: Bearer " + KEY + b"\r\n"
JSON_TYPE = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


def rig(**options: object) -> Rig:
    return Rig([answer(200, WHOLE)], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "head", "status"),
    [
        ("content-length with transfer-encoding", b"Host: a\r\nTransfer-Encoding: chunked\r\n" + LENGTH, 400),
        ("two different lengths", b"Host: a\r\n" + LENGTH + b"Content-Length: 5\r\n", 400),
        ("the same length twice", b"Host: a\r\n" + LENGTH + LENGTH, 400),
        ("chunked twice", b"Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("gzip before chunked", b"Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", 400),
        ("an unknown coding", b"Host: a\r\nTransfer-Encoding: x\r\n", 400),
        ("no host", LENGTH, 400),
        ("two hosts", b"Host: a\r\nHost: b\r\n" + LENGTH, 400),
        ("the same host twice", b"Host: a\r\nHost: a\r\n" + LENGTH, 400),
        ("an invalid host", b"Host: a b\r\n" + LENGTH, 400),
        ("a host with a path", b"Host: a/b\r\n" + LENGTH, 400),
        ("a folded header", b"Host: a\r\nX-A: b\r\n c\r\n" + LENGTH, 400),
        ("two keys", b"Host: a\r\n" + AUTH + LENGTH, 400),
        ("a space before the colon", b"Host: a\r\nX-A : b\r\n" + LENGTH, 400),
        ("a NUL in a value", b"Host: a\r\nX-A: \x00\r\n" + LENGTH, 400),
        ("an unknown expectation", b"Host: a\r\nExpect: 200-ok\r\n" + LENGTH, 400),
        ("a huge length", b"Host: a\r\nContent-Length: 99999999999\r\n", 413),
        ("a length beyond 64 bits", b"Host: a\r\nContent-Length: 99999999999999999999999\r\n", 400),
        ("a negative length", b"Host: a\r\nContent-Length: -1\r\n", 400),
    ],
)
async def test_a_head_that_could_be_read_in_two_ways_is_refused_and_the_connection_closed(
    name: str, head: bytes, status: int
) -> None:
    async with rig() as one:
        client = await one.connect()
        client.send(START + AUTH + JSON_TYPE + head + b"\r\n" + BODY)
        answer = await client.receive()
        assert answer.status == status, name
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-request-id"].startswith("gen-")
        assert answer.json()["error"]["code"]
        assert await client.closed()
        assert not one.upstream.requests
        await one.at_rest()


async def test_bare_line_feeds_are_no_request() -> None:
    async with rig() as one:
        answer = await one.send_raw(b"POST /v1/chat/completions HTTP/1.1\nHost: a\n\n")
        assert answer.status == 400


async def test_a_garbage_first_byte_is_answered_in_json() -> None:
    async with rig() as one:
        answer = await one.send_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        assert answer.status == 400
        assert answer.code == "invalid_request"


async def test_a_large_head_is_refused_however_it_arrives() -> None:
    limits = LimitSettings(head_bytes_max=4_096)
    async with rig(limits=limits) as one:
        whole = await one.send_raw(START + b"Host: a\r\nX-A: " + b"a" * 8_192 + b"\r\n\r\n")
        assert whole.status == 431
        client = await one.connect()
        client.send(START + b"Host: a\r\nX-A: ")
        for _ in range(8):
            client.send(b"a" * 1_024)
            await client.writer.drain()
        assert (await client.receive()).status == 431
        many = b"".join(b"X-%d: a\r\n" % index for index in range(200))
        assert (await one.send_raw(START + b"Host: a\r\n" + many + b"\r\n")).status == 431
        assert (await one.send_raw(b"GET /v1/" + b"a" * 8_192 + b" HTTP/1.1\r\nHost: a\r\n\r\n")).status == 431


async def test_only_configured_hosts_are_served() -> None:
    async with rig(allowed_hosts=("api.example.com",)) as one:
        good = post(BODY).replace(b"Host: localhost", b"Host: API.example.com")
        assert (await one.send_raw(good)).status == 200
        assert (await one.send_raw(post(BODY))).status == 421


async def test_a_request_split_at_every_byte_is_served_the_same() -> None:
    request = post(BODY)
    async with rig() as one:
        client = await one.connect()
        for byte in request:
            client.send(bytes((byte,)))
            await client.writer.drain()
        first = await client.receive()
        assert first.status == 200
        assert first.json()["choices"][0]["message"]["content"] == "Hi"


async def test_a_chunked_body_is_served() -> None:
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    async with rig() as one:
        answer = await one.send_raw(START + b"Host: a\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert answer.status == 200
        assert json.loads(one.upstream.requests[0].body)["model"] == "deepseek-v4-flash"


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with rig() as one:
        client = await one.connect()
        client.send(post(BODY) + post(chat_body(model="no/such-model")) + post(BODY) + post(b"{"))
        statuses = [(await client.receive()).status for _ in range(4)]
        assert statuses == [200, 404, 200, 400]
        assert len(one.upstream.requests) == 2
        await one.at_rest()


async def test_too_many_pipelined_requests_end_the_connection() -> None:
    async with rig() as one:
        one.purse.holding = True
        client = await one.connect()
        client.send(post(BODY) * 200)
        await one.purse.settled()
        one.purse.holding = False
        one.purse.release()
        answers = [await client.receive() for _ in range(PIPELINE_MAX + 1)]
        assert {answer.status for answer in answers} == {200}
        assert answers[-1].headers["connection"] == "close"
        assert await client.closed()
        await one.at_rest()


async def test_thousands_of_requests_in_one_read_do_not_hold_the_loop() -> None:
    async with rig() as one:
        for small in (b"GET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"):
            client = await one.connect()
            client.send(small * 5_000)
            first = await client.receive()
            assert first.status in (200, 401)
            assert await client.closed()
        refused = sum(one.gateway.refused.values())
        assert refused <= 2 * PIPELINE_MAX + 4


async def test_a_client_that_pipelines_and_never_reads_is_not_served_on() -> None:
    async with rig(limits=LimitSettings(client_stall_s=5.0)) as one:
        client = await one.connect(receive_buffer=4_096)
        client.writer.transport.pause_reading()
        small = b"GET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n"
        await one.until(lambda: bool(one.lanes))
        (lane,) = one.lanes
        for _ in range(20_000):
            if lane.flow.write_paused:
                break
            client.send(small * 50)
            await asyncio.sleep(0)
        assert lane.flow.write_paused
        client.send(small * 10_000)
        for _ in range(100):
            await asyncio.sleep(0)
        assert lane.transport.get_write_buffer_size() < 1_000_000
        await _sweep_later(one, 6.0)
        await one.until(lambda: not one.lanes)


async def test_a_reader_of_a_whole_answer_that_takes_nothing_is_ended() -> None:
    large = WHOLE.replace(b"Hi", b"x" * 8_000_000)
    async with Rig([answer(200, large)], limits=LimitSettings(client_stall_s=5.0)) as one:
        client = await one.connect(receive_buffer=4_096)
        client.writer.transport.pause_reading()
        client.send(post(BODY))
        await one.purse.settled()
        (lane,) = one.lanes
        await one.until(lambda: lane.transport.get_write_buffer_size() > 0)
        await _sweep_later(one, 6.0)
        await one.until(lambda: not one.lanes)
        await one.at_rest()


async def _sweep_later(one: Rig, seconds: float) -> None:
    clock = Later()
    clock.s = one.gateway.coarse_s + seconds
    one.gateway.clock = clock
    one.gateway.sweep()


async def test_pipelining_into_the_control_plane_never_changes_the_order_of_answers() -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    async with rig() as one:
        client = await one.connect()
        client.send(get + post(BODY) + get)
        assert (await client.receive()).body == b"control plane"
        assert (await client.receive()).json()["model"] == "deepseek/deepseek-flash"
        assert await client.closed()


async def test_an_answer_to_head_has_no_body() -> None:
    async with rig() as one:
        client = await one.connect()
        client.send(b"HEAD /v1/nothing HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 ")
        client.send(post(BODY))
        assert (await client.receive()).status == 200


async def test_trailers_are_dropped_and_bounded() -> None:
    start = START + b"Host: a\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n"
    whole = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    async with rig() as one:
        good = await one.send_raw(start + whole + b"X-Trailer: a\r\nHost: b\r\n\r\n")
        assert good.status == 200
        client = await one.connect()
        client.send(start + whole)
        for _ in range(40):
            client.send(b"X-Trailer: " + b"a" * 8_000 + b"\r\n")
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.receive()).status == 431
        await one.at_rest()


async def test_a_long_request_and_the_beginning_of_the_next_in_one_read_are_no_long_head() -> None:
    body = chat_body(messages=[{"role": "user", "content": "x" * 40_000}])
    async with rig() as one:
        client = await one.connect()
        client.send(post(body) + post(BODY)[:20])
        assert (await client.receive()).status == 200
        client.send(post(BODY)[20:])
        assert (await client.receive()).status == 200


async def test_a_target_in_absolute_form_is_served_by_its_path() -> None:
    async with rig() as one:
        whole = post(BODY).replace(b"POST /v1", b"POST http://localhost/v1")
        assert (await one.send_raw(whole)).status == 200


async def test_odd_targets_are_refused_without_a_report() -> None:
    async with rig() as one:
        for start in (b"CONNECT example.com:443", b"GET http://[/v1/key", b"GET http://"):
            answer = await one.send_raw(start + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer.status in (200, 400, 401)
        assert not one.reports


async def test_a_client_that_expects_100_continue_gets_it_first() -> None:
    async with rig() as one:
        client = await one.connect()
        client.send(post(BODY, headers=["Expect: 100-continue"])[: -len(BODY)])
        line = await client.reader.readuntil(b"\r\n\r\n")
        assert line == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        assert (await client.receive()).status == 200


async def test_a_body_that_is_declared_too_large_gets_no_100_continue() -> None:
    async with rig(limits=LimitSettings(body_bytes_max=2_048)) as one:
        head = START + b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 4096\r\n\r\n"
        answer = await one.send_raw(head)
        assert answer.status == 413
        assert answer.code == "request_too_large"


async def test_a_chunked_body_is_refused_once_it_is_too_large() -> None:
    async with rig(limits=LimitSettings(body_bytes_max=200_000)) as one:
        client = await one.connect()
        client.send(START + b"Host: a\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            client.send(b"10000\r\n" + b"a" * 65_536 + b"\r\n")
        assert (await client.receive()).status == 413
        await one.at_rest()


async def test_an_old_client_gets_an_answer_and_a_closed_connection() -> None:
    async with rig() as one:
        client = await one.connect()
        client.send(post(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await client.receive()).status == 200
        assert await client.closed()


async def test_connection_close_is_honoured() -> None:
    async with rig() as one:
        client = await one.connect()
        client.send(post(BODY, headers=["Connection: close"]))
        answer = await client.receive()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert await client.closed()


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with rig() as one:
        client = await one.connect()
        for _ in range(5):
            client.send(post(BODY))
            assert (await client.receive()).status == 200
        assert one.upstream.connections == 1
        assert len(one.lanes) == 1


async def test_other_paths_go_to_the_control_plane_on_the_same_connection() -> None:
    async with rig() as one:
        client = await one.connect()
        for _ in range(2):
            client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.receive()).body == b"control plane"
            client.send(post(BODY))
            assert (await client.receive()).status == 200


async def test_the_control_plane_is_behind_the_same_checks() -> None:
    async with rig() as one:
        two_hosts = await one.send_raw(b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert two_hosts.status == 400
        coded = await one.send_raw(b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
        assert coded.status == 400


async def test_an_upgrade_is_not_followed() -> None:
    async with rig() as one:
        client = await one.connect()
        client.send(post(BODY, headers=["Connection: upgrade", "Upgrade: h2c"]))
        assert (await client.receive()).status == 200
        assert await client.closed()


class Later:
    """A clock whose monotonic time the test moves."""

    def __init__(self) -> None:
        self.s = 1_000.0

    def now_ns(self) -> int:
        return 1_790_000_000_000_000_000

    def monotonic_s(self) -> float:
        return self.s


async def test_slow_heads_slow_bodies_and_idle_connections_are_ended_by_the_sweep() -> None:
    async with rig() as one:
        clock = Later()
        one.gateway.clock = clock
        one.gateway.sweep()
        silent, slow_head, slow_body, idle = [await one.connect() for _ in range(4)]
        slow_head.send(START)
        slow_body.send(post(BODY)[:-5])
        idle.send(post(BODY))
        assert (await idle.receive()).status == 200
        while len(one.lanes) < 4 or sum(lane.in_head or lane.on_lane for lane in one.lanes) < 2:
            await one.upstream.until(lambda: True)
            idle.send(post(BODY))
            await idle.receive()
        clock.s += one.settings.limits.head_s + 1
        one.gateway.sweep()
        assert await silent.closed()
        assert (await slow_head.receive()).status == 408
        assert len(one.lanes) >= 2
        clock.s += one.settings.limits.body_s
        one.gateway.sweep()
        assert (await slow_body.receive()).status == 408
        clock.s += one.settings.limits.idle_s
        one.gateway.sweep()
        assert await idle.closed()


async def test_beyond_the_bound_on_connections_a_client_is_told_to_come_back() -> None:
    async with rig(limits=LimitSettings(connections_max=2)) as one:
        for _ in range(2):
            client = await one.connect()
            client.send(post(BODY))
            assert (await client.receive()).status == 200
        third = await one.connect()
        answer = await third.receive()
        assert answer.status == 503
        assert answer.headers["retry-after"] == "2"


async def test_both_legs_have_nagle_switched_off() -> None:
    async with rig() as one:
        client = await one.connect()
        client.send(post(BODY))
        await client.receive()
        for lane in one.lanes:
            sock = lane.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

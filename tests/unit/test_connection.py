"""One connection, fed by hand: framings, limits, and answers cut at every byte. No socket is needed for this."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragonfly.providers.channel import ChannelTimeouts
from dragonfly.providers.connection import (
    HEAD_BYTES_MAX,
    HEADER_COUNT_MAX,
    INTERIM_RESPONSES_MAX,
    BrokenKind,
    Connection,
)
from tests.fakes.calls import Collector
from tests.fakes.lines import Shelf, StillTransport
from tests.fakes.upstream import chunk

OK = b"HTTP/1.1 200 OK\r\n"
TIMEOUTS = ChannelTimeouts(connect_s=1.0, head_s=600.0, idle_s=120.0)


class Line:
    """A connection with its surroundings, after one request was sent."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.transport = StillTransport()
        self.connection = Connection(self.shelf, TIMEOUTS, 0.0)
        self.connection.connection_made(self.transport)
        self.listener = self.send()

    def send(self) -> Collector:
        self.listener = Collector()
        self.connection.send(self.listener, b"POST / HTTP/1.1\r\n\r\n", b"{}")
        return self.listener

    def feed(self, *reads: bytes) -> "Line":
        for data in reads:
            if self.transport.is_open:
                self.connection.data_received(data)
        return self

    def eof(self) -> "Line":
        if self.transport.is_open:
            self.connection.eof_received()
        return self

    @property
    def is_reused(self) -> bool:
        return self.shelf.released == [self.connection] and self.transport.is_open


EVENTS = [b'data: {"a":"\xe4\xbd\xa0\xe5\xa5\xbd"}\n\n', b": keep-alive\n\n", b"data: [DONE]\n\n"]
BODY = b"".join(EVENTS)
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(map(chunk, EVENTS)) + chunk(b"")
SIZED = OK + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
TRAILED = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(BODY) + b"0\r\nX-Trailer: 1\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + CHUNKED
WHOLE = {"chunked": CHUNKED, "sized": SIZED, "trailers": TRAILED, "interim": INTERIM}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE.keys())
def test_an_answer_split_at_every_byte_is_the_same_answer(answer: bytes) -> None:
    for position in range(1, len(answer)):
        line = Line().feed(answer[:position], answer[position:])
        assert (line.listener.status, line.listener.body, line.listener.end) == (200, BODY, "end")
        assert line.is_reused


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE.keys())
def test_an_answer_that_comes_byte_by_byte_is_the_same_answer(answer: bytes) -> None:
    line = Line().feed(*(bytes((one,)) for one in answer))
    assert (line.listener.body, line.listener.end) == (BODY, "end")
    assert line.is_reused


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE.keys())
def test_an_answer_cut_at_any_byte_is_broken_and_never_complete(answer: bytes) -> None:
    for position in range(len(answer)):
        line = Line().feed(answer[:position]).eof()
        head_ends = answer.index(b"\r\n\r\n", answer.index(b"200 OK")) + 4
        expected = BrokenKind.CUT if position >= head_ends else BrokenKind.RESET
        assert line.listener.end is expected
        assert BODY.startswith(line.listener.body)
        assert not line.shelf.released
        assert not line.transport.is_open


@settings(max_examples=60)
@given(st.lists(st.integers(1, len(CHUNKED) - 1), max_size=12))
def test_any_split_gives_the_same_bytes_and_at_most_one_call_per_read(cuts: list[int]) -> None:
    positions = [0, *sorted(set(cuts)), len(CHUNKED)]
    reads = [CHUNKED[start:end] for start, end in itertools.pairwise(positions)]
    line = Line().feed(*reads)
    assert line.listener.body == BODY
    assert len(line.listener.reads) <= len(reads)


@settings(max_examples=150)
@given(
    st.sampled_from(list(WHOLE.values())),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), max_size=4),
    st.lists(st.integers(1, 400), max_size=6),
    st.sampled_from(["eof", "lost", "fail", "timeout"]),
)
def test_damaged_answers_end_exactly_once_and_leave_nothing_behind(
    answer: bytes, damages: list[tuple[int, bytes]], cuts: list[int], end: str
) -> None:
    for position, junk in damages:
        answer = answer[:position] + junk + answer[position + len(junk) :]
    positions = [0, *sorted(set(cuts)), len(answer)]
    line = Line().feed(*(answer[a:b] for a, b in itertools.pairwise(positions) if a < b))
    if end == "eof":
        line.eof()
    elif end == "fail":
        line.connection.fail(BrokenKind.RESET)
    elif end == "timeout":
        for now_s in (0.0, 10_000.0):
            line.connection.sweep(now_s)
    line.connection.connection_lost(None)
    # The collector itself refuses any call after the end.
    assert line.listener.end is not None
    assert line.listener.calls[-1] in ("end", "broken")
    assert not line.connection.is_usable


def test_several_chunks_of_one_read_are_handed_over_in_one_call() -> None:
    assert Line().feed(CHUNKED).listener.calls == ["response", "bytes", "end"]


def test_a_body_without_length_lasts_until_the_close_and_is_complete_then() -> None:
    line = Line().feed(OK + b"Content-Type: text/event-stream\r\n\r\n" + BODY[:7], BODY[7:])
    assert line.listener.end is None
    line.eof()
    assert (line.listener.body, line.listener.end) == (BODY, "end")
    assert not line.shelf.released


def test_a_body_without_length_that_ends_in_a_reset_is_cut() -> None:
    line = Line().feed(OK + b"\r\n" + BODY)
    line.connection.connection_lost(ConnectionResetError())
    assert line.listener.end is BrokenKind.CUT


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("extra", [b"", b"Content-Length: 5\r\n"])
def test_statuses_without_a_body_end_with_their_head(status: int, extra: bytes) -> None:
    line = Line().feed(b"HTTP/1.1 %d No\r\n%b\r\n" % (status, extra))
    assert (line.listener.status, line.listener.calls) == (status, ["response", "end"])
    assert line.is_reused


def test_the_listener_gets_lower_case_names_and_the_last_of_repeated_values() -> None:
    line = Line().feed(OK + b"X-Note: one\r\nx-note: two\r\nContent-Length: 0\r\n\r\n")
    assert line.listener.headers == {b"x-note": b"two", b"content-length": b"0"}


def test_the_next_request_goes_out_on_the_same_connection() -> None:
    line = Line().feed(SIZED)
    second = line.send()
    line.feed(CHUNKED)
    assert second.body == BODY
    assert line.transport.sent == b"POST / HTTP/1.1\r\n\r\n{}" * 2


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        OK + b"Content-Length: 2\r\n\r\n{}garbage",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nHTTP/1.1 500 No\r\n\r\n",
    ],
    ids=["close", "1.0", "second answer", "garbage behind", "garbage behind chunks"],
)
def test_a_complete_answer_on_a_connection_of_no_further_use_ends_well_and_closes(answer: bytes) -> None:
    line = Line().feed(answer)
    assert (line.listener.body, line.listener.end) == (b"{}", "end")
    assert not line.shelf.released
    assert not line.transport.is_open


def test_an_answer_before_the_whole_request_was_taken_closes_the_connection() -> None:
    line = Line()
    line.transport.unsent_bytes = 1
    line.feed(SIZED)
    assert line.listener.end == "end"
    assert not line.shelf.released


def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    line = Line().feed(SIZED, b"HTTP/1.1 200 OK\r\n")
    assert not line.transport.is_open
    assert line.shelf.discarded == [line.connection]


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b"\x15\x03\x01\x00\x02\x02\x50",
        b"HTTP/1.1 99 Odd\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"X: a\r\n folded\r\n\r\n",
        OK + b"X: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 1\n\nX",
    ],
)
def test_what_is_not_plain_http_breaks_as_garbage_and_nothing_is_handed_over(answer: bytes) -> None:
    line = Line().feed(answer)
    assert line.listener.calls == ["broken"]
    assert line.listener.end is BrokenKind.GARBAGE
    assert not line.transport.is_open


def test_broken_chunk_framing_hands_over_what_was_good_and_then_breaks() -> None:
    line = Line().feed(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabXX")
    assert line.listener.calls == ["response", "bytes", "broken"]
    assert (line.listener.body, line.listener.end) == (b"ab", BrokenKind.GARBAGE)


def test_an_identity_encoding_is_no_encoding() -> None:
    assert Line().feed(OK + b"Content-Encoding: identity\r\nContent-Length: 0\r\n\r\n").listener.end == "end"


def test_endless_interim_responses_are_refused() -> None:
    line = Line().feed(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * (INTERIM_RESPONSES_MAX + 1))
    assert line.listener.end is BrokenKind.GARBAGE


@pytest.mark.parametrize("one_read", [True, False])
@pytest.mark.parametrize(
    "lines",
    [b"X: " + b"y" * HEAD_BYTES_MAX + b"\r\n", b"".join(b"X-%d: y\r\n" % i for i in range(HEADER_COUNT_MAX + 1))],
    ids=["bytes", "count"],
)
def test_a_head_beyond_its_limits_is_refused(lines: bytes, one_read: bool) -> None:
    answer = OK + lines + b"Content-Length: 0\r\n\r\n"
    reads = [answer] if one_read else [answer[i : i + 1_000] for i in range(0, len(answer), 1_000)]
    assert Line().feed(*reads).listener.end is BrokenKind.TOO_LARGE


def test_a_large_body_in_the_read_of_a_small_head_is_no_large_head() -> None:
    body = b"x" * (3 * HEAD_BYTES_MAX)
    line = Line().feed(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert line.listener.body == body


def test_endless_trailers_are_refused() -> None:
    line = Line().feed(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
    line.feed(*(b"X-%d: %b\r\n" % (i, b"y" * 1_000) for i in range(HEAD_BYTES_MAX // 1_000 + 1)))
    assert line.listener.end is BrokenKind.TOO_LARGE


def test_a_kept_connection_that_closes_before_the_answer_is_stale_and_a_fresh_one_is_reset() -> None:
    fresh = Line().eof()
    assert fresh.listener.end is BrokenKind.RESET
    kept = Line().feed(SIZED)
    second = kept.send()
    kept.eof()
    assert second.end is BrokenKind.STALE
    begun = Line().feed(SIZED)
    third = begun.send()
    begun.feed(b"HTTP/1.1 2").eof()
    assert third.end is BrokenKind.RESET


async def test_sending_on_a_connection_that_was_lost_meanwhile_is_stale_and_not_told_from_inside_send() -> None:
    line = Line().feed(SIZED)
    line.connection.connection_lost(None)
    listener = line.send()
    assert listener.end is None
    assert await listener.ended() is BrokenKind.STALE


def test_abort_is_silent_and_may_be_repeated_at_any_time() -> None:
    for reads in ([], [CHUNKED[:40]], [CHUNKED[:90]], [CHUNKED]):
        line = Line().feed(*reads)
        before = list(line.listener.calls)
        for _ in range(3):
            line.connection.abort()
        line.connection.connection_lost(None)
        line.connection.abort()
        assert line.listener.calls == before
        assert not line.transport.is_open


def test_a_listener_may_abort_from_inside_any_call() -> None:
    class Quitter(Collector):
        def __init__(self, at: str, connection: Connection) -> None:
            super().__init__()
            self.at, self.connection = at, connection

        def _note(self, call: str) -> None:
            super()._note(call)
            if call == self.at:
                self.connection.abort()

    for at, calls in (("response", ["response"]), ("bytes", ["response", "bytes"])):
        line = Line().feed(SIZED)
        quitter = Quitter(at, line.connection)
        line.connection.send(quitter, b"x")
        line.feed(CHUNKED)
        assert quitter.calls == calls
        assert not line.transport.is_open


def test_the_connection_is_back_before_the_end_is_told() -> None:
    class Greedy(Collector):
        def on_end(self) -> None:
            super().on_end()
            assert line.shelf.released == [line.connection]
            assert line.connection.is_usable

    line = Line().feed(SIZED)
    line.shelf.released.clear()
    greedy = Greedy()
    line.connection.send(greedy, b"x")
    line.feed(CHUNKED)
    assert greedy.end == "end"


def test_reading_pauses_and_goes_on_and_a_paused_connection_reads_again_in_the_pool() -> None:
    line = Line().feed(CHUNKED[:60])
    line.connection.pause_reading()
    line.connection.pause_reading()
    assert not line.transport.reading
    line.connection.resume_reading()
    line.connection.resume_reading()
    assert line.transport.reading
    line.connection.pause_reading()
    line.feed(CHUNKED[60:])
    assert line.is_reused
    assert line.transport.reading
    line.connection.pause_reading()
    assert line.transport.reading, "an idle connection is always read, so that its end is seen"


def test_the_wait_for_the_first_body_byte_is_bounded_whatever_dribbles_before_it() -> None:
    line = Line()
    line.connection.sweep(0.0)
    for second in range(1, 600):
        line.feed(CHUNKED[second - 1 : second] if second < 30 else b"")
        line.connection.sweep(float(second))
    assert line.listener.end is None
    line.connection.sweep(600.0)
    assert line.listener.end is BrokenKind.TIMEOUT


def test_silence_inside_the_answer_is_bounded_and_a_paused_reader_is_not_silence() -> None:
    line = Line().feed(CHUNKED[:60])
    assert line.listener.body
    line.connection.sweep(10.0)
    line.connection.sweep(129.0)
    assert line.listener.end is None
    line.connection.pause_reading()
    line.connection.sweep(1_000.0)
    line.connection.resume_reading()
    line.connection.sweep(1_119.0)
    assert line.listener.end is None
    line.connection.sweep(1_120.0)
    assert line.listener.end is BrokenKind.TIMEOUT


def test_an_idle_connection_is_closed_in_time_and_sooner_when_the_provider_says_so() -> None:
    plain = Line().feed(SIZED)
    plain.connection.sweep(0.0)
    plain.connection.sweep(29.0)
    assert plain.transport.is_open
    plain.connection.sweep(30.0)
    assert not plain.transport.is_open
    told = Line().feed(OK + b"Keep-Alive: timeout=5, max=100\r\nContent-Length: 0\r\n\r\n")
    told.connection.sweep(0.0)
    told.connection.sweep(3.0)
    assert told.transport.is_open
    told.connection.sweep(4.0)
    assert not told.transport.is_open

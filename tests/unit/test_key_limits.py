"""Requests per minute and at the same time, by a clock that is passed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly.admission.errors import RateLimited
from dragonfly.admission.grants import KeyPolicy
from dragonfly.admission.limits import WINDOW_S, KeyMeter
from dragonfly.core.ids import AccountId, KeyId


def policy(per_minute: int = 0, at_once: int = 0) -> KeyPolicy:
    return KeyPolicy(KeyId("0000000000"), AccountId("acc-alice"), True, per_minute, at_once, None, None)


def admitted(meter: KeyMeter, key: KeyPolicy, now_s: float) -> bool:
    try:
        meter.enter(key, now_s)
    except RateLimited:
        return False
    return True


@given(st.integers(1, 50), st.lists(st.floats(0, 20), min_size=1, max_size=200))
def test_no_span_of_time_sees_more_than_the_bucket_and_its_refill(rate: int, waits: list[float]) -> None:
    meter, key, now_s = KeyMeter(), policy(per_minute=rate), 100.0
    times = []
    for wait_s in waits:
        now_s += wait_s
        if admitted(meter, key, now_s):
            times.append(now_s)
    for first, start_s in enumerate(times):
        for last in range(first, len(times)):
            allowed = rate + (times[last] - start_s) * rate / WINDOW_S
            assert last - first + 1 <= allowed + 1e-3


@given(st.integers(1, 1_000), st.integers(1, 2_000))
def test_a_full_minute_s_requests_pass_at_once_and_then_none(rate: int, asked: int) -> None:
    meter, key = KeyMeter(), policy(per_minute=rate)
    assert sum(admitted(meter, key, 5.0) for _ in range(asked)) == min(rate, asked)
    assert meter.state(key, 5.0).remaining == rate - min(rate, asked)
    assert meter.state(key, 5.0 + WINDOW_S) == (rate, rate, pytest.approx(0.0, abs=1e-6))


@given(st.integers(1, 1_000), st.floats(0, 1e6))
def test_who_waits_as_told_is_admitted(rate: int, now_s: float) -> None:
    meter, key = KeyMeter(), policy(per_minute=rate)
    for _ in range(rate):
        meter.enter(key, now_s)
    with pytest.raises(RateLimited) as caught:
        meter.enter(key, now_s)
    assert 0 < caught.value.retry_after_s <= WINDOW_S / rate + 1e-5
    assert not admitted(meter, key, now_s + caught.value.retry_after_s * 0.9)
    assert admitted(meter, key, now_s + caught.value.retry_after_s)


def test_the_limit_of_open_requests_counts_those_that_ended() -> None:
    meter, key = KeyMeter(), policy(at_once=2)
    meter.enter(key, 1.0)
    meter.enter(key, 1.0)
    with pytest.raises(RateLimited) as caught:
        meter.enter(key, 1.0)
    assert (caught.value.what, caught.value.limit, caught.value.retry_after_s) == ("concurrency", 2, 1.0)
    meter.leave()
    meter.enter(key, 1.0)
    assert meter.open == 2


def test_a_refused_request_counts_nowhere() -> None:
    meter, key = KeyMeter(), policy(per_minute=1, at_once=5)
    meter.enter(key, 1.0)
    for _ in range(10):
        assert not admitted(meter, key, 1.0)
    assert meter.open == 1
    assert admitted(meter, key, 1.0 + WINDOW_S)


def test_a_key_without_limits_is_never_held_up() -> None:
    meter, key = KeyMeter(), policy()
    assert all(admitted(meter, key, 1.0) for _ in range(10_000))
    assert meter.state(key, 1.0) == (0, 0, 0.0)


def test_a_meter_is_idle_when_nothing_is_open_and_the_bucket_is_full() -> None:
    meter, key = KeyMeter(), policy(per_minute=60)
    meter.enter(key, 1.0)
    assert not meter.is_idle(5.0)
    meter.leave()
    assert not meter.is_idle(1.5)
    assert meter.is_idle(2.0)
    with pytest.raises(AssertionError):
        meter.leave()

"""Which price holds when: exact instants of windows, holidays, zones and dated versions."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly.catalog.builtin import load_builtin
from dragonfly.catalog.prices import PriceVersion, Rates
from dragonfly.catalog.pricing import calendars_of
from dragonfly.catalog.schedule import FOREVER_NS, Calendar, DatedPrice, PriceSheet, Window, instant_ns

BEIJING = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
WORKDAYS = frozenset(range(5))
CHINA = calendars_of(load_builtin().calendars.values())["china"]


def flat(name: str, rate: int) -> PriceVersion:
    return PriceVersion(name, Rates(*[rate] * 6))


LOW, HIGH, NIGHT = flat("low", 1), flat("high", 2), flat("night", 3)
PEAK = Window("peak", BEIJING, WORKDAYS, ((9 * 60, 12 * 60), (14 * 60, 18 * 60)), CHINA)


def at(text: str) -> int:
    return instant_ns(datetime.fromisoformat(text))


def dated(*windows: tuple[Window, PriceVersion]) -> DatedPrice:
    return DatedPrice(0, FOREVER_NS, LOW, windows)


@pytest.mark.parametrize(
    ("moment", "expected", "until"),
    [
        # Monday 2026-11-23. Peak is 09-12 and 14-18 in Beijing, which is 01-04 and 06-10 UTC.
        ("2026-11-23T08:59:59.999999+08:00", LOW, "2026-11-23T09:00:00+08:00"),
        ("2026-11-23T09:00:00+08:00", HIGH, "2026-11-23T12:00:00+08:00"),
        ("2026-11-23T01:00:00+00:00", HIGH, "2026-11-23T04:00:00+00:00"),
        ("2026-11-23T11:59:59.999999+08:00", HIGH, "2026-11-23T12:00:00+08:00"),
        ("2026-11-23T12:00:00+08:00", LOW, "2026-11-23T14:00:00+08:00"),
        ("2026-11-23T14:00:00+08:00", HIGH, "2026-11-23T18:00:00+08:00"),
        ("2026-11-23T18:00:00+08:00", LOW, "2026-11-24T00:00:00+08:00"),
        # Friday is a working day, Saturday and Sunday are not.
        ("2026-11-27T09:00:00+08:00", HIGH, "2026-11-27T12:00:00+08:00"),
        ("2026-11-28T10:00:00+08:00", LOW, "2026-11-29T00:00:00+08:00"),
        ("2026-11-29T10:00:00+08:00", LOW, "2026-11-30T00:00:00+08:00"),
        # The day is the one in Beijing: late on Sunday in UTC it is Monday there.
        ("2026-11-30T01:00:00+00:00", HIGH, "2026-11-30T04:00:00+00:00"),
        ("2026-11-22T23:30:00+00:00", LOW, "2026-11-23T01:00:00+00:00"),
        # National Day is a Thursday in 2026, and the Wednesday after it is still a holiday.
        ("2026-10-01T10:00:00+08:00", LOW, "2026-10-02T00:00:00+08:00"),
        ("2026-10-07T15:00:00+08:00", LOW, "2026-10-08T00:00:00+08:00"),
        ("2026-10-08T15:00:00+08:00", HIGH, "2026-10-08T18:00:00+08:00"),
        # 2026-10-10 is a Saturday on which people work instead: weekends stay off-peak.
        ("2026-10-10T10:00:00+08:00", LOW, "2026-10-11T00:00:00+08:00"),
        # The last day before and the first after the Spring Festival of 2026.
        ("2026-02-13T10:00:00+08:00", HIGH, "2026-02-13T12:00:00+08:00"),
        ("2026-02-23T10:00:00+08:00", LOW, "2026-02-24T00:00:00+08:00"),
        ("2026-02-24T10:00:00+08:00", HIGH, "2026-02-24T12:00:00+08:00"),
        # A statutory day of 2027 is known; the days that the notice may move around it are not.
        ("2027-02-08T10:00:00+08:00", LOW, "2027-02-09T00:00:00+08:00"),
        ("2027-02-09T10:00:00+08:00", HIGH, "2027-02-09T12:00:00+08:00"),
    ],
)
def test_peak_hours_begin_and_end_to_the_nanosecond(moment: str, expected: PriceVersion, until: str) -> None:
    price, until_ns = dated((PEAK, HIGH)).at(at(moment))
    assert price is expected
    assert until_ns == at(until)


def test_a_nanosecond_before_the_border_is_before_it() -> None:
    border = at("2026-11-23T09:00:00+08:00")
    schedule = dated((PEAK, HIGH))
    assert [schedule.at(border + offset)[0].id for offset in (-1, 0, 1)] == ["low", "high", "high"]


def test_the_official_days_off_of_2026_are_complete() -> None:
    assert (CHINA.complete_from, CHINA.complete_to) == (date(2026, 1, 1), date(2026, 12, 31))
    # 3 New Year, 9 Spring Festival, 3 Qingming, 5 Labour Day, 3 Dragon Boat, 3 Mid-Autumn, 7 National Day.
    assert sum(day.year == 2026 for day in CHINA.days_off) == 33
    assert sum(day.year == 2026 and day.weekday() < 5 for day in CHINA.days_off) == 2 + 6 + 1 + 3 + 1 + 1 + 5


def test_the_first_window_that_is_open_wins() -> None:
    all_day = Window("night", BEIJING, frozenset(range(7)), ((0, 24 * 60),))
    schedule = dated((PEAK, HIGH), (all_day, NIGHT))
    assert schedule.at(at("2026-11-23T10:00:00+08:00")) == (HIGH, at("2026-11-23T12:00:00+08:00"))
    assert schedule.at(at("2026-11-23T13:00:00+08:00")) == (NIGHT, at("2026-11-23T14:00:00+08:00"))
    assert schedule.at(at("2026-11-28T10:00:00+08:00"))[0] is NIGHT


def test_a_window_follows_the_clock_on_the_wall_through_daylight_saving() -> None:
    morning = Window("morning", BERLIN, frozenset(range(7)), ((8 * 60, 10 * 60),))
    schedule = dated((morning, HIGH))
    # 08:00 is 07:00 UTC in winter and 06:00 UTC in summer; the change is on 2026-03-29.
    assert schedule.at(at("2026-03-28T07:00:00+00:00"))[0] is HIGH
    assert schedule.at(at("2026-03-29T06:00:00+00:00"))[0] is HIGH
    assert schedule.at(at("2026-03-29T05:59:59+00:00")) == (LOW, at("2026-03-29T06:00:00+00:00"))
    assert schedule.at(at("2026-03-29T08:00:00+00:00"))[0] is LOW


def test_versions_follow_each_other_without_a_gap_of_a_nanosecond() -> None:
    border = at("2026-12-01T00:00:00+00:00")
    sheet = PriceSheet((DatedPrice(0, border, LOW), DatedPrice(border, FOREVER_NS, HIGH)))
    before, after = sheet.at(border - 1), sheet.at(border)
    assert (before.price, before.until_ns) == (LOW, border)
    assert (after.price, after.until_ns) == (HIGH, FOREVER_NS)


def test_between_two_versions_nothing_is_for_sale() -> None:
    sheet = PriceSheet((DatedPrice(100, 200, LOW), DatedPrice(300, 400, HIGH)))
    assert [(sheet.at(now).price, sheet.at(now).until_ns) for now in (99, 100, 199, 200, 299, 300, 399, 400)] == [
        (None, 100),
        (LOW, 200),
        (LOW, 200),
        (None, 300),
        (None, 300),
        (HIGH, 400),
        (HIGH, 400),
        (None, FOREVER_NS),
    ]


def test_a_window_never_outlives_its_version() -> None:
    end = at("2026-11-23T10:30:00+08:00")
    schedule = DatedPrice(0, end, LOW, ((PEAK, HIGH),))
    assert schedule.at(at("2026-11-23T10:00:00+08:00")) == (HIGH, end)


@pytest.mark.parametrize("prices", [((100, 200), (150, 300)), ((100, 100),), ((200, 300), (100, 150))])
def test_versions_that_overlap_or_end_before_they_begin_are_bugs(prices: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(AssertionError):
        PriceSheet(tuple(DatedPrice(start, end, LOW) for start, end in prices))


moments = st.integers(1_764_547_200_000_000, 1_830_211_200_000_000).map(
    lambda micros: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
)
"""From December 2025 to December 2027."""


@given(moments, st.sampled_from([BEIJING, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")]))
def test_a_price_holds_until_the_instant_that_it_promises(moment: datetime, zone: ZoneInfo) -> None:
    window = Window("peak", zone, WORKDAYS, ((9 * 60, 12 * 60), (14 * 60, 24 * 60)), CHINA)
    schedule = dated((window, HIGH))
    now_ns = instant_ns(moment)
    price, until_ns = schedule.at(now_ns)
    assert now_ns < until_ns <= now_ns + 26 * 3_600 * 10**9, "a border lies ahead, at most one local day away"
    for part in range(1, 20):
        between = now_ns + (until_ns - 1 - now_ns) * part // 19
        assert schedule.at(between)[0] is price


@given(moments)
def test_beijing_peak_is_what_the_price_page_says_in_utc(moment: datetime) -> None:
    local = moment + timedelta(hours=8)
    is_open = (
        local.weekday() < 5 and local.date() not in CHINA.days_off and (1 <= moment.hour < 4 or 6 <= moment.hour < 10)
    )
    assert (dated((PEAK, HIGH)).at(instant_ns(moment))[0] is HIGH) == is_open


def test_a_calendar_without_days_shuts_nothing() -> None:
    empty = Calendar("none", frozenset(), date(2026, 1, 1), date(2026, 1, 1))
    window = Window("peak", BEIJING, WORKDAYS, ((0, 60),), empty)
    assert list(window.spans(date(2026, 10, 1))) == [
        (at("2026-10-01T00:00:00+08:00"), at("2026-10-01T01:00:00+08:00"))
    ]

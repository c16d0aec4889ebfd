"""Closed days are counted once, from usage rows; small cells leave no trace in what is kept."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from sqlalchemy import Engine, delete, func, insert, select

from dragonfly.core.outcomes import Outcome
from dragonfly.infra.database import read, write
from dragonfly.usage.queries import NS_PER_DAY, day_of
from dragonfly.usage.rules import GROUP_MIN, PROMPT_TOKENS_CAP, REQUESTS_CAP, Figures
from dragonfly.usage.statistics import (
    CLOSES_AFTER_NS,
    DAYS_BACK_MAX,
    Cell,
    cells_page,
    count_day,
    due_days,
    keep_day,
)
from dragonfly.usage.tables import statistics, statistics_days, usage
from dragonfly.worker import count_closed_days, statistics_job
from tests.factories import START_NS, MovableClock

DAY = day_of(START_NS)
NOON_NS = DAY * NS_PER_DAY + NS_PER_DAY // 2
numbers = count()


def use(
    engine: Engine,
    account: str,
    *,
    model: str = "acme/chat",
    requests: int = 1,
    tokens: int = 30,
    outcome: Outcome = Outcome.COMPLETE,
    at_ns: int = NOON_NS,
) -> None:
    """Requests of one account, of `tokens` sent and 10 answered, begun at `at_ns`."""
    row = {
        **{column.name: 0 for column in usage.columns if not column.nullable},
        "account_id": account,
        "key_id": "key-a",
        "model": model,
        "provider": "acme",
        "channel_id": "a",
        "basis": "upstream",
        "price_version_id": "v1",
        "finish_reason": "stop",
        "outcome": outcome.value,
        "prompt_tokens": tokens,
        "completion_tokens": 10,
        "ttft_us": 120_000,
        "created_at_ns": at_ns,
    }
    ids = [f"gen-{at_ns // 1_000_000:012x}{next(numbers):020x}" for _ in range(requests)]
    with write(engine) as connection:
        connection.execute(insert(usage), [{**row, "request_id": one} for one in ids])


def told(engine: Engine, day: int = DAY) -> list[Cell]:
    with read(engine) as connection:
        return count_day(connection, day)


@pytest.fixture
def tomorrow() -> MovableClock:
    return MovableClock((DAY + 1) * NS_PER_DAY + CLOSES_AFTER_NS)


def test_a_cell_of_enough_accounts_is_told_and_one_below_leaves_no_trace(
    engine: Engine, tomorrow: MovableClock
) -> None:
    for number in range(GROUP_MIN):
        use(engine, f"acc-{number}", requests=2)
        use(engine, f"acc-{number}", outcome=Outcome.UPSTREAM_ERROR)
    common = told(engine)
    for number in range(GROUP_MIN - 1):
        use(engine, f"acc-{number}", model="acme/rare", requests=7)
    assert told(engine) == common, "no sum and no other cell gives the small one away"
    figures = Figures(3 * GROUP_MIN, 90 * GROUP_MIN, 30 * GROUP_MIN, GROUP_MIN, 200, 200)
    assert common == [Cell(DAY, "acme/chat", "acme", figures)]
    assert count_closed_days(engine, tomorrow) == DAYS_BACK_MAX
    with read(engine) as connection:
        assert cells_page(connection) == common
        assert connection.execute(select(func.count()).select_from(statistics)).scalar_one() == 1


def test_removing_any_one_account_changes_no_figure_by_more_than_the_cap(engine: Engine) -> None:
    for number in range(GROUP_MIN + 1):
        use(engine, f"acc-{number}", requests=1 + number, tokens=2 * PROMPT_TOKENS_CAP)
        use(engine, f"acc-{number % GROUP_MIN}", model="acme/edge")
    (chat,) = [cell for cell in told(engine) if cell.model == "acme/chat"]
    assert chat.figures.prompt_tokens == (GROUP_MIN + 1) * PROMPT_TOKENS_CAP
    for number in range(GROUP_MIN + 1):
        with engine.connect() as connection:
            connection.execute(delete(usage).where(usage.c.account_id == f"acc-{number}"))
            rest = {cell.model: cell.figures for cell in count_day(connection, DAY)}
            connection.rollback()
        assert ("acme/edge" in rest) is (number == GROUP_MIN), "at the edge of the group it is told or not, no more"
        assert chat.figures.requests - rest["acme/chat"].requests == 1 + number <= REQUESTS_CAP
        assert chat.figures.prompt_tokens - (rest["acme/chat"].prompt_tokens or 0) == PROMPT_TOKENS_CAP


def test_many_keys_of_one_account_are_one_account(engine: Engine) -> None:
    use(engine, "acc-0", requests=GROUP_MIN * 3)
    for number in range(1, GROUP_MIN - 1):
        use(engine, f"acc-{number}", requests=4)
    assert told(engine) == []


def test_a_day_is_of_the_requests_that_began_on_it(engine: Engine) -> None:
    for number in range(GROUP_MIN):
        for at_ns in (DAY * NS_PER_DAY - 1_000_000, DAY * NS_PER_DAY, (DAY + 1) * NS_PER_DAY - 1):
            use(engine, f"acc-{number}", at_ns=at_ns)
    assert [cell.figures.requests for day in (DAY - 1, DAY, DAY + 1) for cell in told(engine, day)] == [
        GROUP_MIN,
        2 * GROUP_MIN,
    ]


def test_a_day_is_due_when_its_last_requests_have_ended_and_only_once(engine: Engine) -> None:
    clock = MovableClock((DAY + 1) * NS_PER_DAY + CLOSES_AFTER_NS - 1)
    with read(engine) as connection:
        assert due_days(connection, now_ns=clock.now_ns()) == range(DAY - DAYS_BACK_MAX, DAY)
    assert count_closed_days(engine, clock) == DAYS_BACK_MAX
    clock.move(1e-9)
    with read(engine) as connection:
        assert due_days(connection, now_ns=clock.now_ns()) == range(DAY, DAY + 1)
    assert count_closed_days(engine, clock) == 1
    for number in range(GROUP_MIN):
        use(engine, f"acc-{number}")
    assert count_closed_days(engine, clock) == 0
    with read(engine) as connection:
        assert cells_page(connection) == [], "what is told does not change afterwards"


async def test_several_workers_count_each_day_once(engine: Engine, tomorrow: MovableClock) -> None:
    for number in range(GROUP_MIN):
        use(engine, f"acc-{number}")
    with ThreadPoolExecutor(4) as workers:
        kept = list(workers.map(lambda _: count_closed_days(engine, tomorrow), range(4)))
    assert sum(kept) == DAYS_BACK_MAX
    await statistics_job(engine, tomorrow).run()
    with read(engine) as connection:
        assert [cell.figures.requests for cell in cells_page(connection)] == [GROUP_MIN]
        assert connection.execute(select(func.count()).select_from(statistics_days)).scalar_one() == DAYS_BACK_MAX


def test_cells_are_paged_newest_day_first(engine: Engine) -> None:
    figures = Figures(10, None, None, None, None, None)
    cells = [Cell(day, model, "acme", figures) for day in (DAY, DAY - 1) for model in ("acme/a", "acme/b")]
    with write(engine) as connection:
        for day in (DAY - 1, DAY):
            assert keep_day(connection, day, [cell for cell in cells if cell.day == day], now_ns=START_NS)
            assert not keep_day(connection, day, cells, now_ns=START_NS), "the first stays"
    with read(engine) as connection:
        seen = cells_page(connection, limit=3)
        assert seen == cells[:3]
        assert cells_page(connection, after=seen[-1][:3]) == cells[3:]
        assert cells_page(connection, since_day=DAY) == cells[:2]

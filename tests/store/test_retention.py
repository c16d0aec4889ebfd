"""Usage rows live 90 days; the books stay right without them."""

from sqlalchemy import Engine, func, select

from dragonfly.admission.verify import verify
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read, write
from dragonfly.privacy.retention import expiring_tables, oldest_usage_ns, run_retention, usage_before_ns
from dragonfly.usage.actions import RETENTION_DAYS, forget_old_usage
from dragonfly.usage.queries import NS_PER_DAY
from dragonfly.usage.tables import usage, usage_days
from tests.factories import MovableClock, make_customer
from tests.store.desk import running_desk

DAY_S = NS_PER_DAY / 1e9


def rows(engine: Engine) -> int:
    with read(engine) as connection:
        return connection.execute(select(func.count()).select_from(usage)).scalar_one()


async def test_rows_are_there_on_day_89_and_gone_after_day_90_and_the_books_still_hold(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        for _ in range(3):
            grant = await desk.admit(await desk.ask(alice))
            await desk.settle_durably(grant, TokenUsage(10, 20))
        balance = desk.wallet(alice).balance_nusd
    left = []
    for days in (RETENTION_DAYS - 1, 0.9, 0.2):
        clock.move(days * DAY_S)
        with write(engine) as connection:
            forget_old_usage(connection, now_ns=clock.now_ns())
        left.append(rows(engine))
    assert left == [3, 3, 0]
    with read(engine) as connection:
        report = verify(connection, usage_since_ns=clock.now_ns() - (RETENTION_DAYS - 1) * NS_PER_DAY)
    assert report.is_clean
    assert report.balances_nusd == balance


async def test_every_table_with_a_counted_lifetime_loses_what_has_passed_it(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        for _ in range(2):
            await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(10, 20))
    assert oldest_usage_ns(engine) == clock.now_ns()
    begun_ns = clock.now_ns()
    left = []
    for days in (RETENTION_DAYS - 1, 1, 1):
        clock.move(days * DAY_S)
        run_retention(engine, now_ns=clock.now_ns())
        with read(engine) as connection:
            rows_left = connection.execute(select(usage_days.c.day, usage_days.c.model, usage_days.c.requests)).all()
            assert verify(connection, usage_since_ns=clock.now_ns()).is_clean
            left.append([tuple(row) for row in rows_left])
    assert [(row[0] > 0, row[1] != "", row[2]) for row in left[0]] == [(True, True, 2)]
    assert left[2] == [(0, "", 2)]
    assert oldest_usage_ns(engine) is None
    with read(engine) as connection:
        assert usage_before_ns(connection) > begun_ns


def test_what_is_counted_is_more_than_usage() -> None:
    assert {"usage", "usage_days", "mail_outbox"} <= {one.table.name for one in expiring_tables()}


def test_a_run_with_nothing_to_do_deletes_nothing_and_may_be_repeated(engine: Engine, clock: MovableClock) -> None:
    make_customer(engine)
    for compact in (False, True):
        assert run_retention(engine, now_ns=clock.now_ns(), compact=compact).deleted == {}

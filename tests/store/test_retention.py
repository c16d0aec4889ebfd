"""Usage rows live 90 days; the books stay right without them."""

from sqlalchemy import Engine, func, select

from dragonfly.admission.verify import verify
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read, write
from dragonfly.usage.actions import RETENTION_DAYS, forget_old_usage
from dragonfly.usage.queries import NS_PER_DAY
from dragonfly.usage.tables import usage
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

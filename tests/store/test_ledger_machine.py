"""Random lives of the ledger hold; and known mistakes, put back on purpose, are found."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis.stateful import precondition, rule
from sqlalchemy import Connection, Engine, update

from dragonfly.admission.actions import Claim, extend_lease
from dragonfly.admission.batches import Settled
from dragonfly.infra.database import open_engine, write
from dragonfly.ledger.actions import top_up
from dragonfly.ledger.tables import wallets
from tests.store.ledger_machine import STEPS_PER_LIFE, LedgerMachine, accounts, amounts, copies_of_one, live

LIVES = 3


def databases(url: str, folder: Path) -> Callable[[], Engine]:
    """A copy for each life on SQLite; on PostgreSQL they share one."""
    return copies_of_one(folder) if url.startswith("sqlite") else lambda: open_engine(url)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_random_lives_leave_the_books_right(url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    steps = live(LedgerMachine, databases(url, tmp_path_factory.mktemp("lives")), lives=LIVES)
    assert steps > LIVES * STEPS_PER_LIFE // 2


class ReadsThenWrites(LedgerMachine):
    """Takes money that it saw a while ago: balance read first, subtracted later, without a condition."""

    seen: tuple[int, int] | None = None

    @rule(account=accounts)
    def look(self, account: int) -> None:
        self.seen = (account, self.wallet(account).available_nusd)

    @precondition(lambda self: self.seen is not None)
    @rule(nusd=amounts)
    def take_what_was_seen(self, nusd: int) -> None:
        assert self.seen is not None
        account, available = self.seen
        self.seen = None
        if available >= nusd:
            with write(self.engine) as connection:
                owner = wallets.c.account_id == self.account(account)
                taken = update(wallets).where(owner).values(balance_nusd=wallets.c.balance_nusd - nusd)
                connection.execute(taken)
            self.expected[account] -= nusd


class ChargesReplays(LedgerMachine):
    """Takes a replayed settlement for a new one."""

    def repeated(self, item: Settled) -> Settled:
        ask = item.grant.ask._replace(request_id=self.ids.request(self.now_ns))
        item.grant.ask = ask
        return item


class CreditsEveryEvent(LedgerMachine):
    """Credits each event of a payment, however often it comes."""

    def pay_in(self, connection: Connection, account: int, nusd: int, name: str) -> None:
        top_up(
            connection,
            self.account(account),
            amount_nusd=nusd,
            idempotency_key=f"{name}-{next(self.numbers)}",
            reference=f"payment-{name}",
            now_ns=self.now_ns,
        )


class ForgetsLeases(LedgerMachine):
    """Extends a lease without saying so to the worker that asked, who asks again."""

    def lease(self, connection: Connection, claim: Claim) -> int:
        extend_lease(connection, claim)
        return 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mistake", [ReadsThenWrites, ChargesReplays, CreditsEveryEvent, ForgetsLeases])
def test_a_mistake_that_is_put_back_is_found(mistake: type[LedgerMachine], tmp_path: Path) -> None:
    with pytest.raises(Exception) as caught:
        live(mistake, copies_of_one(tmp_path), lives=20, shrink=False)
    assert isinstance(caught.value, AssertionError | ExceptionGroup) or "CHECK constraint" in str(caught.value)

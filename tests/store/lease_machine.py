"""Two workers with leases, accounts with credit, requests that are held, settled and replayed: half of LedgerMachine.

It drives the statements that production runs, on a real database, and looks at all books after each step. Beside the
proof of the books it keeps its own sum for each account.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection, Engine, func, select

from dragonfly.admission.actions import (
    Claim,
    declare_dead,
    extend_lease,
    register_worker,
    release_leases,
    return_lease,
)
from dragonfly.admission.batches import Settled
from dragonfly.admission.grants import Ask, Charge, Grant, KeyPolicy, Settlement
from dragonfly.admission.rules import Demand
from dragonfly.admission.settling import Settler
from dragonfly.admission.statements import PostgresStatements, SqliteStatements
from dragonfly.admission.verify import verify
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId, IdSource, LeaseId
from dragonfly.core.money import NanoUsd
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import dialect_of, hold_for_writing, read, write
from dragonfly.ledger.actions import expire_credit, grant_credit, top_up
from dragonfly.ledger.disputes import open_dispute
from dragonfly.ledger.journal import IdempotencyConflict
from dragonfly.ledger.queries import EMPTY_WALLET, Wallet, wallet_of
from dragonfly.ledger.tables import lots
from tests.factories import START_NS, make_customer
from tests.store.desk import MODEL, make_gate

ACCOUNTS = 2
WORKERS = 2
LEASE_NUSD = 400
amounts = st.integers(1, 1_000)
accounts = st.integers(0, ACCOUNTS - 1)
workers = st.integers(0, WORKERS - 1)
few = st.integers(0, 3)
"""Of few ids and keys, so that they come again."""


class Crash(Exception):
    """A process dies before its transaction is committed."""


class Purse:
    """What a worker believes to have leased of one account."""

    def __init__(self, lease_id: LeaseId, account: int) -> None:
        self.lease_id = lease_id
        self.account = account
        self.amount = self.held = 0


class Hold:
    """An open request."""

    def __init__(self, purse: Purse, nusd: int) -> None:
        self.purse = purse
        self.nusd = nusd


class LeaseMachine(RuleBasedStateMachine):
    """One life of an installation. `open_database` is set by whoever runs it."""

    open_database: Callable[[], Engine]
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.engine = type(self).open_database()
        self.ids = IdSource()
        self.numbers = count()
        self.now_ns = START_NS
        is_sqlite = dialect_of(self.engine) == "sqlite"
        self.settler = Settler(SqliteStatements() if is_sqlite else PostgresStatements())
        self.customers = [make_customer(self.engine, name=name, usd="0") for name in ("Alice", "Bob")]
        self.tag = self.ids.new("", self.now_ns)
        self.workers = [self._register() for _ in range(WORKERS)]
        self.purses: dict[tuple[int, int], Purse] = {}
        self.holds: list[Hold] = []
        self.settled: list[Settled] = []
        self.expected = [0] * ACCOUNTS
        self.charged = [0] * ACCOUNTS
        self.credits: dict[tuple[int, str], int] = {}
        self.offer = make_gate(self.engine, SystemClock()).offer(MODEL)

    def teardown(self) -> None:
        self.engine.dispose()

    # Credit.

    @rule(account=accounts, nusd=amounts, key=few)
    def top_up(self, account: int, nusd: int, key: int) -> None:
        name = f"paid-{key}"
        with self.at_most_once(account, name, nusd) as connection:
            self.pay_in(connection, account, nusd, name)

    def pay_in(self, connection: Connection, account: int, nusd: int, name: str) -> None:
        top_up(
            connection,
            self.account(account),
            amount_nusd=nusd,
            idempotency_key=name,
            reference=f"payment-{name}",
            now_ns=self.now_ns,
        )

    @rule(account=accounts, nusd=amounts, key=few, lifetime_s=st.sampled_from((None, 5, 50)))
    def grant(self, account: int, nusd: int, key: int, lifetime_s: int | None) -> None:
        expires_at_ns = None if lifetime_s is None else self.now_ns + lifetime_s * 10**9
        with self.at_most_once(account, f"given-{key}", nusd) as connection:
            grant_credit(
                connection,
                self.account(account),
                amount_nusd=nusd,
                idempotency_key=f"given-{key}",
                now_ns=self.now_ns,
                expires_at_ns=expires_at_ns,
            )

    @contextmanager
    def at_most_once(self, account: int, key: str, nusd: int) -> Iterator[Connection]:
        """The credit counts once; another amount under its key is refused."""
        before = self.credits.get((account, key))
        try:
            with write(self.engine) as connection:
                yield connection
        except IdempotencyConflict:
            assert before not in (None, nusd)
            return
        assert before in (None, nusd)
        if before is None:
            self.credits[account, key] = nusd
            self.expected[account] += nusd

    @rule(account=accounts, nusd=amounts)
    def crash_before_the_commit(self, account: int, nusd: int) -> None:
        try:
            with write(self.engine) as connection:
                self.pay_in(connection, account, nusd, f"lost-{next(self.numbers)}")
                open_dispute(
                    connection, self.account(account), dispute_id=self.name("lost", 0), amount_nusd=nusd, now_ns=1
                )
                raise Crash
        except Crash:
            pass

    @rule(seconds=st.sampled_from((1, 10, 100)))
    def expire(self, seconds: int) -> None:
        self.now_ns += seconds * 10**9
        for account in range(ACCOUNTS):
            with read(self.engine) as connection:
                gone = select(func.coalesce(func.sum(lots.c.remaining_nusd), 0)).where(
                    lots.c.account_id == self.account(account), lots.c.expires_at_ns <= self.now_ns
                )
                self.expected[account] -= int(connection.execute(gone).scalar_one())
        with write(self.engine) as connection:
            expire_credit(connection, now_ns=self.now_ns)

    # Requests.

    @rule(worker=workers, account=accounts, nusd=amounts)
    def hold(self, worker: int, account: int, nusd: int) -> None:
        purse = self.purses.get((worker, account))
        if purse is None:
            lease_id = LeaseId(self.ids.new("lea-", self.now_ns))
            purse = self.purses[worker, account] = Purse(lease_id, account)
        if self.ensure(worker, purse, nusd):
            purse.held += nusd
            self.holds.append(Hold(purse, nusd))

    @precondition(lambda self: self.holds)
    @rule(pick=st.integers(0), more=amounts)
    def extend(self, pick: int, more: int) -> None:
        hold = self.holds[pick % len(self.holds)]
        for (worker, _), purse in self.purses.items():
            if purse is hold.purse and self.ensure(worker, purse, more):
                purse.held += more
                hold.nusd += more

    def ensure(self, worker: int, purse: Purse, nusd: int) -> bool:
        """Whether the purse has so much free, extended as needed; a refusal must have been right."""
        free = purse.amount - purse.held
        if free < nusd:
            available = self.wallet(purse.account).available_nusd
            claim = Claim(
                worker_id=self.workers[worker],
                lease_id=purse.lease_id,
                account_id=self.account(purse.account),
                key_id=None,
                free_nusd=free,
                demands=(Demand(nusd, nusd),),
                lease_nusd=LEASE_NUSD,
                now_ns=self.now_ns,
            )
            with write(self.engine) as connection:
                purse.amount += self.lease(connection, claim)
            assert (purse.amount - purse.held >= nusd) == (free + available >= nusd)
        return purse.amount - purse.held >= nusd

    def lease(self, connection: Connection, claim: Claim) -> int:
        return extend_lease(connection, claim).granted_nusd

    @precondition(lambda self: self.holds)
    @rule(picks=st.lists(st.integers(0), min_size=1, max_size=3), share=st.integers(0, 100))
    def settle(self, picks: list[int], share: int) -> None:
        """Several requests in one transaction; with a share of 0 they are released without a charge."""
        chosen = list(dict.fromkeys(self.holds[pick % len(self.holds)] for pick in picks))
        batch = []
        for hold in chosen:
            self.holds.remove(hold)
            cost = hold.nusd * share // 100
            hold.purse.held -= hold.nusd
            hold.purse.amount -= cost
            batch.append(self.request(hold, cost))
        self.write_batch(batch)
        self.settled += batch
        for account in range(ACCOUNTS):
            # A request whose lease is gone pays as far as the wallet goes, so its charge is read, and bounded.
            most = sum(
                item.settlement.charge.cost_nusd
                for item in batch
                if item.grant.ask.key.account_id == self.account(account)
            )
            paid = self.wallet(account).charged_nusd - self.charged[account]
            have_leases = all(hold.purse in self.purses.values() for hold in chosen if hold.purse.account == account)
            assert paid == most if have_leases else 0 <= paid <= most
            self.charged[account] += paid
            self.expected[account] -= paid

    @precondition(lambda self: self.settled)
    @rule(pick=st.integers(0))
    def replay(self, pick: int) -> None:
        """The answer to a commit was lost, so it is written again."""
        self.write_batch([self.repeated(self.settled[pick % len(self.settled)])])

    def repeated(self, item: Settled) -> Settled:
        return item

    @precondition(lambda self: self.holds)
    @rule(pick=st.integers(0))
    def crash_while_settling(self, pick: int) -> None:
        hold = self.holds[pick % len(self.holds)]
        connection = hold_for_writing(self.engine)
        raw = connection.connection
        try:
            self.settler.settle(raw.cursor(), [self.request(hold, hold.nusd)], self.now_ns)
        except Exception:
            pass  # its lease is gone
        raw.rollback()
        self.settler.forget_books()
        connection.close()

    def write_batch(self, batch: list[Settled]) -> None:
        """As the writer's thread: first plainly, then with care."""
        connection = hold_for_writing(self.engine)
        raw = connection.connection
        try:
            self.settler.settle(raw.cursor(), batch, self.now_ns)
        except Exception:
            raw.rollback()
            self.settler.forget_books()
            self.settler.settle_carefully(raw.cursor(), batch, self.now_ns)
        raw.commit()
        connection.close()

    def request(self, hold: Hold, cost: int) -> Settled:
        customer = self.customers[hold.purse.account]
        key = KeyPolicy(customer.key_id, customer.account_id, True, 0, 0, None, None)
        ask = Ask(key, self.ids.request(self.now_ns), (self.offer,), 0, 100, 1, True, self.now_ns)
        charge = Charge(NanoUsd(cost), NanoUsd(cost // 2), NanoUsd(0), NanoUsd(cost), NanoUsd(0))
        outcome = Outcome.COMPLETE if cost else Outcome.EMPTY
        settlement = Settlement(
            outcome, self.offer.candidates[0], TokenUsage(1, 1), charge, MODEL, "stop", 200, 1, 1_000, 2_000
        )
        return Settled(Grant(ask, NanoUsd(hold.nusd), None), settlement, hold.purse.lease_id, False, None)

    # Workers.

    @rule(worker=workers, account=accounts)
    def return_idle(self, worker: int, account: int) -> None:
        purse = self.purses.get((worker, account))
        if purse is not None and not purse.held:
            del self.purses[worker, account]
            with write(self.engine) as connection:
                return_lease(connection, purse.lease_id, now_ns=self.now_ns)

    @rule(worker=workers, are_lost=st.booleans())
    def worker_dies(self, worker: int, are_lost: bool) -> None:
        """Others give its leases back. Its requests are lost, or it was only slow and settles them later."""
        dead = self.workers[worker]
        gone = {account: purse for (owner, account), purse in self.purses.items() if owner == worker}
        self.purses = {place: purse for place, purse in self.purses.items() if place[0] != worker}
        if are_lost:
            self.holds = [hold for hold in self.holds if hold.purse not in gone.values()]
        with write(self.engine) as connection:
            assert declare_dead(connection, dead, beats=0)
        with write(self.engine) as connection:
            assert release_leases(connection, dead, now_ns=self.now_ns)
        self.workers[worker] = self._register()

    # What must hold after each step.

    @invariant()
    def the_books_are_right(self) -> None:
        type(self).steps += 1
        with read(self.engine) as connection:
            report = verify(connection)
        assert report.findings == ()

    @invariant()
    def wallets_are_what_happened_to_them(self) -> None:
        for account in range(ACCOUNTS):
            wallet = self.wallet(account)
            assert 0 <= wallet.leased_nusd <= wallet.balance_nusd == self.expected[account]
            mine = [purse for purse in self.purses.values() if purse.account == account]
            assert wallet.leased_nusd == sum(purse.amount for purse in mine)
            assert all(0 <= purse.held <= purse.amount for purse in mine)

    def account(self, number: int) -> AccountId:
        return self.customers[number].account_id

    def name(self, kind: str, number: int) -> str:
        return f"{kind}-{number}-{self.tag}"

    def wallet(self, account: int) -> Wallet:
        with read(self.engine) as connection:
            return wallet_of(connection, self.account(account)) or EMPTY_WALLET

    def _register(self) -> str:
        worker_id = self.ids.new("wrk-", self.now_ns)
        with write(self.engine) as connection:
            register_worker(connection, worker_id, now_ns=self.now_ns)
        return worker_id

"""The watch over attempts: what this process asks of the budgets and proofs that all workers and nodes share.

Requests that ask at the same time share one transaction, and a process has one such transaction open at a time:
however much strangers send, it costs the database no more than that. A budget that was found empty is not asked for
again before it can have something.
"""

import asyncio
from collections import OrderedDict, deque
from typing import NamedTuple

from sqlalchemy import Engine

from dragonfly.accounts.budgets import Ask, Budget, Verdict, judge
from dragonfly.accounts.proofs import ProofInvalid
from dragonfly.accounts.throttles import Rate, TooManyAttempts
from dragonfly.core.clock import Clock
from dragonfly.core.credentials import Seal
from dragonfly.infra.database import DatabaseAway, DatabaseThreads, write

ASKS_PER_VISIT_MAX = 50
WAITING_MAX = 1_000
EMPTY_MAX = 100_000
"""Budgets that are known to be empty; beyond that the oldest is asked for again."""


class Attempt(NamedTuple):
    """One of something that is counted, by whom."""

    rate: Rate
    subject: str


class Watch:
    """One per process; its methods belong to the event loop."""

    def __init__(self, engine: Engine, threads: DatabaseThreads, clock: Clock, seal: Seal) -> None:
        self._engine = engine
        self._threads = threads
        self._clock = clock
        self._seal = seal
        self._waiting: deque[tuple[Ask, asyncio.Future[Verdict]]] = deque()
        self._visiting: asyncio.Task[None] | None = None
        self._empty_until_s: OrderedDict[bytes, float] = OrderedDict()

    async def admit(self, *attempts: Attempt, proof: bytes | None = None) -> None:
        """Takes one attempt from each budget, or none; notes the digest of a proof. TooManyAttempts, ProofInvalid."""
        budgets = self._budgets(attempts)
        self._refuse_known(budgets)
        verdict = await self._ask(Ask(budgets, proof=proof))
        if not verdict.is_proof_new:
            raise ProofInvalid
        if verdict.empty is not None:
            self._note_empty(verdict.empty, verdict.wait_s)
            raise TooManyAttempts(verdict.wait_s)

    async def give_back(self, *attempts: Attempt) -> None:
        """What was taken in advance and turned out to be right."""
        budgets = self._budgets(attempts)
        await self._ask(Ask(budgets, gives_back=True))
        for budget in budgets:
            self._empty_until_s.pop(budget.digest, None)

    def _budgets(self, attempts: tuple[Attempt, ...]) -> tuple[Budget, ...]:
        return tuple(
            Budget(self._seal.digest("budget", f"{rate.name} {subject}"), rate) for rate, subject in attempts
        )

    def _refuse_known(self, budgets: tuple[Budget, ...]) -> None:
        now_s = self._clock.monotonic_s()
        wait_s = max((self._empty_until_s.get(budget.digest, 0.0) - now_s for budget in budgets), default=0.0)
        if wait_s > 0:
            raise TooManyAttempts(wait_s)

    def _note_empty(self, digest: bytes, wait_s: float) -> None:
        self._empty_until_s[digest] = self._clock.monotonic_s() + wait_s
        while len(self._empty_until_s) > EMPTY_MAX:
            self._empty_until_s.popitem(last=False)

    async def _ask(self, ask: Ask) -> Verdict:
        if len(self._waiting) >= WAITING_MAX:
            raise DatabaseAway
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, answer))
        if self._visiting is None or self._visiting.done():
            self._visiting = asyncio.get_running_loop().create_task(self._visit(), name="watch")
        return await answer

    async def _visit(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(ASKS_PER_VISIT_MAX, len(self._waiting)))]
            try:
                verdicts = await self._threads.run(self._judge, [ask for ask, _ in group])
            except Exception as failure:
                _fail(group, failure)
                continue
            for (_, answer), verdict in zip(group, verdicts, strict=True):
                if not answer.done():  # the client may have left
                    answer.set_result(verdict)

    def _judge(self, asks: list[Ask]) -> list[Verdict]:
        with write(self._engine) as connection:
            return judge(connection, asks, now_ns=self._clock.now_ns())


def _fail(group: list[tuple[Ask, "asyncio.Future[Verdict]"]], failure: Exception) -> None:
    for _, answer in group:
        if not answer.done():
            answer.set_exception(failure)

"""One transaction that settles a batch of requests: usage rows, ledger, wallets, leases, all or nothing.

A request is settled once: its id is the primary key of `usage`. When a batch meets an id that is there already (a
commit whose answer was lost), or a lease that is gone (this worker was taken for dead), it is written again with
care: settled requests are left out, and requests without a lease pay from the open balance, as far as it goes: their
money is drawn from the lots of credit then and there, as a lease would have done.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from dragonfly.admission.batches import Batch, Settled, build, draw_without_lease
from dragonfly.admission.statements import Cursor, Rows, Statements
from dragonfly.core.money import NanoUsd
from dragonfly.ledger.rules import SHARED_BOOKS, BookKind, Lot, payable_book


class BatchRefused(Exception):
    """The database holds other rows than this batch assumes; nothing was committed."""


class Settler:
    """Writes batches through the driver's cursor; knows which books are open, so as to open each once."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._open_books: set[str] = set()

    def settle(self, cursor: Cursor, settled: Sequence[Settled], now_ns: int) -> None:
        """Begins a transaction and writes the batch; the caller commits. BatchRefused when `settle_carefully`
        must do it, after a rollback."""
        self._statements.begin(cursor)
        self._write(cursor, build(settled, now_ns), {})

    def settle_carefully(self, cursor: Cursor, settled: Sequence[Settled], now_ns: int) -> None:
        """The same for a batch that may be settled in part, or whose leases may be gone."""
        self._statements.begin(cursor)
        account_ids = sorted({item.grant.ask.key.account_id for item in settled})
        self._statements.lock_wallets(cursor, account_ids)  # before reading what is open in them
        done = self._ids(cursor, "usage", [item.grant.ask.request_id for item in settled])
        leases = self._ids(cursor, "leases", [item.lease_id for item in settled])
        available = self._statements.find(cursor, "available", account_ids)
        money = {cast(str, account_id): cast(int, nusd) for account_id, nusd in available}
        left = [
            item if item.lease_id in leases else _without_lease(item, money)
            for item in settled
            if item.grant.ask.request_id not in done
        ]
        lots = [Lot(*cast("tuple[Any, ...]", row)) for row in self._statements.find(cursor, "lots", account_ids)]
        self._write(cursor, build(left, now_ns), draw_without_lease(left, lots, now_ns))

    def forget_books(self) -> None:
        """After a rollback: what it opened is not open."""
        self._open_books.clear()

    def _ids(self, cursor: Cursor, name: str, ids: Sequence[str]) -> set[str]:
        return {str(row[0]) for row in self._statements.find(cursor, name, ids)}

    def _write(self, cursor: Cursor, batch: Batch, drawn: Mapping[str, Rows]) -> None:
        """Writes the batch, and after it what was `drawn` for it."""
        self._statements.lock_wallets(cursor, batch.account_ids)
        missing = self._missing_books(batch)
        steps: dict[str, Rows] = {"usage": batch.usage, "books": missing, "groups": batch.groups}
        steps |= {"entries": batch.entries, "leases": batch.leases, "wallets": batch.wallets}
        steps |= {"key_spend": batch.key_spend, "usage_days": batch.usage_days}
        changed = self._statements.write(cursor, steps)
        if drawn:
            self._statements.write(cursor, drawn)
        if changed["usage"] != len(batch.usage) or changed["leases"] != len(batch.leases):
            raise BatchRefused
        assert changed["wallets"] == len(batch.wallets), "who pays has a wallet"
        self._open_books.update(book for book, _ in missing)

    def _missing_books(self, batch: Batch) -> list[tuple[str, str]]:
        """(id, kind) of books that the entries need and that may not be open yet."""
        if not batch.groups:
            return []
        wanted: dict[str, str] = {book: book for book in SHARED_BOOKS}
        wanted |= {payable_book(provider): BookKind.UPSTREAM_PAYABLE.value for provider in batch.providers}
        return [(book, kind) for book, kind in wanted.items() if book not in self._open_books]


def _without_lease(item: Settled, money: dict[str, int]) -> Settled:
    """The item paid from what its account has open, which `money` says and which it lessens. What the account
    cannot pay any more, the operator carries."""
    charge = item.settlement.charge
    account_id = item.grant.ask.key.account_id
    paid = min(charge.cost_nusd, max(0, money.get(account_id, 0)))
    money[account_id] = money.get(account_id, 0) - paid
    prompt = min(charge.prompt_cost_nusd, paid)
    lessened = charge._replace(
        cost_nusd=NanoUsd(paid),
        absorbed_nusd=NanoUsd(charge.absorbed_nusd + charge.cost_nusd - paid),
        prompt_cost_nusd=NanoUsd(prompt),
        completion_cost_nusd=NanoUsd(paid - prompt),
    )
    return item._replace(settlement=item.settlement._replace(charge=lessened), lease_id="", leases_by_key=False)

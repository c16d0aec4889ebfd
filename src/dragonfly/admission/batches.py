"""Pure: what a batch of settlements writes into each table."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from dragonfly.admission.grants import Grant, Settlement
from dragonfly.admission.statements import Rows, Value
from dragonfly.catalog.prices import PriceVersion
from dragonfly.core.ids import AccountId
from dragonfly.ledger.rules import (
    ABSORBED_COST_BOOK,
    REVENUE_BOOK,
    UPSTREAM_COST_BOOK,
    Lot,
    absorbed_upstream_nusd,
    drawn_amounts,
    leased_book,
    make_posting,
    payable_book,
    spending_order,
    split,
)
from dragonfly.usage.queries import NS_PER_DAY, UsageRow

Row = tuple[Value, ...]

_COST, _DAY = UsageRow._fields.index("cost_nusd"), UsageRow._fields.index("day")


class Settled(NamedTuple):
    """One request on its way into the books."""

    grant: Grant
    settlement: Settlement
    lease_id: str
    """The lease that its hold was taken from; "" when it took no money or the lease is gone."""
    leases_by_key: bool
    """The lease counts against the key's spending limit too."""
    on_durable: Callable[[], None] | None


class Batch(NamedTuple):
    """Rows by table, each shaped as its statement in `dragonfly.admission.statements` wants it."""

    usage: list[Row]
    groups: list[Row]
    entries: list[Row]
    wallets: list[Row]
    leases: list[Row]
    key_spend: list[Row]
    usage_days: list[Row]
    account_ids: list[AccountId]
    """Whose rows the batch touches, in the order in which everybody locks them."""
    providers: set[str]
    """Those whose payable book the entries need."""


class _Account:
    """What one account's requests in a batch add up to."""

    __slots__ = ("absorbed", "cost", "group_id", "leased", "upstream")

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.cost = 0
        self.leased = 0
        self.absorbed = 0
        self.upstream: dict[str, int] = {}


def build(settled: Sequence[Settled], now_ns: int) -> Batch:
    """All rows of one transaction. One group of entries per account; its id comes from the first request in it,
    which is settled once, so that the id is new."""
    accounts: dict[AccountId, _Account] = {}
    leases: dict[str, int] = {}
    keys: dict[str, list[int]] = {}
    days: dict[Row, list[int]] = {}
    usage = []
    for item in settled:
        ask = item.grant.ask
        key = ask.key
        charge = item.settlement.charge
        cost = charge.cost_nusd
        group_id = None
        if cost or charge.upstream_nusd:
            account = accounts.get(key.account_id)
            if account is None:
                account = accounts[key.account_id] = _Account(f"settle/{ask.request_id}")
            group_id = account.group_id
            _add_money(account, item)
        if cost:
            spent = keys.setdefault(key.key_id, [0, 0])
            spent[0] += cost
            if item.lease_id:
                leases[item.lease_id] = leases.get(item.lease_id, 0) + cost
                spent[1] += cost if item.leases_by_key else 0
        row = _usage_row(item, group_id)
        usage.append(row)
        _add_to_day(days, row)
    groups: list[Row] = []
    entries: list[Row] = []
    for account_id, account in accounts.items():
        groups.append((account.group_id, "settle", account_id, now_ns))
        _add_entries(entries, account_id, account)
    return Batch(
        usage=usage,
        groups=groups,
        entries=entries,
        wallets=[(account_id, a.cost, a.leased) for account_id, a in accounts.items() if a.cost],
        leases=list(leases.items()),
        key_spend=[(key_id, *spent) for key_id, spent in keys.items()],
        usage_days=sorted((*day, *counts) for day, counts in days.items()),
        account_ids=sorted({item.grant.ask.key.account_id for item in settled}),
        providers={provider for account in accounts.values() for provider in account.upstream},
    )


def draw_without_lease(settled: Sequence[Settled], lots: Sequence[Lot], now_ns: int) -> Mapping[str, Rows]:
    """What moves the money of requests without a lease from the lots into the leased books, by a step's name.

    One group per account; `lots` are all that these accounts have.
    """
    costs: dict[AccountId, tuple[str, int]] = {}
    for item in settled:
        ask = item.grant.ask
        cost: int = item.settlement.charge.cost_nusd
        if cost and not item.lease_id:
            first_id, before = costs.get(ask.key.account_id, (ask.request_id, 0))
            costs[ask.key.account_id] = (first_id, before + cost)
    rows: dict[str, list[Row]] = {"lots": [], "groups": [], "entries": []}
    for account_id, (first_id, cost) in costs.items():
        own = sorted((lot for lot in lots if lot.account_id == account_id), key=spending_order)
        parts = split(own, cost)
        assert sum(part.amount_nusd for part in parts) == cost, "the lots hold what the wallet has available"
        amounts = [*drawn_amounts(account_id, parts), (leased_book(account_id), cost)]
        posting = make_posting(f"draw/{first_id}", "draw", account_id, amounts)
        rows["lots"] += [(part.lot_id, part.amount_nusd) for part in parts]
        rows["groups"].append((posting.id, posting.kind, account_id, now_ns))
        rows["entries"] += [(posting.id, entry.book_id, entry.amount_nusd) for entry in posting.entries]
    return rows if costs else {}


def _add_money(account: _Account, item: Settled) -> None:
    charge = item.settlement.charge
    account.cost += charge.cost_nusd
    if item.lease_id:
        account.leased += charge.cost_nusd
    if charge.upstream_nusd:
        candidate = item.settlement.candidate
        assert candidate is not None, "only a provider that was reached bills anything"
        provider = candidate.channel.provider
        account.upstream[provider] = account.upstream.get(provider, 0) + charge.upstream_nusd
        account.absorbed += absorbed_upstream_nusd(charge.upstream_nusd, charge.absorbed_nusd)


def _add_entries(entries: list[Row], account_id: AccountId, account: _Account) -> None:
    group_id = account.group_id
    if account.cost:
        entries.append((group_id, leased_book(account_id), -account.cost))
        entries.append((group_id, REVENUE_BOOK, account.cost))
    upstream = 0
    for provider, billed in account.upstream.items():
        entries.append((group_id, payable_book(provider), billed))
        upstream += billed
    if account.absorbed:
        entries.append((group_id, ABSORBED_COST_BOOK, -account.absorbed))
    if upstream - account.absorbed:
        entries.append((group_id, UPSTREAM_COST_BOOK, account.absorbed - upstream))


def _usage_row(item: Settled, group_id: str | None) -> Row:
    """In the order of usage.queries.UsageRow."""
    grant, settlement = item.grant, item.settlement
    ask, usage, charge, candidate = grant.ask, settlement.usage, settlement.charge, settlement.candidate
    if candidate is None:
        provider = channel_id = price_id = ""
    else:
        provider, channel_id = candidate.channel.provider, candidate.channel.id
        price_id = cast(PriceVersion, candidate.price).id
    return (
        ask.request_id,
        ask.key.account_id,
        ask.key.key_id,
        settlement.answered_model,
        provider,
        channel_id,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.cache_write_1h_tokens,
        usage.basis.value,
        price_id,
        grant.hold_nusd,
        charge.cost_nusd,
        charge.prompt_cost_nusd,
        charge.upstream_nusd,
        charge.absorbed_nusd,
        group_id,
        settlement.outcome.value,
        settlement.finish_reason,
        int(ask.streamed),
        settlement.attempts,
        settlement.upstream_status,
        settlement.ttft_us,
        settlement.duration_us,
        ask.started_ns // NS_PER_DAY,
        ask.started_ns,
    )


def _add_to_day(days: dict[Row, list[int]], row: Row) -> None:
    _, account_id, key_id, model, provider, _, prompt, completion, cached, _, reasoning = row[:11]
    cost, day = row[_COST], row[_DAY]
    place = (key_id, day, model, provider, account_id)
    added = (1, prompt, completion, cached, reasoning, cost)
    counts = days.get(place)
    if counts is None:
        days[place] = list(cast("tuple[int, ...]", added))
        return
    for index, count in enumerate(cast("tuple[int, ...]", added)):
        counts[index] += count

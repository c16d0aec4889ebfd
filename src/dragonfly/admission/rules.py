"""Pure decisions about money: how much to hold, how much to lease, what to charge. Amounts in nano-USD."""

from collections.abc import Sequence
from typing import NamedTuple, cast

from dragonfly.admission.grants import Ask, Candidate, Charge
from dragonfly.catalog.prices import TOKENS_MAX, PriceVersion
from dragonfly.core.ids import AccountId, RequestId
from dragonfly.core.money import ZERO, NanoUsd
from dragonfly.core.outcomes import CHARGING, Charging, Outcome
from dragonfly.core.tokens import TokenUsage

BYTES_PER_TOKEN_MIN = 2
"""No tokenizer makes more tokens of a JSON body than one per this many bytes. Latin text has four, Chinese three
bytes per character of one token or less."""
PROMPT_TOKENS_EXTRA = 64
"""What providers add around messages."""
OUTPUT_TOKENS_MIN = 16
"""Per choice. When the money does not cover even this much output, the request is refused."""
STEP_TOKENS = 2_048
"""Output per choice that a stream holds at first, and by which its hold grows."""
LEASE_SHARE = 8
"""A lease takes at most this fraction of what a wallet has left, so that several workers find some."""


STOP = "stop"


class Demand(NamedTuple):
    """What one request needs held."""

    full_nusd: int
    """The most it can cost as asked."""
    least_nusd: int
    """The least for which it may run; below `full_nusd` only when the caller set no output limit."""


class Step(NamedTuple):
    """A larger hold for a stream that goes on."""

    hold_nusd: int
    covered_tokens: int | None
    """As in Grant."""


class Hold(NamedTuple):
    """What is held for one request."""

    hold_nusd: int
    output_tokens_clamp: int | None
    """Per choice; see Grant."""


def most_nusd(ask: Ask, output_tokens: int | None) -> int:
    """The most that the request can cost with at most that many output tokens per choice, at the dearest
    candidate that it may reach; None: as many as the model can make."""
    most = 0
    for offer in ask.offers:
        prompt = ask.body_bytes // BYTES_PER_TOKEN_MIN + PROMPT_TOKENS_EXTRA + ask.media_tokens
        if prompt > offer.context_tokens_max:
            prompt = offer.context_tokens_max
        output = offer.output_tokens_max
        if output_tokens is not None and output_tokens < output:
            output = output_tokens
        if ask.extra_tokens:
            output += min(offer.output_tokens_max, ask.extra_tokens)
        output *= ask.choices
        if output > TOKENS_MAX:
            output = TOKENS_MAX
        for candidate in offer.candidates:
            nusd = _price(candidate).most_nusd(prompt, output)
            if nusd > most:
                most = nusd
    return most


def stop_subject(account_id: AccountId, request_id: RequestId) -> str:
    """What the feed of changes says when an account wants one of its answers to end."""
    return f"{STOP}/{account_id}/{request_id}"


def first_tokens(ask: Ask) -> int | None:
    """Output per choice that is held before the request is sent; None: as much as the model can make."""
    limit = ask.output_tokens
    if not ask.streamed or (limit is not None and limit <= STEP_TOKENS):
        return limit
    for offer in ask.offers:
        if not offer.grows:
            return limit
    return STEP_TOKENS


def next_step(ask: Ask, limit: int | None, tokens: int) -> Step:
    """The hold for `tokens` of output per choice, `limit` being the most that the request may make."""
    most = max(offer.output_tokens_max for offer in ask.offers)
    if tokens >= most or (limit is not None and tokens >= limit):
        return Step(most_nusd(ask, limit), None)
    return Step(most_nusd(ask, tokens), tokens)


def demand(ask: Ask) -> Demand:
    """What must be held for the request at first, and what would do."""
    full = most_nusd(ask, first_tokens(ask))
    if ask.output_tokens is not None:
        return Demand(full, full)
    return Demand(full, most_nusd(ask, OUTPUT_TOKENS_MIN))


def hold_within(ask: Ask, wanted: Demand, free_nusd: int) -> Hold | None:
    """The hold that `free_nusd` affords: the full one, or one for as many output tokens as it covers, or None."""
    if wanted.full_nusd <= free_nusd:
        return Hold(wanted.full_nusd, None)
    if wanted.least_nusd > free_nusd:
        return None
    affordable = affordable_tokens(ask, free_nusd)
    return Hold(most_nusd(ask, affordable), affordable)


def affordable_tokens(ask: Ask, nusd: int) -> int:
    """The output per choice that `nusd` covers, which is at least OUTPUT_TOKENS_MIN and less than all."""
    affordable, too_many = OUTPUT_TOKENS_MIN, max(offer.output_tokens_max for offer in ask.offers)
    while too_many - affordable > 1:
        middle = (affordable + too_many) // 2
        if most_nusd(ask, middle) <= nusd:
            affordable = middle
        else:
            too_many = middle
    return affordable


def lease_amount(free_nusd: int, available_nusd: int, demands: Sequence[Demand], lease_nusd: int) -> int:
    """How much to add to a lease of which `free_nusd` is left, for requests that wait in this order.

    `available_nusd` is what the wallet could still give. Small wallets give just what the requests need; large
    ones `lease_nusd` at a time, so that the requests that follow need not ask. 0: none of them can be helped.
    """
    within = free_nusd + available_nusd
    needed = 0
    for full, least in demands:
        if needed + full <= within:
            needed += full
        elif needed + least <= within:
            needed = within
    missing = needed - free_nusd
    if missing <= 0 and demands:
        return 0
    missing = max(0, missing)
    if available_nusd <= lease_nusd:
        return missing
    return max(missing, min(lease_nusd, available_nusd // LEASE_SHARE))


def charge(hold_nusd: int, candidate: Candidate, usage: TokenUsage, outcome: Outcome) -> Charge:
    """What the request costs each side. The customer never pays above the hold, nor for what went wrong on the
    provider's side or ours; the operator carries the difference."""
    cost = _price(candidate).cost(usage)
    if CHARGING[outcome] is Charging.NOTHING:
        return Charge(ZERO, NanoUsd(cost.upstream_nusd), NanoUsd(cost.customer_nusd), ZERO, ZERO)
    customer, upstream, prompt, _ = cost
    paid = customer if customer <= hold_nusd else hold_nusd
    if prompt > paid:
        prompt = paid
    amounts = (paid, upstream, customer - paid, prompt, paid - prompt)
    return Charge(*cast("tuple[NanoUsd, ...]", amounts))


def _price(candidate: Candidate) -> PriceVersion:
    price = candidate.price
    assert isinstance(price, PriceVersion), "a candidate is made here, from the catalogue's price"
    return price

"""Which channels may serve a request, and in which order they are tried. Pure decisions."""

from dataclasses import replace

import msgspec

from dragonfly.admission.grants import Candidate, Offer
from dragonfly.core.errors import DragonflyError
from dragonfly.core.money import NUSD_PER_USD
from dragonfly.core.routing import RoutingRules
from dragonfly.gateway.health import HealthBoard, Standing
from dragonfly.gateway.purse import Purse
from dragonfly.gateway.refusals import Refusal
from dragonfly.gateway.wire.chat import NO_PREFERENCES, MaxPrice, Preferences


def offers_of(purse: Purse, names: tuple[str, ...]) -> tuple[Offer, ...]:
    """The models asked for; an unknown fallback is left out as long as one model is known."""
    if len(names) == 1:
        return (purse.offer(names[0]),)
    offers = []
    refusal: DragonflyError | None = None
    for name in names:
        try:
            offers.append(purse.offer(name))
        except DragonflyError as error:
            refusal = refusal or error
    if not offers and refusal is not None:
        raise refusal
    return tuple(offers)


def eligible(offers: tuple[Offer, ...], wishes: Preferences) -> tuple[Offer, ...]:
    """The offers with only those channels that the caller's `provider` object allows."""
    if wishes is NO_PREFERENCES:
        return offers
    kept = []
    for offer in offers:
        candidates = tuple(candidate for candidate in offer.candidates if _allowed(candidate, wishes))
        if candidates:
            kept.append(replace(offer, candidates=candidates))
    if not kept:
        if wishes.data_collection == "deny" or wishes.zdr:
            _blame_privacy(offers, wishes)
        raise Refusal(
            "no_route",
            "No channel of this model meets the request's `provider` constraints. Relax only, ignore or max_price.",
            param="provider",
        )
    return tuple(kept)


def _allowed(candidate: Candidate, wishes: Preferences) -> bool:
    names = (candidate.channel.provider, candidate.channel.id)
    if wishes.only and not any(name in wishes.only for name in names):
        return False
    if any(name in wishes.ignore for name in names):
        return False
    if not _discreet(candidate, wishes):
        return False
    return wishes.max_price is None or _affordable(candidate, wishes.max_price)


def _discreet(candidate: Candidate, wishes: Preferences) -> bool:
    if wishes.data_collection == "deny" and candidate.channel.may_train:
        return False
    return not (wishes.zdr and candidate.channel.may_retain)


def _blame_privacy(offers: tuple[Offer, ...], wishes: Preferences) -> None:
    """Names the rule when it alone leaves no channel: nobody should have to guess, and nothing is sent."""
    if any(_discreet(candidate, wishes) for offer in offers for candidate in offer.candidates):
        return
    rule = "zdr" if wishes.zdr else "data_collection"
    raise Refusal(
        "privacy_restricted",
        f"No channel of this model meets the data policy `{rule}` of the request or of the key's routing profile."
        " Choose a model whose providers do, or change the policy.",
        param="provider",
    )


def preferences_of(rules: RoutingRules) -> Preferences:
    """A key's routing profile in the words of a request."""
    prompt, completion = rules.prompt_nusd_per_mtok_max, rules.completion_nusd_per_mtok_max
    ceiling = MaxPrice(
        prompt=None if prompt is None else prompt / NUSD_PER_USD,
        completion=None if completion is None else completion / NUSD_PER_USD,
    )
    return Preferences(
        order=list(rules.order),
        only=list(rules.only),
        ignore=list(rules.ignore),
        allow_fallbacks=rules.allow_fallbacks,
        sort=None if rules.sort is None else rules.sort.value,
        max_price=ceiling,
        data_collection="deny" if rules.deny_data_collection else None,
        zdr=rules.zero_retention,
    )


def guided(wishes: Preferences, profile: Preferences) -> Preferences:
    """The request's wishes about the order of channels, the profile's where it has none. What a channel must meet
    is not merged: `eligible` asks both, so that a request can only narrow what its key's profile allows."""
    return msgspec.structs.replace(
        wishes,
        order=wishes.order or profile.order,
        sort=wishes.sort or profile.sort,
        allow_fallbacks=wishes.allow_fallbacks and profile.allow_fallbacks,
    )


def _affordable(candidate: Candidate, ceiling: MaxPrice) -> bool:
    if ceiling.prompt is not None and candidate.prompt_nusd_per_mtok > ceiling.prompt * NUSD_PER_USD:
        return False
    return ceiling.completion is None or candidate.completion_nusd_per_mtok <= ceiling.completion * NUSD_PER_USD


def in_order(offers: tuple[Offer, ...], wishes: Preferences, board: HealthBoard) -> list[tuple[Offer, Candidate]]:
    """Every channel to try, best first: the caller's models in their order, within each by wish and health."""
    if len(offers) == 1 and len(offers[0].candidates) == 1:
        return [(offers[0], offers[0].candidates[0])]
    ordered: list[tuple[Offer, Candidate]] = []
    for offer in offers:
        ranked = sorted(offer.candidates, key=lambda candidate: _rank(candidate, wishes, board))
        ordered.extend((offer, candidate) for candidate in ranked)
    return ordered if wishes.allow_fallbacks else ordered[:1]


def _rank(candidate: Candidate, wishes: Preferences, board: HealthBoard) -> tuple[int, int, float, float]:
    """Sort key: standing, the caller's order, the caller's sort, then price."""
    channel = candidate.channel
    health = board.of(channel.id)
    standing = board.standing(health, channel.concurrency_max)
    price = float(candidate.prompt_nusd_per_mtok * 3 + candidate.completion_nusd_per_mtok)
    if wishes.sort == "latency":
        wish = health.latency_s
    elif wishes.sort == "throughput":
        wish = -health.tokens_per_s
    else:
        wish = price
    return (int(standing >= Standing.COOLING), _position(candidate, wishes.order), wish, price)


def _position(candidate: Candidate, order: list[str]) -> int:
    for name in (candidate.channel.id, candidate.channel.provider):
        if name in order:
            return order.index(name)
    return len(order)

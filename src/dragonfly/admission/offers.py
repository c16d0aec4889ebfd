"""What the catalogue sells at this moment, in the data plane's words."""

from collections.abc import Set

from dragonfly.admission.errors import ModelOutOfService, ModelUnpriced
from dragonfly.admission.grants import Candidate, Offer
from dragonfly.catalog.catalog import Listing
from dragonfly.providers.dialects import dialect


def offer_of(listing: Listing, paused: Set[str]) -> Offer:
    """ModelUnpriced when no channel has a price now, ModelOutOfService when all that have one are paused."""
    priced = [(channel, price) for channel, price in listing.channels if price is not None]
    if not priced:
        raise ModelUnpriced
    candidates = []
    for channel, price in priced:
        if channel.id in paused:
            continue
        prompt, completion = (price.customer_rate(rate) for rate in (price.rates.prompt, price.rates.completion))
        candidates.append(Candidate(channel, price, round(prompt), round(completion)))
    if not candidates:
        raise ModelOutOfService
    grows = not any(dialect(candidate.channel.dialect).hides_output for candidate in candidates)
    return Offer(listing.model, tuple(candidates), listing.context_tokens_max, listing.output_tokens_max, grows)

"""What a caller may demand of the way a request takes: a value, its merging, and its stored form."""

import enum
import json
from dataclasses import dataclass


class Sort(enum.Enum):
    """What the first channel should be best at."""

    PRICE = "price"
    LATENCY = "latency"
    THROUGHPUT = "throughput"


@dataclass(frozen=True, slots=True)
class RoutingRules:
    """A routing policy. Names are provider slugs or channel ids; ceilings are nano-USD per million tokens.

    `order`, `sort` and `allow_fallbacks` are wishes; the rest are walls that a single request may only move inwards.
    """

    order: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    """Empty: every provider."""
    ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    sort: Sort | None = None
    prompt_nusd_per_mtok_max: int | None = None
    completion_nusd_per_mtok_max: int | None = None
    deny_data_collection: bool = False
    """Only channels whose provider is known not to train on what it is sent."""
    zero_retention: bool = False
    """Only channels whose provider is known to keep nothing of what it is sent."""

    def to_json(self) -> str:
        """The stored form; `from_json` reads it."""
        shown = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({**shown, "sort": self.sort and self.sort.value}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "RoutingRules":
        """What `to_json` wrote."""
        stored = json.loads(text)
        for name in ("order", "only", "ignore"):
            stored[name] = tuple(stored[name])
        sort = stored.pop("sort")
        return cls(sort=None if sort is None else Sort(sort), **stored)

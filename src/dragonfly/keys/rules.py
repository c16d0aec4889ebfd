"""Pure rules of keys: which pepper hashes them, and what limits one may carry."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dragonfly.core.addresses import parse_networks
from dragonfly.core.secrets import keyed_digest

PEPPER_BYTES_MIN = 32
MODELS_MAX = 200
MODEL_LENGTH_MAX = 200
NAME_LENGTH_MAX = 100
REQUESTS_PER_MINUTE_MAX = 1_000_000
CONCURRENCY_MAX = 100_000
SPEND_LIMIT_NUSD_MAX = 10**18
TOKENS_PER_MINUTE_MAX = 1_000_000_000
NETWORKS_MAX = 50
KEY_GROUP_LENGTH_MAX = 64
_KEY_GROUP = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)


class Peppers:
    """The secrets that keys are hashed with, by version. The highest version hashes new keys.

    They live outside the database and its backups: a copy of the database then confirms no guessed key, and who
    can write to the database still cannot plant one.
    """

    __slots__ = ("_by_version", "current")

    def __init__(self, by_version: Mapping[int, bytes]) -> None:
        if not by_version or any(len(pepper) < PEPPER_BYTES_MIN for pepper in by_version.values()):
            raise ValueError(f"a pepper has at least {PEPPER_BYTES_MIN} bytes")
        if any(version < 1 for version in by_version):
            raise ValueError("versions of peppers count from 1")
        self._by_version = dict(by_version)
        self.current = max(by_version)

    def digest(self, version: int, secret: bytes) -> bytes | None:
        """The digest under that version; None when its pepper is gone, and with it every key of that version."""
        pepper = self._by_version.get(version)
        return None if pepper is None else keyed_digest(pepper, secret)

    def __repr__(self) -> str:
        return f"Peppers(current={self.current})"


class SpendLimits(NamedTuple):
    """The most that may be spent in a day, a week (from Monday) and a month of UTC, in nano-USD; None: no limit."""

    daily_nusd: int | None = None
    weekly_nusd: int | None = None
    monthly_nusd: int | None = None

    @property
    def is_none(self) -> bool:
        return self.daily_nusd is None and self.weekly_nusd is None and self.monthly_nusd is None

    def is_valid(self) -> bool:
        return all(_lies_in(value, SPEND_LIMIT_NUSD_MAX) for value in self)

    def and_within(self, others: "SpendLimits") -> "SpendLimits":
        """What holds when both do: of each, the lower one."""
        return SpendLimits(*(_lower(one, other) for one, other in zip(self, others, strict=True)))


NO_SPEND_LIMITS = SpendLimits()


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may do; None: the installation's default, and for models, money and expiry no limit."""

    requests_per_minute: int | None = None
    """0: no limit."""
    concurrency_max: int | None = None
    """0: no limit."""
    spend_limit_nusd: int | None = None
    models: frozenset[str] | None = None
    expires_at_ns: int | None = None
    tokens_per_minute: int | None = None
    """0: no limit."""
    spend_daily_nusd: int | None = None
    spend_weekly_nusd: int | None = None
    spend_monthly_nusd: int | None = None
    networks: tuple[str, ...] | None = None
    """CIDR; None: usable from anywhere."""

    @property
    def spend(self) -> SpendLimits:
        return SpendLimits(self.spend_daily_nusd, self.spend_weekly_nusd, self.spend_monthly_nusd)

    def is_valid(self) -> bool:
        """Every number in its bounds, and a list of models that is neither empty nor endless."""
        models = self.models
        return (
            _lies_in(self.requests_per_minute, REQUESTS_PER_MINUTE_MAX)
            and _lies_in(self.concurrency_max, CONCURRENCY_MAX)
            and _lies_in(self.spend_limit_nusd, SPEND_LIMIT_NUSD_MAX)
            and _lies_in(self.tokens_per_minute, TOKENS_PER_MINUTE_MAX)
            and self.spend.is_valid()
            and (self.networks is None or _are_networks(self.networks))
            and (self.expires_at_ns is None or 0 < self.expires_at_ns < 2**63)
            and (models is None or 0 < len(models) <= MODELS_MAX)
            and all(0 < len(model) <= MODEL_LENGTH_MAX for model in models or ())
        )


def _are_networks(texts: tuple[str, ...]) -> bool:
    try:
        return 0 < len(parse_networks(texts)) <= NETWORKS_MAX
    except ValueError:
        return False


def is_name(text: str) -> bool:
    """What a person may call a key."""
    return 0 < len(text) <= NAME_LENGTH_MAX and text.isprintable()


def is_key_group(text: str) -> bool:
    """A label that groups usage; empty: none."""
    return not text or _KEY_GROUP.fullmatch(text) is not None


def _lower(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _lies_in(value: int | None, most: int) -> bool:
    return value is None or 0 <= value <= most

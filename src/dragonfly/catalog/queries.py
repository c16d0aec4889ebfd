"""Reads of routing profiles and of channels out of service."""

from typing import NamedTuple

from sqlalchemy import Connection, Row, select

from dragonfly.catalog.tables import channel_pauses, routing_profiles
from dragonfly.core.ids import AccountId
from dragonfly.core.routing import RoutingRules

PROFILES_PAGE_MAX = 100
PAUSES_MAX = 10_000


class RoutingProfile(NamedTuple):
    """A named routing policy; times in nanoseconds since the epoch."""

    id: str
    account_id: AccountId
    name: str
    rules: RoutingRules
    created_at_ns: int
    updated_at_ns: int


def profile_of_account(connection: Connection, profile_id: str, *, account_id: AccountId) -> RoutingProfile | None:
    """The account's profile with that id, or None."""
    wanted = select(routing_profiles).where(
        routing_profiles.c.id == profile_id, routing_profiles.c.account_id == account_id
    )
    row = connection.execute(wanted).one_or_none()
    return None if row is None else _profile(row)


def profiles_of_account(
    connection: Connection, account_id: AccountId, *, after: str = "", limit: int = 100
) -> list[RoutingProfile]:
    """The account's profiles in the order of their creation."""
    wanted = select(routing_profiles).where(
        routing_profiles.c.account_id == account_id, routing_profiles.c.id > after
    )
    wanted = wanted.order_by(routing_profiles.c.id).limit(min(limit, PROFILES_PAGE_MAX + 1))
    return [_profile(row) for row in connection.execute(wanted)]


def paused_channels(connection: Connection) -> frozenset[str]:
    """The ids of channels that are out of service."""
    return frozenset(connection.execute(select(channel_pauses.c.channel_id).limit(PAUSES_MAX)).scalars())


def _profile(row: Row[tuple[object, ...]]) -> RoutingProfile:
    stored = row._mapping
    return RoutingProfile(**{**stored, "rules": RoutingRules.from_json(stored["rules"])})

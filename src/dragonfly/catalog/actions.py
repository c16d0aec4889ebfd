"""What changes routing profiles and the service of channels. Each runs inside a transaction of its caller."""

import re

from sqlalchemy import Connection, and_, column, delete, func, insert, select, table, update

from dragonfly.catalog.tables import channel_pauses, routing_profiles
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.routing import RoutingRules
from dragonfly.infra.changes import record_change
from dragonfly.infra.database import insert_missing

PROFILES_PER_ACCOUNT_MAX = 100
NAME_LENGTH_MAX = 100
NAMES_MAX = 50
CEILING_NUSD_MAX = 10**15
"""A million USD per million tokens."""
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,255}", re.ASCII)

_keys = table("keys", column("routing_profile_id"), column("account_id"), column("revoked_at_ns"))


class RoutingInvalid(DragonflyError):
    """A name or a rule out of bounds."""

    code = "routing_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__(
            "A routing profile needs a name of 1 to 100 printable characters, at most 50 names in a list"
            " (provider slugs or channel ids) and price ceilings that are not negative."
        )


class RoutingProfileNotFound(DragonflyError):
    code = "routing_profile_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such routing profile. GET /api/routing/profiles lists yours.")


class RoutingProfileInUse(DragonflyError):
    """Deleting it would lift the walls around the keys that are bound to it."""

    code = "routing_profile_in_use"
    status = 409

    def __init__(self, *, bound: int) -> None:
        super().__init__(f"Keys are bound to this profile ({bound}). Bind them to another one or revoke them first.")


class TooManyProfiles(DragonflyError):
    code = "too_many_routing_profiles"
    status = 409

    def __init__(self) -> None:
        super().__init__(f"An account holds at most {PROFILES_PER_ACCOUNT_MAX} routing profiles. Delete one first.")


def create_profile(
    connection: Connection, ids: IdSource, account_id: AccountId, *, name: str, rules: RoutingRules, now_ns: int
) -> str:
    """A new profile; its id. RoutingInvalid, TooManyProfiles."""
    _check(name, rules)
    owned = select(func.count()).where(routing_profiles.c.account_id == account_id)
    if connection.execute(owned).scalar_one() >= PROFILES_PER_ACCOUNT_MAX:
        raise TooManyProfiles
    profile_id = ids.new("rtp-", now_ns)
    row = {
        "id": profile_id,
        "account_id": account_id,
        "name": name,
        "rules": rules.to_json(),
        "created_at_ns": now_ns,
        "updated_at_ns": now_ns,
    }
    connection.execute(insert(routing_profiles).values(row))
    return profile_id


def change_profile(
    connection: Connection, profile_id: str, *, account_id: AccountId, name: str, rules: RoutingRules, now_ns: int
) -> None:
    """Replaces name and rules; keys that are bound to it follow within a second. RoutingProfileNotFound."""
    _check(name, rules)
    owned = and_(routing_profiles.c.id == profile_id, routing_profiles.c.account_id == account_id)
    row = {"name": name, "rules": rules.to_json(), "updated_at_ns": now_ns}
    if not connection.execute(update(routing_profiles).where(owned).values(row)).rowcount:
        raise RoutingProfileNotFound
    record_change(connection, f"account/{account_id}")


def delete_profile(connection: Connection, profile_id: str, *, account_id: AccountId) -> None:
    """Removes a profile that no living key is bound to. RoutingProfileNotFound, RoutingProfileInUse."""
    owned = and_(routing_profiles.c.id == profile_id, routing_profiles.c.account_id == account_id)
    if connection.execute(select(routing_profiles.c.id).where(owned).with_for_update()).one_or_none() is None:
        raise RoutingProfileNotFound
    bound = and_(_keys.c.routing_profile_id == profile_id, _keys.c.account_id == account_id)
    living = connection.execute(select(func.count()).where(bound, _keys.c.revoked_at_ns.is_(None))).scalar_one()
    if living:
        raise RoutingProfileInUse(bound=living)
    connection.execute(update(_keys).where(bound).values(routing_profile_id=None))
    connection.execute(delete(routing_profiles).where(owned))


def pause_channel(connection: Connection, channel_id: str, *, now_ns: int) -> bool:
    """Takes a channel out of service on every worker within a second; False when it was out already."""
    return insert_missing(connection, channel_pauses, {"channel_id": channel_id, "paused_at_ns": now_ns})


def resume_channel(connection: Connection, channel_id: str) -> bool:
    """Puts a channel back into service; False when it was not out."""
    return bool(connection.execute(delete(channel_pauses).where(channel_pauses.c.channel_id == channel_id)).rowcount)


def _check(name: str, rules: RoutingRules) -> None:
    lists = (rules.order, rules.only, rules.ignore)
    ceilings = (rules.prompt_nusd_per_mtok_max, rules.completion_nusd_per_mtok_max)
    is_valid = (
        0 < len(name) <= NAME_LENGTH_MAX
        and name.isprintable()
        and all(len(names) <= NAMES_MAX for names in lists)
        and all(_CHANNEL.fullmatch(channel) for names in lists for channel in names)
        and all(ceiling is None or 0 <= ceiling <= CEILING_NUSD_MAX for ceiling in ceilings)
    )
    if not is_valid:
        raise RoutingInvalid

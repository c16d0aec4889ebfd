"""The breaker: a key that suddenly spends far above its habit is paused, and its owner is told by mail.

The rule: a key is paused when what it has spent in the running day of UTC is at least `breaker_floor_nusd` and more
than `breaker_factor` times the mean of its days with spending among the 14 before. A key with fewer than 3 such days
has no habit yet and is not paused. After its owner let it go on, it is left alone for 24 hours.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from dragonfly.accounts.people import person_of
from dragonfly.accounts.queries import account_by_id
from dragonfly.core.ids import AccountId, IdSource, KeyId
from dragonfly.keys.actions import pause_key
from dragonfly.keys.queries import StoredKey, key_of_account, owner_of_key
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import queue_mail
from dragonfly.mail.rules import mail_language, mail_moment
from dragonfly.settings import AdmissionSettings
from dragonfly.usage.queries import NS_PER_DAY, day_of
from dragonfly.usage.tables import usage_days

HABIT_DAYS = 14
HABIT_DAYS_MIN = 3
LEFT_ALONE_NS = NS_PER_DAY
KEYS_PER_LOOK_MAX = 100
"""Those that spent most since the last look; the others have their turn when they spend more."""


class Spending(NamedTuple):
    """What one key spent, in nano-USD."""

    today_nusd: int
    days_nusd: tuple[int, ...]
    """Of each day with spending before today."""


def is_far_above(spending: Spending, *, factor: int, floor_nusd: int) -> bool:
    """The rule above, for a key that is not left alone."""
    today, days = spending
    if not factor or today < floor_nusd or len(days) < HABIT_DAYS_MIN:
        return False
    return today * len(days) > factor * sum(days)


def spending_of(connection: Connection, key_id: KeyId, *, now_ns: int) -> Spending:
    """Today's and the days' before; reads at most 15 days of one key."""
    today = day_of(now_ns)
    wanted = (
        select(usage_days.c.day, func.sum(usage_days.c.cost_nusd))
        .where(usage_days.c.key_id == key_id, usage_days.c.day.between(today - HABIT_DAYS, today))
        .group_by(usage_days.c.day)
    )
    costs = {int(day): int(cost) for day, cost in connection.execute(wanted)}
    return Spending(costs.pop(today, 0), tuple(cost for cost in costs.values() if cost))


def trip_breakers(
    connection: Connection, ids: IdSource, spent: Mapping[KeyId, int], settings: AdmissionSettings, *, now_ns: int
) -> int:
    """Pauses those of the keys that spent far above their habit and tells their owners; how many there were."""
    busiest = sorted(spent, key=lambda key_id: -spent[key_id])[:KEYS_PER_LOOK_MAX]
    tripped = 0
    for key_id in busiest:
        spending = spending_of(connection, key_id, now_ns=now_ns)
        if not is_far_above(spending, factor=settings.breaker_factor, floor_nusd=settings.breaker_floor_nusd):
            continue
        owner = owner_of_key(connection, key_id)
        key = None if owner is None else key_of_account(connection, key_id, account_id=owner)
        if key is None or owner is None or _is_left_alone(key, now_ns):
            continue
        if pause_key(connection, key_id, now_ns=now_ns):
            _tell_owner(connection, ids, owner, key, now_ns=now_ns)
            tripped += 1
    return tripped


def _is_left_alone(key: StoredKey, now_ns: int) -> bool:
    return key.resumed_at_ns is not None and now_ns - key.resumed_at_ns < LEFT_ALONE_NS


def _tell_owner(connection: Connection, ids: IdSource, owner: AccountId, key: StoredKey, *, now_ns: int) -> None:
    account, person = account_by_id(connection, owner), person_of(connection, owner)
    if account is None or not account.email:
        return
    queue_mail(
        connection,
        ids,
        kind=MailKind.SPEND_BREAKER,
        account_id=owner,
        address=account.email,
        language=mail_language(None if person is None else person.language),
        values={"time": mail_moment(now_ns), "name": key.name, "hint": key.hint},
        idempotency_key=f"spend-breaker/{key.id}/{now_ns}",
        now_ns=now_ns,
    )

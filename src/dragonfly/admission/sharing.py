"""What several workers share of a key's limits, in the database. Each call runs in a transaction of its caller.

There is one bucket per key and kind for all workers; each takes a part that is small against the limit and uses it
without asking. Places for open requests are handed out like money: those of all workers together never exceed the
limit. So a limit is exceeded at most by what idle workers have taken and not used, which is one part each.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Update, delete, func, insert, select, update

from dragonfly.admission.tables import shared_places, shared_rates, workers
from dragonfly.core.ids import KeyId
from dragonfly.infra.database import insert_missing

MINUTE_NS = 60 * 10**9
KEYS_PER_READ = 500
REQUESTS, TOKENS = "requests", "tokens"


class ShareLost(Exception):
    """This worker was declared dead: it shares nothing under this name any more."""


class Want(NamedTuple):
    """What a worker asks for one key. A limit of 0 is none."""

    key_id: KeyId
    worker_id: str
    now_ns: int
    requests_limit: int
    requests: int
    tokens_limit: int
    tokens: int
    places_limit: int
    places: int


class Got(NamedTuple):
    """What it gets."""

    requests: int
    requests_left: int
    requests_wait_s: float
    """Until one more could be had; 0.0 when some were given."""
    tokens: int
    tokens_left: int
    tokens_wait_s: float
    places: int
    """All that the worker now has."""


class Standing(NamedTuple):
    """Where a key stood with a worker that counted alone until now."""

    key_id: KeyId
    requests_until_full_s: float
    tokens_until_full_s: float
    places: int
    """Requests that are open."""


class _Taken(NamedTuple):
    given: int
    left: int
    wait_s: float


NOTHING = _Taken(0, 0, 0.0)


def take_share(connection: Connection, want: Want) -> Got:
    """Takes as much of what is wanted as the limits leave. ShareLost."""
    _require_alive(connection, want.worker_id)
    requests = _take(connection, want, REQUESTS, want.requests_limit, want.requests)
    tokens = _take(connection, want, TOKENS, want.tokens_limit, want.tokens) if want.tokens_limit else NOTHING
    places = _take_places(connection, want) if want.places_limit else 0
    return Got(*requests, *tokens, places)


def tell_standings(connection: Connection, worker_id: str, standings: Sequence[Standing], *, now_ns: int) -> None:
    """Puts what one worker has counted by itself before all workers. ShareLost."""
    _require_alive(connection, worker_id)
    for one in sorted(standings):
        for kind, until_full_s in ((REQUESTS, one.requests_until_full_s), (TOKENS, one.tokens_until_full_s)):
            full_at_ns = _bucket(connection, one.key_id, kind)
            moved_ns = max(full_at_ns, now_ns) + round(until_full_s * 1e9)
            connection.execute(_bucket_update(one.key_id, kind).values(full_at_ns=moved_ns))
        if one.places:
            row = {"key_id": one.key_id, "worker_id": worker_id, "places": one.places}
            if not insert_missing(connection, shared_places, row):
                own = (shared_places.c.key_id == one.key_id, shared_places.c.worker_id == worker_id)
                connection.execute(update(shared_places).where(*own).values(places=one.places))


def shared_standings(connection: Connection, key_ids: Sequence[KeyId], *, now_ns: int) -> list[Standing]:
    """Where these keys stand with all workers together; without places."""
    found: dict[tuple[str, str], int] = {}
    for start in range(0, len(key_ids), KEYS_PER_READ):
        wanted = select(shared_rates).where(shared_rates.c.key_id.in_(key_ids[start : start + KEYS_PER_READ]))
        found |= {(row.key_id, row.kind): row.full_at_ns for row in connection.execute(wanted)}
    until = {place: max(0, full_at_ns - now_ns) / 1e9 for place, full_at_ns in found.items()}
    return [
        Standing(key_id, until.get((key_id, REQUESTS), 0.0), until.get((key_id, TOKENS), 0.0), 0)
        for key_id in key_ids
    ]


def _require_alive(connection: Connection, worker_id: str) -> None:
    alive = select(workers.c.id).where(workers.c.id == worker_id, workers.c.is_dead == 0)
    if connection.execute(alive.with_for_update(read=True)).one_or_none() is None:
        raise ShareLost


def _bucket(connection: Connection, key_id: KeyId, kind: str) -> int:
    """When the bucket will be full, its row made if need be and locked."""
    insert_missing(connection, shared_rates, {"key_id": key_id, "kind": kind, "full_at_ns": 0})
    mine = (shared_rates.c.key_id == key_id, shared_rates.c.kind == kind)
    return int(connection.execute(select(shared_rates.c.full_at_ns).where(*mine).with_for_update()).scalar_one())


def _bucket_update(key_id: KeyId, kind: str) -> Update:
    return update(shared_rates).where(shared_rates.c.key_id == key_id, shared_rates.c.kind == kind)


def _take(connection: Connection, want: Want, kind: str, limit: int, wanted: int) -> _Taken:
    """From the bucket; its row also keeps other workers away from the key's places until the end."""
    full_at_ns = _bucket(connection, want.key_id, kind)
    if not limit:
        return NOTHING
    used_ns = max(0, full_at_ns - want.now_ns)
    free = max(0, limit - -(-used_ns * limit // MINUTE_NS))
    if not used_ns and kind == TOKENS:
        free = max(free, wanted)  # more than a minute's tokens at once, when nobody has used any
    given = min(wanted, free)
    if wanted and not given:
        return _Taken(0, 0, used_ns / 1e9 - 60 + 60 / limit)
    if given:
        full_at_ns = want.now_ns + used_ns + given * MINUTE_NS // limit
        connection.execute(_bucket_update(want.key_id, kind).values(full_at_ns=full_at_ns))
    return _Taken(given, free - given, 0.0)


def _take_places(connection: Connection, want: Want) -> int:
    taken = select(shared_places.c.worker_id, shared_places.c.places).where(shared_places.c.key_id == want.key_id)
    held = {str(row.worker_id): int(row.places) for row in connection.execute(taken)}
    mine = held.get(want.worker_id, 0)
    given = min(want.places, max(0, want.places_limit - sum(held.values())))
    if not given:
        return mine
    if want.worker_id in held:
        where = (shared_places.c.key_id == want.key_id, shared_places.c.worker_id == want.worker_id)
        connection.execute(update(shared_places).where(*where).values(places=mine + given))
    else:
        row = {"key_id": want.key_id, "worker_id": want.worker_id, "places": given}
        connection.execute(insert(shared_places).values(row))
    return mine + given


def return_places(connection: Connection, worker_id: str, spare: Sequence[tuple[KeyId, int]]) -> None:
    """Gives back places that nobody uses."""
    for key_id, places in sorted(spare):
        where = (shared_places.c.key_id == key_id, shared_places.c.worker_id == worker_id)
        left = func.max if connection.dialect.name == "sqlite" else func.greatest
        wanted = update(shared_places).where(*where)
        connection.execute(wanted.values(places=left(0, shared_places.c.places - places)))


def forget_places(connection: Connection, worker_id: str) -> None:
    """All places of a worker that has ended."""
    connection.execute(delete(shared_places).where(shared_places.c.worker_id == worker_id))


def correct_tokens(connection: Connection, key_id: KeyId, *, limit: int, tokens: int, now_ns: int) -> None:
    """Requests used so many more tokens than were taken for them, or fewer."""
    mine = (shared_rates.c.key_id == key_id, shared_rates.c.kind == TOKENS)
    bucket = select(shared_rates.c.full_at_ns).where(*mine).with_for_update()
    full_at_ns = connection.execute(bucket).scalar_one_or_none()
    if full_at_ns is not None:
        moved = max(full_at_ns, now_ns) + tokens * MINUTE_NS // limit
        connection.execute(_bucket_update(key_id, TOKENS).values(full_at_ns=moved))


def count_workers(connection: Connection) -> int:
    """Workers that are alive, or not known to be dead yet."""
    return int(connection.execute(select(func.count()).where(workers.c.is_dead == 0)).scalar_one())

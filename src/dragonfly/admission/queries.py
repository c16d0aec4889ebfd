"""Reads about workers and leases."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from dragonfly.admission.estimates import CHANNELS_MAX, Sums
from dragonfly.admission.tables import estimates, leases, workers
from dragonfly.core.ids import AccountId

WORKERS_PAGE_MAX = 1_000
LEASES_PAGE_MAX = 1_000
MILLI = 1_000


class WorkerBeats(NamedTuple):
    """A worker and how often it has beaten."""

    id: str
    beats: int
    is_dead: bool


def beats_of_workers(connection: Connection) -> list[WorkerBeats]:
    """Every registered worker."""
    wanted = select(workers.c.id, workers.c.beats, workers.c.is_dead).order_by(workers.c.id).limit(WORKERS_PAGE_MAX)
    return [WorkerBeats(row.id, row.beats, bool(row.is_dead)) for row in connection.execute(wanted)]


def leases_of_account(connection: Connection, account_id: AccountId) -> dict[str, int]:
    """What each worker holds of the account, in nano-USD by lease id."""
    wanted = select(leases.c.id, leases.c.amount_nusd).where(leases.c.account_id == account_id)
    return {row.id: row.amount_nusd for row in connection.execute(wanted.limit(LEASES_PAGE_MAX))}


def is_dead(connection: Connection, worker_id: str) -> bool:
    """The worker was declared dead and is not swept yet."""
    wanted = select(workers.c.id).where(workers.c.id == worker_id, workers.c.is_dead == 1)
    return connection.execute(wanted).one_or_none() is not None


def stored_estimates(connection: Connection) -> list[tuple[str, Sums]]:
    """What was learnt about bytes per token, the channels seen last first."""
    wanted = select(estimates).order_by(estimates.c.updated_at_ns.desc()).limit(CHANNELS_MAX)
    return [
        (
            row.channel_id,
            Sums(
                row.prompt_bytes_milli / MILLI,
                row.prompt_tokens_milli / MILLI,
                row.output_bytes_milli / MILLI,
                row.output_tokens_milli / MILLI,
                row.seen,
            ),
        )
        for row in connection.execute(wanted)
    ]

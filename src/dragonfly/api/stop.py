"""POST /v1/generation/{id}/stop: ends a running answer of the caller's account, on whichever worker it runs.

A stream ends in order, with a finish reason, and with usage where that was asked for. This worker looks at its own
answers first; for those of others it announces the wish in the feed of changes, which every worker reads.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

import msgspec
from sqlalchemy import Engine

from dragonfly.admission.grants import KeyPolicy
from dragonfly.admission.rules import stop_subject
from dragonfly.api.generation import GenerationNotFound
from dragonfly.core.clock import Clock
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, RequestId
from dragonfly.infra.changes import record_change
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.usage.queries import UsageRow, usage_by_request

Reader = Callable[[KeyPolicy, dict[str, str], dict[str, str]], Awaitable[bytes]]
StopRunning = Callable[[AccountId, RequestId], bool]

WAIT_S = 3.0
"""For the charge of the stopped answer, and for other workers to hear of the wish."""
LOOK_EVERY_S = 0.05
AGE_S_MAX = 24 * 3_600
"""No answer runs longer than this, so older ids are not announced."""
ANNOUNCED_MAX = 16
"""Wishes that wait for other workers at the same time."""
_REQUEST_ID = re.compile(r"gen-([0-9a-f]{12})[0-9a-f]{20}", re.ASCII)


class StopsBusy(DragonflyError):
    """503."""

    code = "overloaded"

    def __init__(self) -> None:
        super().__init__("Too many stops wait for other workers. Retry shortly.")
        self.retry_after_s = WAIT_S


def stop_action(engine: Engine, threads: DatabaseThreads, clock: Clock, stop_running: StopRunning) -> Reader:
    """Stops for the account of the calling key. An answer that has ended already is told of as it ended."""
    announced: set[str] = set()

    def find(account_id: AccountId, request_id: RequestId) -> UsageRow | None:
        with read(engine) as connection:
            return usage_by_request(connection, account_id, request_id)

    def announce(account_id: AccountId, request_id: RequestId) -> None:
        with write(engine) as connection:
            record_change(connection, stop_subject(account_id, request_id))

    async def wait_for(account_id: AccountId, request_id: RequestId) -> UsageRow | None:
        for _ in range(int(WAIT_S / LOOK_EVERY_S)):
            row = await threads.run(find, account_id, request_id)
            if row is not None:
                return row
            await asyncio.sleep(LOOK_EVERY_S)
        return None

    async def ask_others(account_id: AccountId, request_id: RequestId) -> UsageRow | None:
        if len(announced) >= ANNOUNCED_MAX:
            raise StopsBusy
        announced.add(request_id)
        try:
            await threads.run(announce, account_id, request_id)
            return await wait_for(account_id, request_id)
        finally:
            announced.discard(request_id)

    async def stop(key: KeyPolicy, params: dict[str, str], query: dict[str, str]) -> bytes:
        asked = params["id"]
        match = _REQUEST_ID.fullmatch(asked)
        if match is None:
            raise GenerationNotFound
        request_id = RequestId(asked)
        if stop_running(key.account_id, request_id):
            row = await wait_for(key.account_id, request_id)
            return _shown(asked, "stopped" if row is None else row.outcome)
        row = await threads.run(find, key.account_id, request_id)
        age_s = clock.now_ns() / 1e9 - int(match[1], 16) / 1e3
        if row is None and abs(age_s) < AGE_S_MAX:
            row = await ask_others(key.account_id, request_id)
        if row is None:
            raise GenerationNotFound
        return _shown(asked, row.outcome)

    return stop


def _shown(request_id: str, outcome: str) -> bytes:
    return msgspec.json.encode(
        {"data": {"id": request_id, "stopped": outcome == "stopped", "outcome": outcome}},
    )

"""The postman: takes due mails out of the outbox, hands them to the transport, and notes what became of them.

Any number of processes may run one. A mail is claimed by a conditional update before it is sent, the note is written
under the same claim, and the provider is given the mail's id as idempotency key: whoever dies where, the mail goes
out once, or (with SMTP, which knows no such key) at worst twice with the same Message-ID.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from dragonfly.core.clock import Clock
from dragonfly.core.credentials import Seal
from dragonfly.core.ids import IdSource
from dragonfly.infra.database import DatabaseAway, DatabaseThreads, read, write
from dragonfly.infra.logging import Event, EventLog, Level, describe
from dragonfly.mail.kinds import RULES, MailKind
from dragonfly.mail.messages import Failure, MailFailed, Message
from dragonfly.mail.outbox import Claimed, claim_due, give_up, is_any_due, note_sent, put_back
from dragonfly.mail.queries import is_dead_address, preferences_of
from dragonfly.mail.rendering import Press
from dragonfly.mail.rules import ATTEMPTS_MAX, STALE_S, backoff_s
from dragonfly.mail.seals import Seals
from dragonfly.mail.transports import Transport

MAIL_DELAYED = Event("mail_delayed", Level.WARNING, {"kind": MailKind, "failure": Failure, "attempts": int})
MAIL_DEAD = Event("mail_dead", Level.ERROR, {"mail": str, "kind": MailKind, "failure": Failure, "attempts": int})
MAIL_WITHHELD = Event("mail_withheld", Level.INFO, {"kind": MailKind, "failure": Failure})
TEMPLATE_FAILED = Event("template_failed", Level.ERROR, {"kind": MailKind, "exceptions": tuple, "frames": tuple})

ROUNDS_MAX = 25
"""Claims in one turn; the next turn goes on."""
UNSUBSCRIBE_PATH = "/api/mail/unsubscribe"
NOTE_ATTEMPTS_MAX = 240
NOTE_PAUSE_S = 0.25
"""A mail that went out while the database was away is noted when it is back, if that is within the claim's time."""
WITHHELD = (Failure.ADDRESS_DEAD, Failure.OPTED_OUT)


class PostOffice(NamedTuple):
    """What it takes to make a mail out of a row, and to get rid of it."""

    press: Press
    seals: Seals
    seal: Seal
    """Finishes the tokens in links."""
    transport: Transport


class Postman:
    """Sends what is due, several at a time. One per process."""

    def __init__(
        self,
        engine: Engine,
        threads: DatabaseThreads,
        office: PostOffice,
        *,
        clock: Clock,
        log: EventLog,
        random: Callable[[], float],
    ) -> None:
        """`random` gives numbers from 0 to 1."""
        self._engine = engine
        self._threads = threads
        self._press, self._seals, self._seal, self._transport = office
        self._clock = clock
        self._log = log
        self._random = random
        self._ids = IdSource()
        self._running: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._quiet_until_s = 0.0

    async def run(self) -> None:
        """One turn: all that is due, up to a bound. A turn that is cancelled still ends what it has begun, because a
        mail that was handed over must be noted."""
        if self._is_stopping or self._clock.monotonic_s() < self._quiet_until_s:
            return
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._turn(), name="mail")
        await asyncio.shield(self._running)

    async def stop(self) -> None:
        """Claims nothing more, waits for what is being sent, and closes the transport."""
        self._is_stopping = True
        if self._running is not None:
            await asyncio.wait((self._running,))
        await self._transport.close()

    async def _turn(self) -> None:
        for _ in range(ROUNDS_MAX):
            claimed = await self._threads.run(self._claim)
            if not claimed:
                return
            # Not a TaskGroup: one mail's trouble must not cut off another between handing over and noting.
            ended = await asyncio.gather(*(self._deliver(mail) for mail in claimed), return_exceptions=True)
            for failure in ended:
                if failure is not None:
                    raise failure
            if self._is_stopping or self._clock.monotonic_s() < self._quiet_until_s:
                return

    def _claim(self) -> list[Claimed]:
        """Mails to send now. Those that must not be sent end here, in the transaction that claims them."""
        now_ns = self._clock.now_ns()
        with read(self._engine) as connection:
            if not is_any_due(connection, now_ns=now_ns):
                return []
        ended: list[tuple[Claimed, Failure]] = []
        with write(self._engine) as connection:
            claimed = claim_due(connection, self._ids.new("claim-", now_ns), now_ns=now_ns)
            for mail in claimed:
                failure = self._reason_against(connection, mail, now_ns)
                if failure is not None:
                    give_up(connection, mail, failure, now_ns=now_ns)
                    ended.append((mail, failure))
        for mail, failure in ended:
            self._tell_end(mail, failure)
        refused = {mail.id for mail, _ in ended}
        return [mail for mail in claimed if mail.id not in refused]

    def _reason_against(self, connection: Connection, mail: Claimed, now_ns: int) -> Failure | None:
        """Why this mail must not be sent, as things are at this moment."""
        if mail.attempts > ATTEMPTS_MAX:
            return Failure.INTERRUPTED
        if now_ns - mail.created_at_ns > STALE_S * 10**9:
            return Failure.STALE
        if is_dead_address(connection, self._seals.address_digest(mail.address)):
            return Failure.ADDRESS_DEAD
        choice = RULES[mail.kind].choice
        if choice is None or mail.account_id is None:
            return None
        return None if choice in preferences_of(connection, mail.account_id).choices else Failure.OPTED_OUT

    async def _deliver(self, mail: Claimed) -> None:
        try:
            transport_id = await self._transport.send(self._message(mail))
        except MailFailed as failed:
            await self._note_failure(mail, failed)
        except Exception as failure:
            exceptions, frames = describe(failure)
            self._log.write(TEMPLATE_FAILED, kind=mail.kind, exceptions=exceptions, frames=frames)
            await self._note_failure(mail, MailFailed(Failure.TEMPLATE, is_final=True))
        else:
            now_ns = self._clock.now_ns()
            await self._note(lambda connection: note_sent(connection, mail, transport_id, now_ns=now_ns))

    def _message(self, mail: Claimed) -> Message:
        choice = RULES[mail.kind].choice
        link = None
        headers = {"Auto-Submitted": "auto-generated"}
        if choice is not None and mail.account_id is not None:
            token = self._seals.opt_out_token(mail.account_id, choice)
            link = f"{self._press.site.url}{UNSUBSCRIBE_PATH}?token={token}"
            headers |= {"List-Unsubscribe": f"<{link}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
        values = dict(mail.values)
        if "link" in values:
            values["link"] = self._seal.finished(str(values["link"]))
        written = self._press.write(mail.kind, mail.language, values, unsubscribe_link=link)
        return Message(mail.id, mail.address, *written, headers, mail.created_at_ns)

    async def _note_failure(self, mail: Claimed, failed: MailFailed) -> None:
        self._quiet_until_s = max(self._quiet_until_s, self._clock.monotonic_s() + failed.pause_s)
        now_ns = self._clock.now_ns()
        is_limited = failed.failure is Failure.LIMITED
        if failed.is_final or (mail.attempts >= ATTEMPTS_MAX and not is_limited):
            await self._note(lambda connection: give_up(connection, mail, failed.failure, now_ns=now_ns))
            self._tell_end(mail, failed.failure)
            return
        own_pause_s = 0.0 if is_limited else backoff_s(mail.attempts, self._random())
        pause_s = max(own_pause_s, failed.pause_s)
        due_at_ns = now_ns + round(pause_s * 1e9)
        await self._note(lambda connection: put_back(connection, mail, failed.failure, due_at_ns=due_at_ns))
        self._log.write(MAIL_DELAYED, kind=mail.kind, failure=failed.failure, attempts=mail.attempts)

    async def _note(self, change: Callable[[Connection], bool]) -> None:
        def noted() -> None:
            with write(self._engine) as connection:
                change(connection)

        for _ in range(NOTE_ATTEMPTS_MAX - 1):
            try:
                return await self._threads.run(noted)
            except DatabaseAway:
                await asyncio.sleep(NOTE_PAUSE_S)
        return await self._threads.run(noted)

    def _tell_end(self, mail: Claimed, failure: Failure) -> None:
        if failure in WITHHELD:
            self._log.write(MAIL_WITHHELD, kind=mail.kind, failure=failure)
        else:
            self._log.write(MAIL_DEAD, mail=mail.id, kind=mail.kind, failure=failure, attempts=mail.attempts)

"""What the routes of people share: who asks from where, proofs, budgets, transactions, and the shape of a sign-in."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Engine
from starlette.requests import Request

from dragonfly.accounts.letters import Tools
from dragonfly.accounts.passwords import Passwords
from dragonfly.accounts.people import Person
from dragonfly.accounts.proofs import Asked, ProofInvalid, ProofReader, Proven
from dragonfly.accounts.registration import take_trial
from dragonfly.accounts.rules import device_label, rest_of_step_s
from dragonfly.accounts.sessions import Browser, SessionInvalid, Tokens, session_by_access
from dragonfly.accounts.sign_in import Ticket
from dragonfly.accounts.throttles import Rate, Throttle
from dragonfly.accounts.watch import Attempt, Watch
from dragonfly.api.principal import Authenticate, Principal, Role
from dragonfly.core.addresses import ClientAddresses, network_of
from dragonfly.core.clock import Clock
from dragonfly.core.credentials import TokenKind
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.keys.actions import revoke_key
from dragonfly.keys.queries import KEYS_PAGE_MAX, keys_of_account
from dragonfly.ledger.actions import grant_credit

T = TypeVar("T")

ANONYMOUS = Rate("anonymous", 60, 60)
"""Requests of one network to routes that need no session: of each process, and of all together for what costs."""
REGISTER = Rate("register", 10, 3_600)
MAILS = Rate("mails", 5, 3_600)
"""Mails that strangers can have sent to one address; beyond that nothing is sent, and nobody is told."""
GUESS_HERE = Rate("guess_here", 10, 900)
"""Wrong passwords for one address from one network."""
GUESS_NETWORK = Rate("guess_network", 60, 900)
"""Wrong passwords from one network."""
GUESS_STRANGERS = Rate("guess_strangers", 100, 3_600)
"""Wrong passwords for one address from browsers that were never signed in to it. Its owner's browsers do not count,
and a link for a new password signs in: nobody is locked out of their own account."""

Token = Annotated[str, Field(max_length=200)]
Address = Annotated[str, Field(max_length=254)]
Password = Annotated[str, Field(max_length=1_000)]


class Body(BaseModel):
    """A request's body: strict types, no field that is not known."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Done(BaseModel):
    """Nothing more to say; the same whether or not there was anything to do."""

    status: Literal["ok"] = "ok"


class SignedIn(BaseModel):
    """A session. Keep the tokens; each request shows the access token and a proof of the browser's key."""

    status: Literal["signed_in"] = "signed_in"
    session_id: str
    token_type: Literal["DPoP"] = "DPoP"
    access_token: str
    expires_in: int
    """Seconds."""
    refresh_token: str


class SecondFactorNeeded(BaseModel):
    """The first factor was right: POST /api/auth/second-factor with this ticket and a code, within five minutes."""

    status: Literal["second_factor_needed"] = "second_factor_needed"
    ticket: str


class Caller(NamedTuple):
    """Where a request comes from."""

    ip: str
    network: str


@dataclass(frozen=True, slots=True)
class Identity:
    """The parts that the routes of people work with."""

    tools: Tools
    engine: Engine
    threads: DatabaseThreads
    clock: Clock
    passwords: Passwords
    proofs: ProofReader
    throttle: Throttle
    watch: Watch
    addresses: ClientAddresses

    async def read(self, work: Callable[[Connection, int], T]) -> T:
        """`work(connection, now_ns)` on a snapshot."""
        now_ns = self.clock.now_ns()

        def run() -> T:
            with read(self.engine) as connection:
                return work(connection, now_ns)

        return await self.threads.run(run)

    async def write(self, work: Callable[[Connection, int], T]) -> T:
        """`work(connection, now_ns)` in one transaction."""
        now_ns = self.clock.now_ns()

        def run() -> T:
            with write(self.engine) as connection:
                return work(connection, now_ns)

        return await self.threads.run(run)

    def caller(self, request: Request) -> Caller:
        """The client behind our proxies."""
        peer = request.client.host if request.client else ""
        headers = request.headers
        ip = self.addresses.of(
            peer, ",".join(headers.getlist("x-forwarded-for")), headers.get("cf-connecting-ip", "")
        )
        return Caller(ip, network_of(ip))

    @contextlib.asynccontextmanager
    async def evenly(self) -> AsyncIterator[None]:
        """Around work that takes longer for addresses that are known: it ends at the next whole step of time.

        Mails and links are written before anybody is told that all is well, so they cannot be left for later.
        """
        began_s = time.monotonic()
        yield
        await asyncio.sleep(rest_of_step_s(time.monotonic() - began_s, self.tools.settings.even_answers_ms / 1_000))

    def moderate(self, request: Request) -> Caller:
        """The caller of a route that needs no session, as long as its network asks in moderation. TooManyAttempts.

        Asks nobody: what is refused behind this for its form alone costs no query.
        """
        caller = self.caller(request)
        self.throttle.take(ANONYMOUS, caller.network)
        return caller

    async def anonymous(self, caller: Caller, *rates: Rate) -> None:
        """Counts the request of a network, and what else it counts as, for all workers. TooManyAttempts."""
        await self.watch.admit(*(Attempt(rate, caller.network) for rate in (ANONYMOUS, *rates)))

    async def browser(self, request: Request, caller: Caller, *rates: Rate) -> Browser:
        """As `anonymous`; the browser, by the proof it shows. TooManyAttempts, ProofInvalid."""
        device = device_label(request.headers.get("user-agent", ""))
        proven = self.prove(request)
        attempts = (Attempt(rate, caller.network) for rate in (ANONYMOUS, *rates))
        await self.watch.admit(*attempts, proof=proven.digest)
        return Browser(proven.browser_key, device, caller.ip)

    def prove(self, request: Request, access_token: str | None = None) -> Proven:
        """Who signed the request's proof, as far as this process can tell: admit it by its digest. ProofInvalid."""
        proofs = request.headers.getlist("dpop")
        if len(proofs) != 1:
            raise ProofInvalid
        raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
        path = raw.partition(b"?")[0].decode("ascii", "replace")
        asked = Asked(request.method, path, request.headers.get("host", ""))
        return self.proofs.read(proofs[0], asked, access_token=access_token)

    async def check_password(
        self, caller: Caller, person: Person | None, address: str, password: str, *more: Attempt
    ) -> bool:
        """Whether it is the person's password; guesses are counted (also as `more`), the right one is not.

        The same work for people who do not exist. TooManyAttempts, SignInBusy.
        """
        attempts = (
            Attempt(GUESS_NETWORK, caller.network),
            Attempt(GUESS_HERE, f"{caller.network} {address.lower()}"),
            *more,
        )
        await self.watch.admit(*attempts)
        is_right = await self.passwords.verify(None if person is None else person.password_hash, password)
        if is_right:
            await self.watch.give_back(*attempts)
        return is_right


def authenticator(identity: Identity) -> Authenticate:
    """Recognises sessions. What was not issued here is refused without a query."""

    async def authenticate(request: Request) -> Principal:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        token = identity.tools.seal.read(TokenKind.ACCESS, secret)
        if scheme.lower() != "dpop" or token is None:
            raise SessionInvalid
        try:
            proven = identity.prove(request, secret)
            await identity.watch.admit(proof=proven.digest)
        except ProofInvalid:
            raise SessionInvalid from None
        session = await identity.read(lambda connection, now_ns: session_by_access(connection, token, now_ns=now_ns))
        if session is None or session.browser_key != proven.browser_key:
            raise SessionInvalid
        return Principal(
            session.account_id, Role(session.role), session.id, None, second_factor=session.has_second_factor
        )

    return authenticate


def settle_ownership(
    connection: Connection, tools: Tools, account_id: AccountId, *, is_claimed: bool, now_ns: int
) -> None:
    """What follows when an address is proven: trial credit; and no key that somebody else may have made works on."""
    if is_claimed:
        for key in keys_of_account(connection, account_id, limit=KEYS_PAGE_MAX):
            revoke_key(connection, key.id, account_id=account_id, now_ns=now_ns)
    amount_nusd = take_trial(connection, tools, account_id, now_ns=now_ns)
    if amount_nusd:
        grant_credit(
            connection, account_id, amount_nusd=amount_nusd, idempotency_key=f"trial/{account_id}", now_ns=now_ns
        )


def signed_in(outcome: Tokens | Ticket) -> SignedIn | SecondFactorNeeded:
    """The answer to somebody who was let in, as far as they were."""
    if isinstance(outcome, Ticket):
        return SecondFactorNeeded(ticket=outcome.secret.reveal())
    return SignedIn(
        session_id=outcome.session_id,
        access_token=outcome.access.reveal(),
        expires_in=outcome.expires_in_s,
        refresh_token=outcome.refresh.reveal(),
    )

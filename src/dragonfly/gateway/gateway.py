"""The data plane of one process: what connections and exchanges share, and which path leads where."""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from email.utils import formatdate
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Raw

from dragonfly.admission.errors import AddressNotAllowed
from dragonfly.admission.grants import KeyPolicy
from dragonfly.core.addresses import ClientAddresses, lies_in, parse_networks
from dragonfly.core.clock import Clock
from dragonfly.core.content import holds_content
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource, RequestId
from dragonfly.core.outcomes import Outcome
from dragonfly.gateway.exchange import Exchange
from dragonfly.gateway.heads import HeadRules, secret_of
from dragonfly.gateway.health import HealthBoard
from dragonfly.gateway.purse import Purse
from dragonfly.gateway.receiving import COUNTED_BODY_BYTES, Request
from dragonfly.gateway.refusals import Refusal, error_body, retry_after_s, status_of
from dragonfly.gateway.server import FastLane
from dragonfly.providers.channel import Channel
from dragonfly.providers.pool import Pool
from dragonfly.providers.requests import head_prefix
from dragonfly.settings import Settings

SWEEP_S = 0.5
QUERY_FIELDS_MAX = 50
READ_METHODS = (b"GET", b"HEAD")
POST_METHODS = (b"POST",)
CHAT_PATHS = frozenset({b"/v1/chat/completions", b"/api/v1/chat/completions"})
ADDRESS_HEADERS = (b"x-forwarded-for", b"cf-connecting-ip")
JSON_HEAD = b"content-type: application/json\r\n"

Reader = Callable[[KeyPolicy, dict[str, str], dict[str, str]], Awaitable[bytes]]


@holds_content
class Prepared(NamedTuple):
    """What is the same in every request to one channel."""

    channel: Channel
    model: Raw
    whole_head: bytes
    streamed_head: bytes


class Report(Protocol):
    """Where events for the operator go: a registered name and numbers, never text of a request."""

    def __call__(self, event: str, /, **values: str | int | float) -> None: ...


class Gateway:
    """Everything that outlives one connection. Built once by app.py; used on one event loop only."""

    def __init__(
        self,
        *,
        settings: Settings,
        gate: Purse,
        pool: Pool,
        clock: Clock,
        ids: IdSource,
        readers: Mapping[str, Reader],
        report: Report,
    ) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.gate = gate
        self.pool = pool
        self.clock = clock
        self.ids = ids
        self.report = report
        self.board = HealthBoard(settings.upstream, clock)
        self.heads = HeadRules(settings)
        proxies, cdn = parse_networks(settings.server.proxies), parse_networks(settings.server.cdn)
        self._addresses = ClientAddresses(proxies, cdn)
        self.lanes: set[FastLane] = set()
        self.exchanges: set[Exchange] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.refused: dict[str, int] = {}
        self.body_bytes_open = 0
        self.stranger_bytes_open = 0
        self.uncounted_bytes_max = min(COUNTED_BODY_BYTES, self.limits.body_bytes_max)
        """A body up to this long is taken without a look at its key or at how much is open."""
        self.coarse_s = clock.monotonic_s()
        self.common_head = b""
        self.monotonic_ns = time.monotonic_ns
        self._routes: list[tuple[re.Pattern[str], Reader, tuple[bytes, ...]]] = [
            (_pattern(template), reader, READ_METHODS) for template, reader in readers.items()
        ]
        self._told: set[str] = set()
        self._prepared: dict[str, Prepared] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._refresh_head()

    # Life

    def start(self) -> None:
        """Begin sweeping; call on the event loop that serves."""
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep_forever(), name="gateway sweep")

    async def stop(self) -> None:
        """End what still runs, each with its outcome; call after the server has drained."""
        for exchange in list(self.exchanges):
            exchange.shut_down()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        for task in list(self.tasks):
            task.cancel()
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=5.0)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """Look at every deadline once; close what is late."""
        now_s = self.coarse_s = self.clock.monotonic_s()
        self._refresh_head()
        late = [lane for lane in self.lanes if lane.deadline_s < now_s]
        for lane in late:
            lane.expired()
        for exchange in [one for one in self.exchanges if one.comment_due_s < now_s]:
            exchange.comment_is_due()

    def _refresh_head(self) -> None:
        date = formatdate(self.clock.now_ns() / 1e9, usegmt=True).encode()
        self.common_head = b"cache-control: no-store\r\nserver: dragonfly\r\ndate: %b\r\n" % date

    def prepared(self, channel: Channel) -> Prepared:
        """The parts of requests to `channel`, rendered once; the catalogue bounds how many there are."""
        known = self._prepared.get(channel.id)
        if known is None or known.channel is not channel:
            model = Raw(msgspec.json.encode(channel.upstream_model))
            known = Prepared(channel, model, head_prefix(channel, False), head_prefix(channel, True))
            self._prepared[channel.id] = known
        return known

    def tell_unknown_model(self, channel: Channel) -> None:
        """Report once for each channel that it answers as a model that nobody priced."""
        if channel.id not in self._told:
            self._told.add(channel.id)
            self.report("model_unknown", channel=channel.id)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run the part of a request that must wait; kept until done."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def add_action(self, template: str, action: Reader) -> None:
        """Answer POSTs to a path; before serving begins."""
        self._routes.append((_pattern(template), action, POST_METHODS))

    def stop_running(self, account_id: AccountId, request_id: RequestId) -> bool:
        """End an answer of the account, if it runs here."""
        for exchange in self.exchanges:
            if exchange.request_id == request_id and exchange.account_id == account_id:
                exchange.stop()
                return True
        return False

    # Requests

    def serve(self, lane: FastLane, request: Request) -> None:
        """Answer one request of the lane; never raises for what a client sent."""
        request_id = self.ids.request(self.clock.now_ns())
        try:
            secret = secret_of(request.headers)
            if request.path in CHAT_PATHS:
                _check_chat_head(request)
                exchange = Exchange(self, lane, request_id, request)
                lane.active = exchange
                exchange.begin(secret, request)
            else:
                self._read(lane, request, request_id, secret)
        except DragonflyError as error:
            self.refuse(lane, error, request_id)

    def _read(self, lane: FastLane, request: Request, request_id: RequestId, secret: bytes) -> None:
        path = request.path.decode("ascii", "replace")
        if path.startswith("/api/v1/"):
            path = path[len("/api") :]
        for pattern, reader, methods in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if request.method not in methods:
                allowed = b", ".join(methods)
                raise Refusal("method_not_allowed", f"This path answers {allowed.decode()} only.", allow=allowed)
            params = {name: unquote(value) for name, value in match.groupdict().items()}
            call = ReaderCall(lane)
            lane.active = call
            self.spawn(self._answer_reader(call, reader, secret, params, request, request_id))
            return
        raise Refusal("not_found", "There is no such path. The API reference lists the paths under /v1.")

    async def _answer_reader(
        self,
        call: "ReaderCall",
        reader: Reader,
        secret: bytes,
        params: dict[str, str],
        request: Request,
        request_id: RequestId,
    ) -> None:
        try:
            key = self.gate.key_cached(secret) or await self.gate.key(secret)
            call.check_address(self, key, request)
            fields = dict(parse_qsl(request.query.decode("ascii", "replace"), max_num_fields=QUERY_FIELDS_MAX))
            body = await reader(key, params, fields)
        except DragonflyError as error:
            call.refuse(self, error, request_id)
        except ValueError:
            call.refuse(self, Refusal("invalid_request", "The query has too many fields."), request_id)
        except Exception as problem:
            self.report("reader_failed", kind=type(problem).__name__)
            call.refuse(self, internal_error(), request_id)
        else:
            call.answer(JSON_HEAD + b"x-request-id: %b\r\n" % request_id.encode(), body)

    # Answers

    def refuse(self, lane: FastLane, error: DragonflyError, request_id: str, key: KeyPolicy | None = None) -> None:
        """Write an error as the whole answer."""
        status, head, body = self.refusal_parts(error, request_id, key)
        lane.send_whole(status, head, body)

    def refusal_parts(
        self, error: DragonflyError, request_id: str | None = None, key: KeyPolicy | None = None
    ) -> tuple[int, bytes, bytes]:
        """Status, header lines and body of an error."""
        if request_id is None:
            request_id = self.ids.request(self.clock.now_ns())
        self.refused[error.code] = self.refused.get(error.code, 0) + 1
        head = JSON_HEAD + b"x-request-id: %b\r\n" % request_id.encode()
        wait_s = retry_after_s(error)
        if wait_s is not None:
            head += b"retry-after: %d\r\n" % max(1, int(wait_s + 0.999))
        allow = getattr(error, "allow", None)
        if allow is not None:
            head += b"allow: %b\r\n" % allow
        status = status_of(error)
        if status == 401:
            head += b"www-authenticate: Bearer\r\n"
        if key is not None:
            head += self.rate_head(key)
        return status, head, error_body(error, request_id)

    def rate_head(self, key: KeyPolicy) -> bytes:
        """x-ratelimit-* lines as OpenAI sends them; nothing for a key without a limit."""
        head = b""
        if key.requests_per_minute:
            state = self.gate.rate_state(key)
            head = (
                b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n"
                b"x-ratelimit-reset-requests: %.3fs\r\n" % (state.limit, state.remaining, state.reset_s)
            )
        if key.tokens_per_minute:
            state = self.gate.token_state(key)
            head += (
                b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\n"
                b"x-ratelimit-reset-tokens: %.3fs\r\n" % (state.limit, state.remaining, state.reset_s)
            )
        return head

    def check_address(self, key: KeyPolicy, lane: FastLane, headers: Mapping[bytes, bytes]) -> None:
        """AddressNotAllowed when the key is bound to networks and the client is in none of them."""
        if key.networks is None:
            return
        peer = lane.transport.get_extra_info("peername")
        forwarded, connecting = (headers.get(name, b"").decode("latin-1") for name in ADDRESS_HEADERS)
        address = self._addresses.of(peer[0] if peer else "", forwarded, connecting)
        if not lies_in(address, key.networks):
            raise AddressNotAllowed


class ReaderCall:
    """A GET on its way; a client that leaves simply gets no answer."""

    __slots__ = ("_lane",)

    def __init__(self, lane: FastLane) -> None:
        self._lane: FastLane | None = lane

    def client_gone(self) -> None:
        self._lane = None

    def client_stalled(self) -> None:
        self._lane = None

    def client_slow(self) -> None:
        """Answers are small and whole; there is nothing to pause."""

    def client_ready(self) -> None:
        """See client_slow."""

    def check_address(self, gateway: Gateway, key: KeyPolicy, request: Request) -> None:
        if self._lane is not None:
            gateway.check_address(key, self._lane, request.headers)

    def answer(self, head: bytes, body: bytes) -> None:
        if self._lane is not None:
            self._lane.send_whole(200, head, body)

    def refuse(self, gateway: Gateway, error: DragonflyError, request_id: RequestId) -> None:
        if self._lane is not None:
            gateway.refuse(self._lane, error, request_id)


def internal_error() -> Refusal:
    """Our own bug, as the client sees it."""
    return Refusal("internal_error", "Something went wrong in the gateway. Retry; quote request_id if it stays.")


def _check_chat_head(request: Request) -> None:
    if request.method != b"POST":
        raise Refusal("method_not_allowed", "Chat completions are made with POST.", allow=b"POST")
    headers = request.headers
    media_type = headers.get(b"content-type", b"application/json")
    if not media_type[:16].lower() == b"application/json":
        raise Refusal("unsupported_media_type", "Send the request as Content-Type: application/json.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal("unsupported_media_type", "Send the body without Content-Encoding.")


def _pattern(template: str) -> "re.Pattern[str]":
    """ "/v1/models/{author}/{slug}" as a regular expression with named groups."""
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template)))

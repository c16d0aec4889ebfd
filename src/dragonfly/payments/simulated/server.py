"""The simulated Stripe as an HTTP server on loopback, on threads of its own."""

import contextlib
import hmac
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

from dragonfly.core.clock import Clock, SystemClock
from dragonfly.payments.simulated.api import Answer, Api, Call, to_bytes
from dragonfly.payments.simulated.cards import CARDS, Card, card_of
from dragonfly.payments.simulated.delivery import Courier, Signed, post, signed_event
from dragonfly.payments.simulated.faults import Outage, Planned, StripeFault
from dragonfly.payments.simulated.pages import confirm_page, message_page, pay_page, receipt_page
from dragonfly.payments.simulated.shapes import Shapes
from dragonfly.payments.simulated.state import Charge, Intent, Json, Session, State, Told
from dragonfly.payments.simulated.till import Till

HOST = "127.0.0.1"
BODY_BYTES_MAX = 256 * 1024
SOCKET_S_MAX = 30.0
STOP_S_MAX = 10.0
POLL_S = 0.05
"""How soon a stop is noticed."""
API_KEY = "sk_test_simulated"
WEBHOOK_SECRET = "whsec_simulated"
ACCOUNT_ID = "acct_simulated"
REFUSALS: dict[Outage, tuple[int, str]] = {Outage.REFUSED: (500, "api_error"), Outage.LIMITED: (429, "rate_limit")}


class SimulatedStripe:
    """`with SimulatedStripe() as stripe: … stripe.url`. Events wait in `undelivered` until somebody delivers them,
    or go out by themselves after `deliver_to`."""

    def __init__(self, *, clock: Clock | None = None, livemode: bool = False, seed: str = "", port: int = 0) -> None:
        self.clock = clock or SystemClock()
        self.api_key = API_KEY
        self.webhook_secret = WEBHOOK_SECRET
        self.state = State()
        self.shapes = Shapes(self.state, livemode=livemode)
        self.undelivered: list[Json] = []
        self.calls: list[Call] = []
        self._planned: list[Planned] = []
        self._courier: Courier | None = None
        self._lock = threading.RLock()
        self._till = Till(self.state, self.shapes, self.clock, seed, self._told, self._page_url)
        self._api = Api(self._till, account_id=ACCOUNT_ID)
        self._server = _Server((HOST, port), self)
        self._thread = threading.Thread(target=self._serve, name="simulated stripe", daemon=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._courier is not None:
            self._courier.stop()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(STOP_S_MAX)
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self) -> None:
        self._server.serve_forever(POLL_S)

    # What the other side of the counter does

    @contextlib.contextmanager
    def till(self) -> Iterator[Till]:
        """What can happen at Stripe, with the lock held."""
        with self._lock:
            yield self._till

    def session(self, session_id: str) -> Session:
        found = self.state.sessions.get(session_id)
        assert found is not None, "there is such a session"
        return found

    def charge_of(self, session_id: str) -> Charge:
        """The charge of a paid session."""
        intent: Intent = self._till.intent(self.session(session_id).intent or "")
        return self._till.charge(intent.charge or "")

    def pay(self, session_id: str, number: str = CARDS[0].number, *, confirmed: bool = True) -> str:
        """The customer pays by card; 3-D Secure is confirmed if it is asked for."""
        with self._lock:
            return self._till.pay_session(self.session(session_id), card_of(number), "card", confirmed=confirmed)

    def pay_by(self, session_id: str, kind: str) -> str:
        """The customer pays by a wallet: link, alipay, wechat_pay."""
        with self._lock:
            return self._till.pay_session(self.session(session_id), None, kind, confirmed=True)

    def plan(self, method: str, path: str, outage: Outage) -> None:
        """The next request of this method and path prefix fails in this way."""
        with self._lock:
            self._planned.append(Planned(method, path, outage))

    def expire_due(self) -> None:
        """Closes the sessions whose time is over."""
        with self._lock:
            for session in self.state.sessions:
                if session.status == "open" and session.expires_s <= self._till.now_s():
                    self._till.expire_session(session)

    # Events

    def sign(self, event: Json) -> Signed:
        return signed_event(event, self.webhook_secret, self.clock)

    def deliver(self, url: str) -> list[int]:
        """Delivers what waits, in order; gives the statuses."""
        with self._lock:
            waiting, self.undelivered = self.undelivered, []
        return [post(url, self.sign(event)) for event in waiting]

    def deliver_to(self, url: str) -> None:
        """From now on every event goes to `url` by itself."""
        self._courier = Courier(url, self.sign)

    def _told(self, told: Told) -> None:
        event = self.shapes.event(told)
        if self._courier is not None:
            self._courier.take(event)
        else:
            self.undelivered.append(event)

    def _page_url(self, path: str) -> str:
        return f"{self.url}/{path}"

    # Requests

    def answer(self, call: Call) -> tuple[Answer, Outage | None]:
        """One API request: its answer, and how the connection is to break, if it is."""
        with self._lock:
            self.calls.append(call)
            self.expire_due()
            outage = self._outage_of(call)
            if outage in REFUSALS:
                status, kind = REFUSALS[outage]
                return Answer(status, {"error": {"type": kind, "message": "Simulated outage."}}), None
            if outage is Outage.CUT:
                return Answer(500, {}), outage
            return self._api.answer(call), outage

    def _outage_of(self, call: Call) -> Outage | None:
        for place, planned in enumerate(self._planned):
            if planned.method == call.method and call.path.startswith(planned.path):
                return self._planned.pop(place).outage
        return None

    def show(self, path: str) -> tuple[int, bytes]:
        """A page."""
        kind, _, object_id = path.strip("/").partition("/")
        with self._lock:
            self.expire_due()
            session = self.state.sessions.get(object_id)
            charge = self.state.charges.get(object_id)
            if kind == "pay" and session is not None:
                return 200, pay_page(session)
            if kind == "receipts" and charge is not None:
                return 200, receipt_page(charge)
        return 404, message_page("Not found", "There is no such page.")

    def press(self, path: str, form: dict[str, list[str]]) -> tuple[int, bytes, str]:
        """A button of the pay page: status, page, or where to go next."""
        session_id = path.removeprefix("/pay/")
        choice, pressed = form.get("choice", [""])[0], form.get("press", [""])[0]
        with self._lock:
            session = self.state.sessions.get(session_id)
            known = choice in _CHOICES or (session is not None and choice in session.methods)
            if session is None or not known:
                return 404, message_page("Not found", "There is no such page."), ""
            if pressed == "refuse":
                return 200, pay_page(session, "The bank was told that the payment is not yours."), ""
            card = _CHOICES.get(choice)
            kind = "card" if card is not None else choice
            try:
                ended = self._till.pay_session(session, card, kind, confirmed=pressed == "confirm")
            except StripeFault:
                return 200, pay_page(session), ""
            if ended == "confirm":
                return 200, confirm_page(choice), ""
            if ended == "declined":
                return 200, pay_page(session, "Your card was declined. Try another one."), ""
            return 303, b"", session.success_url


_CHOICES: dict[str, Card] = {f"card-{place}": card for place, card in enumerate(CARDS)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], stripe: SimulatedStripe) -> None:
        super().__init__(address, _Handler)
        self.stripe = stripe


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SOCKET_S_MAX
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.startswith("/v1/"):
            self._call("GET", parts.path, parts.query)
        else:
            self._page(*self.server.stripe.show(parts.path))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            self._page(413, b"")
            return
        text = self.rfile.read(length).decode(errors="replace")
        if self.path.startswith("/v1/"):
            self._call("POST", self.path, text)
            return
        status, page, target = self.server.stripe.press(self.path, parse_qs(text))
        self._page(status, page, target)

    def _call(self, method: str, path: str, text: str) -> None:
        stripe = self.server.stripe
        if not hmac.compare_digest(self.headers.get("Authorization") or "", f"Bearer {stripe.api_key}"):
            error = {"type": "invalid_request_error", "message": "Invalid API Key provided."}
            self._reply(401, to_bytes({"error": error}), "application/json")
            return
        call = Call(method, path, text, self.headers.get("Idempotency-Key") or "")
        answer, outage = stripe.answer(call)
        if outage in (Outage.CUT, Outage.LOST):
            self.close_connection = True
            return
        extra = {"Idempotent-Replayed": "true"} if answer.is_replayed else {}
        self._reply(
            answer.status, to_bytes(answer.body), "application/json", {"Request-Id": "req_simulated", **extra}
        )

    def _page(self, status: int, page: bytes, target: str = "") -> None:
        extra = {"Location": target} if target else {}
        self._reply(status, page, "text/html; charset=utf-8", extra)

    def _reply(self, status: int, body: bytes, kind: str, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

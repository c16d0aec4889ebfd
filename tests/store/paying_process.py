"""A process that takes one payment from the first click to the credit, and kills itself at a chosen point of it.

Points are before and after each statement, before each commit, and before and after each request to Stripe.
"""

import io
import json
import os
import signal
from collections.abc import Mapping
from multiprocessing.connection import Connection as Pipe
from urllib.parse import urlencode
from urllib.request import HTTPErrorProcessor, Request, build_opener

import stripe
from sqlalchemy import Engine, event

from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import open_engine, write
from dragonfly.infra.logging import EventLog
from dragonfly.payments.applying import apply_due_events
from dragonfly.payments.events import HANDLED, store_event, verify_event
from dragonfly.payments.simulated.delivery import sign
from dragonfly.payments.simulated.server import API_KEY, WEBHOOK_SECRET
from dragonfly.payments.stripe_calls import StripeCalls
from dragonfly.payments.topups import Cashier, TopupWish
from tests.store.till import make_terms


class Points:
    """Counts the points that the payment passes; at number `fatal` the process is gone."""

    def __init__(self, fatal: int, told: Pipe) -> None:
        self._fatal = fatal
        self._told = told
        self._passed = 0

    def passes(self, name: str) -> None:
        self._passed += 1
        if self._passed == self._fatal:
            self._told.send(("killed", name))
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, engine: Engine) -> None:
        """From now on every statement and commit is a point."""

        def before(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            self.passes(f"before {_short(statement)}")

        def after(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            self.passes(f"after {_short(statement)}")

        event.listen(engine, "before_cursor_execute", before)
        event.listen(engine, "after_cursor_execute", after)
        event.listen(engine, "commit", lambda _connection: self.passes("before COMMIT"))


class CountedLine(stripe.RequestsClient):
    """The SDK's own client, each request of which is two points."""

    points: Points

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: object = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        path = url.partition("/v1/")[2].partition("?")[0]
        self.points.passes(f"before {method} {path.rpartition('_')[0] or path}")
        answer = super().request(method, url, headers, post_data)
        self.points.passes(f"after {method} {path.rpartition('_')[0] or path}")
        return answer


class _Stays(HTTPErrorProcessor):
    """The redirect after a payment leads to a page that this process does not serve."""

    def http_response(self, request: object, response: object) -> object:
        return response


def main(url: str, stripe_url: str, account_id: AccountId, fatal: int, told: Pipe) -> None:
    """`told` gets ("acknowledged", event id) of each event that is stored, then ("done", "") or ("killed", where)."""
    clock, points = SystemClock(), Points(fatal, told)
    engine = open_engine(url)
    line = CountedLine(timeout=30)
    line.points = points
    calls = StripeCalls(Secret(API_KEY), api_base=stripe_url, http=line)
    cashier = Cashier(engine, calls, make_terms(), clock, IdSource(), EventLog(io.BytesIO(), clock, strict=True))
    points.watch(engine)
    topup = cashier.begin(TopupWish(account_id, "20", "one click", "en", saves_card=False, address_digest=None))
    assert topup.session_url is not None
    press = urlencode({"choice": "card-0", "press": "pay"}).encode()
    build_opener(_Stays).open(Request(topup.session_url, press), timeout=30).close()
    told.send(("paid", topup.id))
    points.passes("after the payment")
    client = stripe.StripeClient(API_KEY, base_addresses={"api": stripe_url})
    happened = [one.to_dict() for one in client.v1.events.list({"limit": 20}).data]
    for one in reversed(happened):
        if one["type"] in HANDLED and one["data"]["object"].get("metadata", {}).get("topup") == topup.id:
            _take(cashier, one)
            told.send(("acknowledged", one["id"]))
            points.passes("after the acknowledgement")
            apply_due_events(cashier)
    told.send(("done", ""))


def _take(cashier: Cashier, shown: Mapping[str, object]) -> None:
    """As the webhook does."""
    now_ns = cashier.clock.now_ns()
    signed = sign(json.dumps(shown).encode(), WEBHOOK_SECRET, now_ns // 10**9)
    incoming = verify_event(signed.body, signed.signature, Secret(WEBHOOK_SECRET), now_ns=now_ns)
    with write(cashier.engine) as connection:
        assert store_event(connection, cashier.terms, incoming, now_ns=now_ns) == ""


def _short(statement: str) -> str:
    return " ".join(statement.split()[:3])

"""A way from the SDK to the simulated Stripe without sockets, for tests that ask it ten thousand times."""

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

import stripe

from dragonfly.payments.simulated import SimulatedStripe
from dragonfly.payments.simulated.api import Call
from dragonfly.payments.simulated.faults import Outage


class StripeLine(stripe.HTTPClient):
    """The SDK hands over what it would send, and gets what the server would answer."""

    name = "line"

    def __init__(self, fake: SimulatedStripe) -> None:
        super().__init__()
        self._fake = fake

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: object = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        parts = urlsplit(url)
        text = str(post_data or "") if method == "post" else parts.query
        key = (headers or {}).get("Idempotency-Key", "")
        answer, outage = self._fake.answer(Call(method.upper(), parts.path, text, key))
        if outage in (Outage.CUT, Outage.LOST):
            raise stripe.APIConnectionError("cut", should_retry=True)
        return json.dumps(answer.body).encode(), answer.status, {"Request-Id": "req_line"}

    def close(self) -> None:
        """There is nothing to close."""

"""Resend's HTTP API (https://resend.com/docs/api-reference/emails/send-email, read in November 2026).

`Idempotency-Key` makes Resend remember a mail for 24 hours: the same request again answers with the first one's id
and sends nothing. All attempts at a mail lie within those hours, so that a mail is sent once even when a process
dies between Resend's answer and our note of it.
"""

import asyncio
import ssl

import httpx
import msgspec

from dragonfly.core.secrets import Secret
from dragonfly.mail.messages import Failure, MailFailed, Message
from dragonfly.mail.transports.sender import Sender

SEND_S_MAX = 30.0
ANSWER_BYTES_MAX = 64 * 1024
RETRY_AFTER_S_MAX = 900.0
RETRY_AFTER_S_DEFAULT = 1.0
USER_AGENT = "dragonfly"
_QUOTAS = ("daily_quota_exceeded", "monthly_quota_exceeded")


class _Answer(msgspec.Struct):
    """What is read of an answer; an error has a name and words, which are not looked at."""

    id: str | None = None
    name: str | None = None


class ResendTransport:
    """One client with kept-alive connections for all mails of the process."""

    def __init__(self, *, api_key: Secret, url: str, sender: Sender, verify: ssl.SSLContext) -> None:
        self._sender = sender
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={
                "Authorization": f"Bearer {api_key.reveal()}",
                "User-Agent": USER_AGENT,
                "Accept-Encoding": "identity",
            },
            timeout=httpx.Timeout(SEND_S_MAX / 3),
            verify=verify,
            follow_redirects=False,
        )

    async def send(self, message: Message) -> str | None:
        """One POST. The id that Resend's notices will name, or None when it accepted the mail earlier."""
        try:
            async with asyncio.timeout(SEND_S_MAX):
                return await self._send(message)
        except (httpx.HTTPError, TimeoutError):
            # From None: the library's errors quote addresses and headers.
            raise MailFailed(Failure.AWAY) from None

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, message: Message) -> str | None:
        request = self._client.build_request(
            "POST",
            "/emails",
            content=msgspec.json.encode(self._body(message)),
            headers={"Content-Type": "application/json", "Idempotency-Key": message.id},
        )
        response = await self._client.send(request, stream=True)
        try:
            body = await _bounded(response)
        finally:
            await response.aclose()
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except msgspec.DecodeError:
            answer = _Answer()
        return _understood(response, answer)

    def _body(self, message: Message) -> dict[str, object]:
        body: dict[str, object] = {
            "from": self._sender.shown(),
            "to": [message.address],
            "subject": message.subject,
            "text": message.text,
            "html": message.html,
            "headers": dict(message.headers),
        }
        if self._sender.reply_to:
            body["reply_to"] = self._sender.reply_to
        return body


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise MailFailed(Failure.AWAY)
    return bytes(body)


def _understood(response: httpx.Response, answer: _Answer) -> str | None:
    """The id of a mail that was accepted, else MailFailed: by status, and by name where a status has several."""
    status, name = response.status_code, answer.name or ""
    if status in (200, 201):
        if not answer.id:
            raise MailFailed(Failure.AWAY)  # not Resend: e.g. a captive proxy; asking again costs nothing
        return answer.id[:100]
    if status == 409 and name == "invalid_idempotent_request":
        return None  # the key is known with other words: an older version of this software was heard already
    if status == 429:
        failure = Failure.QUOTA if name in _QUOTAS else Failure.LIMITED
        raise MailFailed(failure, retry_after_s=_retry_after_s(response))
    if status in (400, 413, 422) and name not in ("invalid_idempotency_key", "missing_api_key"):
        raise MailFailed(Failure.MESSAGE, is_final=True)
    if status in (408, 409) or status >= 500:
        raise MailFailed(Failure.AWAY)
    raise MailFailed(Failure.CONFIGURATION)


def _retry_after_s(response: httpx.Response) -> float:
    for name in ("retry-after", "ratelimit-reset"):
        text = response.headers.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 10:
            return min(max(float(text), RETRY_AFTER_S_DEFAULT), RETRY_AFTER_S_MAX)
    return RETRY_AFTER_S_DEFAULT

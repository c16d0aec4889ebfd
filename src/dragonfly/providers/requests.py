"""The head of a request to a provider, built from the channel alone: nothing of the client's head passes."""

import functools
import re

from dragonfly import __version__
from dragonfly.core.secrets import Secret
from dragonfly.providers.channel import Channel, Origin

PREFIXES_MAX = 4_096
"""Channels whose prepared heads are kept."""

_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_PATH = re.compile(r"/[!-~]{0,2047}")
_CREDENTIAL = re.compile(r"[!-~]{0,4096}")


class UnsafeChannel(ValueError):
    """A channel's host, path or credential holds characters that could end a header or a request line."""


def check_channel(channel: Channel) -> None:
    """Refuse a channel whose values cannot stand in a request head: call it when a channel is built.

    Raises UnsafeChannel; the text names the field, never its value.
    """
    _prefix(channel.origin, channel.path, channel.credential)


def request_head(channel: Channel, body_bytes: int, streamed: bool) -> bytes:
    """The complete head of a POST with a JSON body of `body_bytes`, the empty line included."""
    return finish_head(head_prefix(channel, streamed), body_bytes)


def head_prefix(channel: Channel, streamed: bool) -> bytes:
    """The part of the head that is the same for every request; callers keep it beside the channel."""
    accept = b"text/event-stream" if streamed else b"application/json"
    return b"%bAccept: %b\r\n" % (_prefix(channel.origin, channel.path, channel.credential), accept)


def finish_head(prefix: bytes, body_bytes: int) -> bytes:
    """The head of one request, from its prefix."""
    return b"%bContent-Length: %d\r\n\r\n" % (prefix, body_bytes)


@functools.lru_cache(maxsize=PREFIXES_MAX)
def _prefix(origin: Origin, path: str, credential: Secret) -> bytes:
    secret = credential.reveal()
    for name, pattern, value in (
        ("host", _HOST, origin.host),
        ("path", _PATH, path),
        ("credential", _CREDENTIAL, secret),
    ):
        if not pattern.fullmatch(value):
            raise UnsafeChannel(f"the channel's {name} is empty, too long or holds characters that are not allowed")
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {_host_value(origin)}",
        f"User-Agent: dragonfly/{__version__}",
        "Content-Type: application/json",
        "Accept-Encoding: identity",
    ]
    if secret:
        lines.append(f"Authorization: Bearer {secret}")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _host_value(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return host if origin.port == (443 if origin.tls else 80) else f"{host}:{origin.port}"

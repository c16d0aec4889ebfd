"""What a request head must be before anything is served: one valid Host, one of each that must be single,
no transfer coding but `chunked`, within bounds. The parser (llhttp) has refused the rest before."""

import re
from typing import Protocol

from dragonfly.gateway.refusals import Refusal
from dragonfly.settings import Settings

KNOWN_HOSTS_MAX = 1_000
SINGLE_HEADERS = (b"host", b"content-length", b"transfer-encoding", b"authorization", b"x-api-key", b"content-type")
Headers = list[tuple[bytes, bytes]]

_host = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class Parser(Protocol):
    """The part of the HTTP parser that is asked."""

    def get_http_version(self) -> str: ...


class HeadRules:
    """The checks, and the Host values that have passed them."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits
        self._allowed_hosts = frozenset(host.lower().encode() for host in settings.server.allowed_hosts)
        self._known_hosts: set[bytes] = set()

    def check(self, head: dict[bytes, bytes], headers: Headers, parser: Parser) -> None:
        """`headers` as they came with lower-case names, `head` the last value of each; raises Refusal."""
        if len(headers) > self._limits.header_count_max:
            raise head_too_large()
        if len(head) != len(headers):
            names = [name for name, _ in headers]
            if any(names.count(name) > 1 for name in SINGLE_HEADERS):
                raise Refusal("invalid_request", "A header that must be single stands twice.")
        host = head.get(b"host")
        if host not in self._known_hosts:
            self._check_host(host, parser)
        coding = head.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            raise Refusal("invalid_request", "The only transfer coding served is chunked.")

    def check_size(self, url: bytes, headers: Headers) -> None:
        """Bytes of the target and the headers together; raises Refusal."""
        length = len(url) + sum(len(name) + len(value) for name, value in headers)
        if length > self._limits.head_bytes_max:
            raise head_too_large()

    def _check_host(self, host: bytes | None, parser: Parser) -> None:
        if host is None:
            if parser.get_http_version() != "1.0":
                raise Refusal("invalid_request", "A request needs exactly one Host header.")
            return
        if not _host.fullmatch(host):
            raise Refusal("invalid_request", "The Host header is not a valid host name.")
        if self._allowed_hosts and host.lower() not in self._allowed_hosts:
            raise Refusal("misdirected_host", "This gateway does not serve that host name. Check the base URL.")
        if len(self._known_hosts) < KNOWN_HOSTS_MAX:
            self._known_hosts.add(host)


def head_too_large() -> Refusal:
    """One answer for every way in which a head is too large."""
    return Refusal("headers_too_large", "The request's head is too large. Send fewer or shorter headers.")


def secret_of(head: dict[bytes, bytes]) -> bytes:
    """The API key that a request brings; raises Refusal when it brings none."""
    authorization = head.get(b"authorization")
    if authorization is not None:
        if authorization[:7].lower() == b"bearer ":
            return authorization[7:]
    else:
        secret = head.get(b"x-api-key")
        if secret is not None:
            return secret
    raise Refusal("missing_api_key", "Send your API key as `Authorization: Bearer sk-df-…`, never in the URL.")


def origin_form(url: bytes) -> bytes:
    """The path of an absolute-form target, which every server must take (RFC 9112 3.2.2); Host still decides."""
    if url[:8].lower().startswith((b"http://", b"https://")):
        start = url.find(b"/", url.index(b"://") + 3)
        return url[start:] if start >= 0 else b"/"
    return url

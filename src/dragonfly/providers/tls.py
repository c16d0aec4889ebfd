"""TLS towards providers: verified, HTTP/1.1 only, and resumed, because a full handshake costs milliseconds."""

import ssl
from pathlib import Path

SESSIONS_MAX = 1_024
"""Remembered hosts; beyond it, all are forgotten."""


class ClientContext(ssl.SSLContext):
    """A verifying client context that offers each host the session of its last connection.

    The event loops give no way to hand a session to `wrap_bio`, so the context does it by server name. A
    session that the server does not know leads to a full handshake, nothing worse.
    """

    def __init__(self, protocol: int) -> None:
        super().__init__()
        assert protocol == ssl.PROTOCOL_TLS_CLIENT
        self._sessions: dict[str, ssl.SSLSession] = {}

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        assert not server_side
        if session is None and isinstance(server_hostname, str):
            session = self._sessions.get(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def remember(self, server_hostname: str, session: ssl.SSLSession | None) -> None:
        """Keep a session for the next connection to this host."""
        if session is None or not session.has_ticket:
            return
        if len(self._sessions) >= SESSIONS_MAX:
            self._sessions.clear()
        self._sessions[server_hostname] = session


def client_context(ca_file: Path | None) -> ClientContext:
    """The system's authorities, and those of `ca_file` beside them; OSError or ssl.SSLError when it is unusable.

    Same settings as `ssl.create_default_context`, except that SSLKEYLOGFILE is not honoured: a key log would
    open every prompt to whoever reads it.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if ca_file is not None:
        context.load_verify_locations(cafile=str(ca_file))
    context.set_alpn_protocols(["http/1.1"])
    return context

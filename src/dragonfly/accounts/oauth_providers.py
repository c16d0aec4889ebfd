"""The way to Google (OpenID Connect) and Discord (OAuth 2) and back: state, PKCE, nonce, issuer, audience.

Nothing about a journey is kept in the clear: PKCE's verifier and the nonce follow from the state, which only the
browser has. Each provider has a callback of its own, and a state is good for the provider it was made for.
"""

import base64
from typing import TypeVar, cast

import httpx
import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization

from dragonfly.accounts.identities import Vouched
from dragonfly.accounts.oauth import Client, ProviderAway, ProviderRefused
from dragonfly.core.clock import Clock
from dragonfly.core.credentials import Seal

CONNECT_S, ANSWER_S = 5.0, 10.0
ANSWER_BYTES_MAX = 256 * 1024
METADATA_S = 3_600.0
"""How long a provider's own description and keys are remembered."""
KEYS_AGAIN_S = 60.0
"""An unknown key makes us ask again, no oftener than this."""
LEEWAY_S = 60
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "Dragonfly"}
_FORM = "application/x-www-form-urlencoded"
ALGORITHMS = ("RS256", "ES256")
SUBJECT_LENGTH_MAX = 255
NAME_LENGTH_MAX = 100


Answer = TypeVar("Answer")


class _Metadata(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _Granted(msgspec.Struct, frozen=True):
    """A token answer: OpenID's has an id token, the others a scope."""

    access_token: str = ""
    token_type: str = ""
    scope: str = ""
    id_token: str = ""


class _Keys(msgspec.Struct, frozen=True):
    keys: list[dict[str, object]]


class Google:
    """OpenID Connect by discovery. `issuer` is Google's, or another provider's that speaks the same."""

    name = "google"

    def __init__(self, client: Client, issuer: str, clock: Clock) -> None:
        self._client = client
        self._issuer = issuer
        self._clock = clock
        self._metadata: _Metadata | None = None
        self._metadata_until_s = 0.0
        self._keys: KeySet | None = None
        self._keys_at_s = 0.0

    async def address(self, state: str, seal: Seal) -> str:
        metadata = await self._described()
        endpoint, nonce = metadata.authorization_endpoint, _nonce(seal, state)
        return _address(self._client, endpoint, state, seal, scope="openid email profile", nonce=nonce)

    async def vouch(self, code: str, state: str, issuer: str | None, seal: Seal) -> Vouched:
        metadata = await self._described()
        if issuer is not None and issuer != metadata.issuer:
            raise ProviderRefused  # RFC 9207: somebody else's answer was brought to us
        token = await _token(self._client, metadata.token_endpoint, code, state, seal)
        claims = await self._claims(metadata, token.id_token)
        if claims.get("nonce") != _nonce(seal, state):
            raise ProviderRefused
        return _vouched(
            self.name,
            claims.get("sub"),
            claims.get("email"),
            is_verified=claims.get("email_verified") is True,
            name=claims.get("name"),
        )

    async def _described(self) -> _Metadata:
        now_s = self._clock.monotonic_s()
        if self._metadata is None or now_s >= self._metadata_until_s:
            found = await _get(f"{self._issuer}/.well-known/openid-configuration", _Metadata)
            if found.issuer != self._issuer:
                raise ProviderRefused
            self._metadata, self._metadata_until_s = found, now_s + METADATA_S
        return self._metadata

    async def _claims(self, metadata: _Metadata, id_token: str) -> dict[str, object]:
        """The claims of an id token that is signed by the provider, fresh and for us."""
        try:
            try:
                token = jwt.decode(id_token, await self._known_keys(metadata), algorithms=ALGORITHMS)
            except (JoseError, ValueError):
                # A key that was changed lately; a forged token makes us ask once a minute, no more.
                token = jwt.decode(id_token, await self._known_keys(metadata, again=True), algorithms=ALGORITHMS)
            wanted = jwt.JWTClaimsRegistry(
                now=self._clock.now_ns() // 1_000_000_000,
                leeway=LEEWAY_S,
                iss={"essential": True, "value": metadata.issuer},
                aud={"essential": True, "value": self._client.id},
                exp={"essential": True},
                sub={"essential": True},
            )
            wanted.validate(token.claims)
        except (JoseError, ValueError, TypeError):
            raise ProviderRefused from None
        audience, party = token.claims["aud"], token.claims.get("azp")
        if (isinstance(audience, list) and len(audience) > 1) or (party is not None and party != self._client.id):
            raise ProviderRefused
        return dict(token.claims)

    async def _known_keys(self, metadata: _Metadata, *, again: bool = False) -> KeySet:
        age_s = self._clock.monotonic_s() - self._keys_at_s
        if self._keys is None or age_s > (KEYS_AGAIN_S if again else METADATA_S):
            found = await _get(metadata.jwks_uri, _Keys)
            self._keys = KeySet.import_key_set(cast("KeySetSerialization", {"keys": found.keys}))
            self._keys_at_s = self._clock.monotonic_s()
        return self._keys


class _DiscordUser(msgspec.Struct, frozen=True):
    id: str
    email: str | None = None
    verified: bool | None = None
    global_name: str | None = None


class Discord:
    """OAuth 2: the user is asked for with the access token. `base_url` is Discord's, or a fake's."""

    name = "discord"

    def __init__(self, client: Client, base_url: str) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")

    async def address(self, state: str, seal: Seal) -> str:
        return _address(self._client, f"{self._base_url}/oauth2/authorize", state, seal, scope="identify email")

    async def vouch(self, code: str, state: str, issuer: str | None, seal: Seal) -> Vouched:
        if issuer is not None and issuer != self._base_url:
            raise ProviderRefused
        token = await _token(self._client, f"{self._base_url}/api/oauth2/token", code, state, seal)
        if token.token_type.lower() != "bearer" or "email" not in token.scope.split():
            raise ProviderRefused
        bearer = {"Authorization": f"Bearer {token.access_token}"}
        user = await _get(f"{self._base_url}/api/users/@me", _DiscordUser, headers=bearer)
        return _vouched(self.name, user.id, user.email, is_verified=user.verified is True, name=user.global_name)


def _address(client: Client, endpoint: str, state: str, seal: Seal, **more: str) -> str:
    """Where the browser goes to ask for a code."""
    address: str = prepare_grant_uri(
        endpoint,
        client.id,
        "code",
        redirect_uri=client.redirect_uri,
        state=state,
        code_challenge=create_s256_code_challenge(_verifier(seal, state)),
        code_challenge_method="S256",
        **more,
    )
    return address


def _verifier(seal: Seal, state: str) -> str:
    return _text(seal.derive("pkce", state.encode()))


def _nonce(seal: Seal, state: str) -> str:
    return _text(seal.derive("nonce", state.encode()))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _vouched(provider: str, subject: object, address: object, *, is_verified: bool, name: object) -> Vouched:
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_LENGTH_MAX or not subject.isprintable():
        raise ProviderRefused
    shown = name if isinstance(name, str) and name.isprintable() else ""
    return Vouched(
        provider, subject, address if isinstance(address, str) else "", is_verified, shown[:NAME_LENGTH_MAX]
    )


async def _token(client: Client, endpoint: str, code: str, state: str, seal: Seal) -> _Granted:
    """The token answer for a code."""
    form = prepare_token_request(
        "authorization_code",
        redirect_uri=client.redirect_uri,
        code=code,
        code_verifier=_verifier(seal, state),
        client_id=client.id,
        client_secret=client.secret.reveal(),
    )
    request = httpx.Request("POST", endpoint, content=form, headers={**_HEADERS, "Content-Type": _FORM})
    return await _send(request, _Granted)


async def _get(url: str, kind: type[Answer], headers: dict[str, str] | None = None) -> Answer:
    """A JSON document."""
    return await _send(httpx.Request("GET", url, headers={**_HEADERS, **(headers or {})}), kind)


async def _send(request: httpx.Request, kind: type[Answer]) -> Answer:
    """A JSON answer of bounded size; redirects are not followed. ProviderRefused, ProviderAway."""
    body = bytearray()
    try:
        async with httpx.AsyncClient(timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S), trust_env=False) as http:
            answer = await http.send(request, stream=True)
            if answer.status_code >= 500:
                raise ProviderAway
            if answer.status_code != 200:
                raise ProviderRefused
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    raise ProviderRefused
    except httpx.HTTPError:
        raise ProviderAway from None
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError:
        raise ProviderRefused from None

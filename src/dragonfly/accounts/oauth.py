"""What a way through another provider offers, and how it fails. The ways themselves: `oauth_providers`."""

from typing import Protocol

import msgspec

from dragonfly.accounts.identities import Vouched
from dragonfly.core.credentials import Seal
from dragonfly.core.errors import DragonflyError
from dragonfly.core.secrets import Secret


class ProviderUnknown(DragonflyError):
    code = "provider_unknown"
    status = 404

    def __init__(self) -> None:
        super().__init__("One cannot sign in with that provider here. GET /api/auth/providers lists those one can.")


class ProviderRefused(DragonflyError):
    """The provider's answer is not what it must be, or somebody tampered with the way back."""

    code = "provider_refused"
    status = 403

    def __init__(self) -> None:
        super().__init__("The sign-in there could not be confirmed. Begin again.")


class ProviderAway(DragonflyError):
    code = "provider_away"
    status = 502

    def __init__(self) -> None:
        super().__init__("That provider does not answer at the moment. Retry, or sign in with a password.")


class Client(msgspec.Struct, frozen=True):
    """What a provider knows us by."""

    id: str
    secret: Secret
    redirect_uri: str


class Provider(Protocol):
    """Somebody who vouches for people."""

    @property
    def name(self) -> str: ...

    async def address(self, state: str, seal: Seal) -> str:
        """Where to send the browser. ProviderAway."""
        ...

    async def vouch(self, code: str, state: str, issuer: str | None, seal: Seal) -> Vouched:
        """Who came back with `code`. ProviderRefused, ProviderAway."""
        ...

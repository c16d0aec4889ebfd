"""What the installation's secret proves about mail: links that switch a mail off, and digests of dead addresses."""

import base64
import hmac
from typing import NamedTuple

from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import keyed_digest
from dragonfly.mail.kinds import Choice

TOKEN_LENGTH_MAX = 200


class OptOut(NamedTuple):
    """What a link of ours says."""

    account_id: AccountId
    choice: Choice


class Seals:
    """Signs and digests. Opt-out links do not expire: a mail that is years old can still be unsubscribed from, and
    all that a stolen one can do is that."""

    __slots__ = ("_address_key", "_link_key")

    def __init__(self, secret: bytes) -> None:
        assert len(secret) >= 32, "the secret has at least 256 bits"
        self._link_key = keyed_digest(secret, b"mail/opt-out")
        self._address_key = keyed_digest(secret, b"mail/address")

    def opt_out_token(self, account_id: AccountId, choice: Choice) -> str:
        """Stands in the link; letters, digits, dots, dashes and underscores only."""
        said = f"{account_id}.{choice.value}"
        return f"{said}.{self._signature(said)}"

    def opened(self, token: str) -> OptOut | None:
        """What the token says; None unless we signed it."""
        said, _, signature = token[:TOKEN_LENGTH_MAX].rpartition(".")
        if not hmac.compare_digest(self._signature(said).encode(), signature.encode(errors="replace")):
            return None
        account_id, _, choice = said.partition(".")
        return OptOut(AccountId(account_id), Choice(choice))

    def address_digest(self, address: str) -> str:
        """64 hexadecimal digits: without the secret, a copy of the database confirms no guessed address. Upper and
        lower case are one address, because hardly any server tells them apart."""
        return keyed_digest(self._address_key, address.lower().encode()).hex()

    def _signature(self, said: str) -> str:
        signature = keyed_digest(self._link_key, said.encode(errors="replace"))
        return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()

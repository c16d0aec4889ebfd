"""Whose request it is by address: the peer of the socket, or what a proxy that we trust says about it.

Anybody can write X-Forwarded-For and CF-Connecting-IP; they count only as far as the chain of computers behind
them is ours. `network_of` gives the part of an address that one customer usually has: limits count by it, because
everybody with IPv6 owns at least 2⁶⁴ addresses.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

HOPS_MAX = 20
ADDRESS_LENGTH_MAX = 45
UNKNOWN = "0.0.0.0"
"""Stands for a peer without an address, e.g. on a UNIX socket."""
_CUSTOMERS_PREFIX = {4: 32, 6: 64}

Network = IPv4Network | IPv6Network


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks in CIDR form, or single addresses; ValueError for anything else."""
    return tuple(ip_network(text) for text in texts)


def plain_address(text: str) -> str | None:
    """The address in its usual form, IPv4 inside IPv6 as IPv4; None for what is no address."""
    if len(text) > ADDRESS_LENGTH_MAX or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address)


def network_of(address: str) -> str:
    """The network whose addresses count as one customer: an IPv4 address itself, the /64 of an IPv6 address."""
    parsed = ip_address(address)
    return str(ip_network((parsed, _CUSTOMERS_PREFIX[parsed.version]), strict=False))


def lies_in(address: str, networks: Sequence[Network]) -> bool:
    """True when one of the networks holds the address."""
    parsed = ip_address(address)
    return any(parsed.version == network.version and parsed in network for network in networks)


class ClientAddresses:
    """Finds the address of the client behind our own proxies.

    `proxies` are the computers whose X-Forwarded-For is believed, one hop each: the address that the last of them
    saw is the client's. `cdn` are those of a content network whose CF-Connecting-IP is believed when the chain of
    our proxies ends at one of them.
    """

    __slots__ = ("_cdn", "_proxies")

    def __init__(self, proxies: Sequence[Network] = (), cdn: Sequence[Network] = ()) -> None:
        self._proxies = tuple(proxies)
        self._cdn = tuple(cdn)

    def of(self, peer: str, forwarded_for: str = "", connecting_ip: str = "") -> str:
        """The client's address. `peer` is the socket's; the others are the headers as they came, "" when absent.

        A header with anything but addresses ends the chain: what stands before it is not believed.
        """
        address = plain_address(peer) or UNKNOWN
        hops = forwarded_for.split(",")[-HOPS_MAX:] if forwarded_for else []
        while not lies_in(address, self._cdn):
            if not hops or not lies_in(address, self._proxies):
                return address
            before = plain_address(hops.pop().strip())
            if before is None:
                return address
            address = before
        return plain_address(connecting_ip.strip()) or address

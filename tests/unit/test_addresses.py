"""The client's address: forged headers change nothing, proxies of ours are believed one hop each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly.core.addresses import UNKNOWN, ClientAddresses, lies_in, network_of, parse_networks, plain_address

NGINX, CLOUDFLARE, ALICE, MALLORY = "127.0.0.1", "173.245.48.9", "203.0.113.7", "198.51.100.66"
BEHIND_NGINX = ClientAddresses(parse_networks(["127.0.0.0/8"]))
BEHIND_BOTH = ClientAddresses(parse_networks(["127.0.0.1"]), parse_networks(["173.245.48.0/20"]))
BARE = ClientAddresses()


@pytest.mark.parametrize(
    ("addresses", "peer", "forwarded_for", "connecting_ip", "client"),
    [
        (BARE, ALICE, "", "", ALICE),
        (BARE, MALLORY, ALICE, ALICE, MALLORY),
        (BEHIND_NGINX, NGINX, ALICE, "", ALICE),
        (BEHIND_NGINX, NGINX, f"{ALICE}, {MALLORY}", "", MALLORY),
        (BEHIND_NGINX, NGINX, MALLORY, ALICE, MALLORY),
        (BEHIND_NGINX, MALLORY, ALICE, ALICE, MALLORY),
        (BEHIND_NGINX, NGINX, "", "", NGINX),
        (BEHIND_NGINX, NGINX, f"{ALICE}, 127.0.0.9", "", ALICE),
        (BEHIND_NGINX, NGINX, f"{ALICE}, nonsense", "", NGINX),
        (BEHIND_NGINX, NGINX, f"{ALICE}:443", "", NGINX),
        (BEHIND_BOTH, CLOUDFLARE, MALLORY, ALICE, ALICE),
        (BEHIND_BOTH, NGINX, f"{MALLORY}, {CLOUDFLARE}", ALICE, ALICE),
        (BEHIND_BOTH, NGINX, MALLORY, ALICE, MALLORY),
        (BEHIND_BOTH, MALLORY, CLOUDFLARE, ALICE, MALLORY),
        (BEHIND_BOTH, NGINX, f"{CLOUDFLARE}, {MALLORY}", ALICE, MALLORY),
        (BEHIND_BOTH, CLOUDFLARE, "", "nonsense", CLOUDFLARE),
        (BEHIND_BOTH, CLOUDFLARE, "", "2001:DB8:0::1", "2001:db8::1"),
        (BARE, "::ffff:203.0.113.7", "", "", ALICE),
        (BARE, "", "", "", UNKNOWN),
    ],
)
def test_who_a_request_is_from(
    addresses: ClientAddresses, peer: str, forwarded_for: str, connecting_ip: str, client: str
) -> None:
    assert addresses.of(peer, forwarded_for, connecting_ip) == client


@given(st.text(), st.text())
def test_headers_from_a_stranger_change_nothing(forwarded_for: str, connecting_ip: str) -> None:
    assert BEHIND_BOTH.of(MALLORY, forwarded_for, connecting_ip) == MALLORY


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_a_proxy_passes_on_an_address_comes_out(forwarded_for: str, connecting_ip: str) -> None:
    assert plain_address(BEHIND_BOTH.of(NGINX, forwarded_for, connecting_ip))


def test_a_long_chain_is_walked_from_its_near_end_and_no_further_than_its_bound() -> None:
    assert BEHIND_NGINX.of(NGINX, ", ".join([ALICE] + ["127.0.0.2"] * 1_000)) == "127.0.0.2"


@pytest.mark.parametrize(
    ("address", "network"),
    [(ALICE, "203.0.113.7/32"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64")],
)
def test_one_customer_has_an_address_or_a_network_of_2_to_the_64(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_address_lies_in_networks_of_its_own_kind() -> None:
    networks = parse_networks(["203.0.113.0/24", "2001:db8::/32"])
    assert lies_in(ALICE, networks)
    assert lies_in("2001:db8::1", networks)
    assert not lies_in(MALLORY, networks)
    assert not lies_in("2002::1", networks)


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "01.2.3.4", "fe80::1%eth0", "1.2.3.4 ", "x" * 100, "127.1", "0x7f.0.0.1"]
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert plain_address(text) is None


@pytest.mark.parametrize("text", ["10.0.0.1/8", "everything", "10.0.0.0/33", ""])
def test_a_network_that_is_written_wrong_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_networks([text])

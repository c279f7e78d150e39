"""regguard.addresses: who is near whom, and whose word counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from regguard.addresses import MAX_HOPS, TrustedProxies, address_of, host_of

TRUSTED = TrustedProxies.parse(["10.0.0.0/8", "2001:db8::/32"])
PEER = "10.0.0.5"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("\t192.0.2.7 ", "192.0.2.7"),
        ("192.0.2.7:443", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:1", "fe80::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:c000:207]:80", "192.0.2.7"),
        ("", "None"),
        ("unknown", "None"),
        ("_hidden", "None"),
        ("192.0.2.7:", "None"),
        ("192.0.2.7:x", "None"),
        ("192.0.2.7:+1", "None"),
        ("192.0.2.7:123456", "None"),
        ("[2001:db8::1]x", "None"),
        ("192.0.2.256", "None"),
        ("192.0.2", "None"),
        ("3221225991", "None"),
        ("010.0.0.1", "None"),
        ("1٢.0.0.1", "None"),
        ("evil\x00", "None"),
        ("fe80::1%" + "x" * 100, "None"),
    ],
)
def test_b07_an_address_in_whichever_form_proxies_write_it(text: str, address: str) -> None:
    """With a port, a zone, brackets; and nothing that is none."""
    assert str(address_of(text)) == address


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        (IPv4Address("TCP", "192.0.2.7", 1), "192.0.2.7"),
        (IPv6Address("TCP", "2001:db8::1", 1), "2001:db8::1"),
        (IPv6Address("TCP", "::ffff:192.0.2.7", 1), "192.0.2.7"),
        (UNIXAddress(b"/run/x"), "unix:"),
        (None, "unix:"),
    ],
)
def test_a_peer_has_one_address_whichever_listener_it_came_through(peer: object, host: str) -> None:
    """A listener for both families sees IPv4 as mapped into IPv6."""
    assert host_of(peer) == host


@pytest.mark.parametrize(
    ("host", "is_trusted"),
    [
        ("10.200.0.1", True),
        ("11.0.0.1", False),
        ("::ffff:10.0.0.1", True),
        ("2001:db8:1::1", True),
        ("2001:db9::1", False),
        ("unix:", False),
        ("", False),
    ],
)
def test_a_proxy_is_trusted_by_its_network(host: str, is_trusted: bool) -> None:
    """Of either family, in either form."""
    assert TRUSTED.trusts(host) is is_trusted


def test_a_unix_socket_is_trusted_if_that_is_said() -> None:
    """Whoever may open it is not on the network."""
    trusted = TrustedProxies.parse(["unix:"])

    assert trusted
    assert trusted.trusts("unix:")
    assert not trusted.trusts("127.0.0.1")


def test_nobody_is_trusted_by_default() -> None:
    """And that is quick to ask."""
    assert not TrustedProxies()
    assert not TrustedProxies().trusts("127.0.0.1")


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["evil, 192.0.2.7"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7, 10.0.0.1"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7", "10.0.0.1", "10.0.0.2,10.0.0.3"], "192.0.2.7"),
        (["192.0.2.7:1234"], "192.0.2.7"),
        (["fe80::1%eth0"], "fe80::1"),
        (["[2001:db9::1]:443,2001:db8::5"], "2001:db9::1"),
        # Nothing, or nothing that can be understood: whoever wrote it is all that is known.
        ([], PEER),
        ([""], PEER),
        (["unknown"], PEER),
        (["192.0.2.7, "], PEER),
        (["192.0.2.7, garbage, 10.0.0.1"], "10.0.0.1"),
        # Somebody within: the first who asked.
        (["10.1.2.3"], "10.1.2.3"),
        (["10.1.2.3, 10.0.0.1"], "10.1.2.3"),
        (["127.0.0.1"], "127.0.0.1"),
    ],
)
def test_b07_the_rightmost_hop_that_is_not_trusted_is_the_client(
    fields: list[str], client: str
) -> None:
    """What stands left of it was there before a trusted proxy wrote anything."""
    assert TRUSTED.client_of(PEER, fields) == client


def test_b07_a_thousand_hops_are_not_all_looked_at() -> None:
    """Nobody has that many proxies, and 32 KiB of them should cost microseconds."""
    hops = ["192.0.2.7", *(f"10.0.{number // 250}.{number % 250}" for number in range(1000))]

    assert TRUSTED.client_of(PEER, [",".join(hops)]) == hops[-MAX_HOPS]
    assert TRUSTED.client_of(PEER, hops[:MAX_HOPS]) == "192.0.2.7"


@given(st.lists(st.text(st.characters(codec="latin-1"))))
def test_b07_whatever_stands_there_the_client_has_an_address(fields: list[str]) -> None:
    """For the log, the throttle and the registry."""
    assert address_of(TRUSTED.client_of(PEER, fields)) is not None


@pytest.mark.parametrize(
    ("word", "cure"),
    [
        ("10.0.0.5/8", "'10.0.0.5/8' has bits set behind the network; write 10.0.0.0/8"),
        ("elb", "'elb' is no network; write 10.0.0.5, 10.0.0.0/24, 2001:db8::/32, or unix:"),
        ("10.0.0.0/33", "'10.0.0.0/33' is no network; write 10.0.0.5, 10.0.0.0/24,"),
        ("unix:/run/x", "'unix:/run/x' is no network; write"),
        ("", "'' is no network; write"),
    ],
)
def test_what_is_no_network_is_refused(word: str, cure: str) -> None:
    """With what was probably meant."""
    with pytest.raises(ValueError, match=r"; write") as caught:
        TrustedProxies.parse(["10.0.0.1", word])
    assert str(caught.value).startswith(cure)

"""Network addresses: who is near whom, and whose word about others counts.

A server sees the address of its peer.  Behind a proxy that is the proxy's, and the client's stands
in ``X-Forwarded-For``, which anybody can write: it is read from the right, where the nearest proxy
wrote, for as long as trusted proxies wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

INTRODUCED = "haproxy"
"""The kind of ``--listen`` whose connections begin with a PROXY header."""

UNIX = "unix:"
"""The address of whoever comes through a UNIX socket."""

MAX_HOPS = 32
"""Hops of X-Forwarded-For that are looked at: more proxies than anybody runs, and a bound for what
a head of 32 KiB may cost."""

# A bracketed IPv6 address with a zone and a port; longer is no address.
_LONGEST = 80


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address in ``text``, or None.

    Proxies write IPv6 with and without brackets, and some add a port.  A zone (``fe80::1%eth0``)
    means something only on the machine that wrote it and is left out; an IPv4 address mapped into
    IPv6 (a listener for both has such peers) is the IPv4 address.
    """
    text = text.strip(" \t")
    if len(text) > _LONGEST:
        return None
    if text.startswith("["):
        text, _, port = text[1:].partition("]")
        port = port.removeprefix(":") or "0"
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
    else:
        port = "0"
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def host_of(peer: object) -> str:
    """The address of a Twisted ``IAddress`` as text; ``unix:`` where it has none."""
    host = getattr(peer, "host", None)
    if not isinstance(host, str):
        return UNIX
    if host.startswith("::ffff:"):
        return str(address_of(host) or host)
    return host


@lru_cache(1024)  # asked for each connection
def network_of(client: str) -> str:
    """The network that a client's address counts for: its IPv4 /24 or IPv6 /64.

    What is no IP address (a UNIX socket's ``unix:``) is a network of its own.
    """
    address = address_of(client)
    if address is None:
        return client
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return f"{IPv4Address(int(address) >> 8 << 8)}/24"


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Peers that say for whom they come; false where there are none."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, words: Sequence[str]) -> TrustedProxies:
        """Addresses, networks (``10.0.0.0/8``), ``unix:``; ValueError with the cure."""
        networks = []
        for word in words:
            if word == UNIX:
                continue
            try:
                networks.append(ip_network(word))
            except ValueError:
                raise ValueError(f"{word!r:.60} {_cure(word)}") from None
        return cls(tuple(networks), UNIX in words)

    def __bool__(self) -> bool:
        return bool(self.networks or self.unix)

    def trusts(self, host: str) -> bool:
        """Whether a peer is one of them."""
        if host == UNIX:
            return self.unix
        if not self.networks:
            return False
        address = address_of(host)
        return address is not None and self._holds(address)

    def client_of(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """The client behind ``peer``, a trusted one, by its X-Forwarded-For fields in order.

        The rightmost hop that is not trusted is the client.  What stands left of it, or of
        something that is no address, is hearsay.  Where all hops are trusted, the first of them
        asked.
        """
        client = peer
        hops = ",".join(forwarded_for).rsplit(",", MAX_HOPS)
        for hop in reversed(hops[-MAX_HOPS:]):
            address = address_of(hop)
            if address is None:
                break
            client = str(address)
            if not self._holds(address):
                break
        return client

    def _holds(self, address: IPv4Address | IPv6Address) -> bool:
        # A network of the other family holds it not.
        return any(address in network for network in self.networks)


def _cure(word: str) -> str:
    try:
        meant = ip_network(word, strict=False)
    except ValueError:
        return "is no network; write 10.0.0.5, 10.0.0.0/24, 2001:db8::/32, or unix:"
    return f"has bits set behind the network; write {meant}"

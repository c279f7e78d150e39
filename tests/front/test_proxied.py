"""regguard.transport.proxied: the PROXY header before everything else.

Headers are written by hand from HAProxy's doc/proxy-protocol.txt; ``tests/e2e`` has them from a
real haproxy.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from regguard.transport import proxied_transport, writer_for
from regguard.transport.proxied import MAX_BLOCK, MalformedHeader, ProxyHeader
from tests.front.test_transport import PEER, Pair, Recorder, TLSPair, context, reactor

__all__ = ["context", "reactor"]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def block(
    command: int = 0x21, family: int = 0x11, addresses: bytes | None = None, more: bytes = b""
) -> bytes:
    """A version 2 header."""
    if addresses is None:
        addresses = bytes([192, 0, 2, 9, 10, 0, 0, 1]) + struct.pack("!HH", 50001, 443)
    rest = addresses + more
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


IPV6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::9")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 50001, 443)
)
V1 = b"PROXY TCP4 192.0.2.9 10.0.0.1 50001 443\r\n"
V4 = ("192.0.2.9", 50001)
V6 = ("2001:db8::9", 50001)

GOOD = [
    (V1, V4),
    (b"PROXY TCP6 2001:db8::9 2001:db8::1 50001 443\r\n", V6),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff whatever 1\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    (block(), V4),
    (block(more=b"\x04\x00\x05hello" * 30), V4),
    (block(family=0x21, addresses=IPV6), V6),
    (block(command=0x20), None),
    (block(command=0x20, family=0, addresses=b""), None),
    (block(family=0x00, addresses=b""), None),
    (block(family=0x31, addresses=bytes(216)), None),
    (block(addresses=IPV6[:12], more=bytes(MAX_BLOCK - 28)), ("32.1.13.184", 0)),
]
BAD = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"SSH-2.0-x\r\n",
    b"proxy TCP4 192.0.2.9 10.0.0.1 50001 443\r\n",
    b"PROXY  TCP4 192.0.2.9 10.0.0.1 50001 443\r\n",
    b"PROXY TCP4 192.0.2.9 10.0.0.1 50001\r\n",
    b"PROXY TCP4 192.0.2.9 10.0.0.1 50001 443 1\r\n",
    b"PROXY TCP4 192.0.2.9 10.0.0.1 65536 443\r\n",
    b"PROXY TCP4 192.0.2.9 10.0.0.1 -1 443\r\n",
    b"PROXY TCP4 192.0.2.256 10.0.0.1 50001 443\r\n",
    b"PROXY TCP4 2001:db8::9 2001:db8::1 50001 443\r\n",
    b"PROXY TCP6 192.0.2.9 10.0.0.1 50001 443\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 50001 443\r\n",
    b"PROXY TCP4 evil 10.0.0.1 50001 443\r\n",
    b"PROXY UDP4 192.0.2.9 10.0.0.1 50001 443\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY TCP4 " + b"1" * 96,
    b"PROXY UNKNOWN\n",
    block(command=0x11),
    block(command=0x22),
    block(family=0x12),
    block(family=0x22, addresses=IPV6),
    block(family=0x11, addresses=bytes(11)),
    block(family=0x21, addresses=bytes(35)),
    block(more=bytes(MAX_BLOCK - 27)),
    SIGNATURE[:11] + b"x",
]


@pytest.mark.parametrize(("octets", "source"), GOOD)
@pytest.mark.parametrize("piece", [1, 5, 16, 10_000])
def test_a_header_is_taken_in_as_it_comes(
    octets: bytes, source: tuple[str, int] | None, piece: int
) -> None:
    """And no octet of what follows it."""
    header = ProxyHeader()
    stream = octets + b"\x16\x03\x01PROXY"
    position = 0
    while not header.complete:
        ahead = stream[position : position + piece]
        assert ahead
        position += header.take(ahead)

    assert position == len(octets)
    assert header.source == source


@pytest.mark.parametrize("octets", BAD)
@pytest.mark.parametrize("piece", [1, 10_000])
def test_what_is_no_header_is_refused(octets: bytes, piece: int) -> None:
    """As soon as it can't become one."""
    header = ProxyHeader()

    def feed() -> None:
        position = 0
        while position < len(octets) and not header.complete:
            position += header.take(octets[position : position + piece])

    # The line that LF alone ends may still go on.
    if octets.endswith(b"\r\n") or octets != b"PROXY UNKNOWN\n":
        with pytest.raises(MalformedHeader):
            feed()
    else:
        feed()
    assert not header.complete


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE]))
def test_whatever_comes_is_taken_in_or_refused(octets: bytes, start: bytes) -> None:
    """Never anything else, and never more than came."""
    header = ProxyHeader()
    try:
        taken = header.take(start + octets)
    except MalformedHeader:
        return
    assert 0 <= taken <= len(start + octets)


# -- under a transport -------------------------------------------------------------------------


class Introduced(Recorder):
    """Notes who the client is when that is said."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[str] = []

    def client_named(self) -> None:
        assert self.transport is not None
        self.named.append(self.transport.getPeer().host)


@pytest.fixture
def malformed() -> list[int]:
    """One entry for each connection that was refused."""
    return []


@pytest.fixture
def plain(reactor: SelectReactor, malformed: list[int]) -> Iterator[Pair]:
    """A plain connection."""
    pair = Pair(reactor, proxied_transport(None, lambda: malformed.append(1)), Introduced)
    yield pair
    pair.close()


@pytest.fixture
def tls(reactor: SelectReactor, context: SSL.Context, malformed: list[int]) -> Iterator[TLSPair]:
    """A TLS connection before its handshake."""
    accept = proxied_transport(lambda: context, lambda: malformed.append(1))
    pair = TLSPair(reactor, accept, protocol=Introduced)
    yield pair
    pair.close()


def named(pair: Pair) -> list[str]:
    assert isinstance(pair.protocol, Introduced)
    return pair.protocol.named


def test_the_transport_keeps_twisteds_contract(plain: Pair, tls: TLSPair) -> None:
    """Everything above works with either."""
    verifyObject(ITCPTransport, plain.transport)
    verifyObject(ITCPTransport, tls.transport)


def test_the_peer_is_the_client_and_what_follows_is_the_protocols(plain: Pair) -> None:
    """Header and first octets in one segment."""
    assert plain.transport.getPeer().host == PEER[0]
    plain.socket.send(V1 + b"GET")
    plain.turn()
    plain.socket.send(b" /")
    plain.turn()

    assert named(plain) == ["192.0.2.9"]
    assert (plain.transport.getPeer().host, plain.transport.getPeer().port) == V4
    assert plain.protocol.data == b"GET /"


def test_an_ipv6_client_of_an_ipv4_balancer(plain: Pair) -> None:
    """The families need not be the same."""
    plain.socket.send(block(family=0x21, addresses=IPV6))
    plain.turn()

    assert (plain.transport.getPeer().host, plain.transport.getPeer().port) == V6


def test_a_balancer_that_speaks_for_itself_is_the_peer(plain: Pair) -> None:
    """Its health checks."""
    plain.socket.send(block(command=0x20) + b"GET")
    plain.turn()

    assert plain.transport.getPeer().host == PEER[0]
    assert named(plain) == []
    assert plain.protocol.data == b"GET"


@pytest.mark.parametrize("header", [V1, block(more=b"\x04\x00\x05hello")])
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_g10_the_header_comes_before_tls(tls: TLSPair, header: bytes, piece: int) -> None:
    """In whatever segments; the ClientHello may be in the last of them."""
    for start in range(0, len(header), piece):
        tls.socket.send(header[start : start + piece])
        if start + piece < len(header):
            tls.turn(2)
            # Octets that wait for others must not keep the reactor busy.
            assert not _readable(tls)
    tls.shake_hands()
    tls.send(b"GET")
    tls.turn()

    assert named(tls) == ["192.0.2.9"]
    assert tls.protocol.data == b"GET"
    writer_for(tls.transport)(b"answer")
    assert tls.receive_all() == b"answer"


def _readable(pair: Pair) -> bool:
    try:
        pair.transport.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02", block(0x11)])
def test_g04_a_connection_without_a_header_is_closed(
    plain: Pair, tls: TLSPair, malformed: list[int], octets: bytes
) -> None:
    """Nothing of it reaches the protocol."""
    for pair in (plain, tls):
        pair.socket.send(octets)
        pair.turn()

        assert pair.protocol.lost == [ConnectionLost]
        assert not pair.protocol.pieces
        assert not named(pair)
    assert len(malformed) == 2


def test_a_client_that_closes_in_the_header_is_gone(plain: Pair, malformed: list[int]) -> None:
    """Quietly: balancers knock to see whether anybody is there."""
    plain.socket.send(V1[:10])
    plain.turn()
    plain.socket.close()
    with capturedLogs() as events:
        plain.turn()

    assert plain.protocol.lost == [ConnectionLost]
    assert not malformed
    assert not events


def test_a_protocol_may_turn_the_client_away(plain: Pair) -> None:
    """Its network has too many connections."""

    def turn_away() -> None:
        plain.transport.abortConnection()

    plain.protocol.client_named = turn_away  # type: ignore[attr-defined]
    plain.socket.send(V1 + b"GET")
    plain.turn()

    assert not plain.protocol.pieces
    assert plain.protocol.lost


def test_reading_can_be_paused_before_and_after(plain: Pair) -> None:
    """As ever."""
    plain.transport.pauseProducing()
    plain.socket.send(V1 + b"GET")
    plain.turn()
    assert not named(plain)
    plain.transport.resumeProducing()
    plain.turn()

    assert plain.protocol.data == b"GET"

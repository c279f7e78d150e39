"""regguard.transport.at_once beside Twisted's endpoints, over real sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regguard.transport import AtOnceEndpoint

FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
LOOPBACK = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}


class Talker(Protocol):
    """Says hello, and notes what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: list[Any] = []

    def connectionMade(self) -> None:
        self.transport.write(b"hello")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason.type)


@implementer(IStreamClientEndpoint)
class Plain:
    """The endpoint behind: counts, and never connects."""

    def __init__(self) -> None:
        self.asked = 0

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        self.asked += 1
        return fail(ConnectionRefusedError())


@pytest.fixture(scope="module")
def reactor() -> SelectReactor:
    """Not the global one; it turns when the test says so."""
    return SelectReactor()


@contextlib.contextmanager
def listening(family: int, folder: Path) -> Iterator[socket.socket]:
    """Somebody who listens on this machine."""
    place: Any = LOOPBACK.get(socket.AddressFamily(family), str(folder / "socket"))
    with socket.socket(family) as listener:
        listener.bind(place)
        listener.listen(1)
        yield listener


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_connected_when_connect_comes_back(
    reactor: SelectReactor, tmp_path: Path, family: socket.AddressFamily
) -> None:
    """And the transport is like any other: octets both ways, addresses, and the end."""
    plain = Plain()
    with listening(family, tmp_path) as listener:
        place = listener.getsockname()
        endpoint = AtOnceEndpoint(plain, reactor, family, place)
        verifyObject(IStreamClientEndpoint, endpoint)
        connected: list[Talker] = []
        endpoint.connect(Factory.forProtocol(Talker)).addCallback(connected.append)
        (talker,) = connected
        theirs, _ = listener.accept()
    transport: Any = talker.transport
    with capturedLogs() as events:
        transport.setTcpNoDelay(True)
    assert not events
    if family != socket.AF_UNIX:
        assert transport.getTcpNoDelay()
    kinds = {
        socket.AF_INET: IPv4Address,
        socket.AF_INET6: IPv6Address,
        socket.AF_UNIX: UNIXAddress,
    }
    assert type(transport.getPeer()) is type(transport.getHost()) is kinds[family]
    with theirs:
        theirs.sendall(b"welcome")
        for _ in range(3):
            reactor.doIteration(0)
        assert (theirs.recv(10), talker.heard) == (b"hello", b"welcome")
    for _ in range(3):
        reactor.doIteration(0)

    assert talker.lost == [ConnectionDone]
    assert transport not in reactor.getReaders()
    assert plain.asked == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_where_nobody_listens_the_plain_endpoint_says_so(
    reactor: SelectReactor, tmp_path: Path, family: socket.AddressFamily
) -> None:
    """The same errors, and the same waiting, as everywhere else."""
    plain = Plain()
    with listening(family, tmp_path) as listener:
        place = listener.getsockname()
    failed: list[Any] = []
    readers = reactor.getReaders()
    AtOnceEndpoint(plain, reactor, family, place).connect(Factory.forProtocol(Talker)).addErrback(
        lambda failure: failed.append(failure.type)
    )

    assert failed == [ConnectionRefusedError]
    assert plain.asked == 1
    assert reactor.getReaders() == readers


def test_a_full_queue_is_waited_for_by_the_plain_endpoint(
    reactor: SelectReactor, tmp_path: Path
) -> None:
    """A UNIX socket of a registry that does not accept for a moment."""
    plain = Plain()
    with listening(socket.AF_UNIX, tmp_path) as listener, contextlib.ExitStack() as crowd:
        for _ in range(2):
            crowd.enter_context(socket.socket(socket.AF_UNIX)).connect(listener.getsockname())
        endpoint = AtOnceEndpoint(plain, reactor, socket.AF_UNIX, listener.getsockname())
        endpoint.connect(Factory.forProtocol(Talker)).addErrback(lambda failure: None)

        assert plain.asked == 1


def test_h06_without_a_descriptor_the_plain_endpoint_says_so(
    reactor: SelectReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails in the way that the relay knows."""
    plain = Plain()
    endpoint = AtOnceEndpoint(plain, reactor, socket.AF_INET, ("127.0.0.1", 1))

    def starved(*_: Any) -> Any:
        raise OSError(24, "starved")

    with monkeypatch.context() as patch:
        patch.setattr("regguard.transport.at_once.socket.socket", starved)
        endpoint.connect(Factory.forProtocol(Talker)).addErrback(lambda failure: None)

    assert plain.asked == 1


def test_nobody_connects_to_oneself(
    reactor: SelectReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP allows it where nobody listens on a port that the kernel gives out itself."""
    plain = Plain()

    class Narcissus(socket.socket):
        def connect_ex(self, address: Any) -> int:
            if self.getsockname() != address:
                self.bind(address)
            return super().connect_ex(address)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = probe.getsockname()
    with monkeypatch.context() as patch:
        patch.setattr("regguard.transport.at_once.socket.socket", Narcissus)
        endpoint = AtOnceEndpoint(plain, reactor, socket.AF_INET, place)
        endpoint.connect(Factory.forProtocol(Talker)).addErrback(lambda failure: None)

    assert plain.asked == 1

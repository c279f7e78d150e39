"""regguard.front.listening: which endpoint gets which TLS, and a request through each."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    serverFromString,
)
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from regguard.addresses import TrustedProxies
from regguard.front.admission import Admission
from regguard.front.certificates import Certificates
from regguard.front.listening import is_tcp, listen
from tests.front.tls import certificate, client_context
from tests.front.wire import Door, replies

REACTOR = MemoryReactor()
CASE = SynchronousTestCase()


@pytest.mark.parametrize(
    ("endpoint", "on_socket"),
    [
        (TCP4ServerEndpoint(REACTOR, 5043), True),
        (TCP6ServerEndpoint(REACTOR, 5043), True),
        (AdoptedStreamServerEndpoint(REACTOR, 3, socket.AF_INET), True),
        (AdoptedStreamServerEndpoint(REACTOR, 3, socket.AF_INET6), True),
        (AdoptedStreamServerEndpoint(REACTOR, 3, socket.AF_UNIX), False),
        (UNIXServerEndpoint(REACTOR, "/run/regguard.sock"), False),
        (serverFromString(REACTOR, "tcp:5043"), True),
        (serverFromString(REACTOR, "unix:/run/regguard.sock"), False),
        (serverFromString(REACTOR, "haproxy:tcp:5043"), False),
    ],
)
def test_tls_on_the_socket_is_for_plain_tcp(
    endpoint: IStreamServerEndpoint, on_socket: bool
) -> None:
    """A PROXY line comes before TLS, and a UNIX socket has no TLS transport of ours."""
    assert is_tcp(endpoint) is on_socket


def test_a_port_that_is_not_twisteds_own_is_refused(tmp_path: Path) -> None:
    """To go on would serve plain text on the TLS port."""
    door = Door(watched=False)
    certificates = Certificates([certificate(tmp_path, "a.example")])

    listening = listen(serverFromString(REACTOR, "tcp:5043"), door.site, certificates, door.clock)

    CASE.failureResultOf(listening, RuntimeError)
    door.check_and_close()


def test_h06_a_port_accepts_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    """The others wait, and cost no turn of the reactor, until one has left."""
    reactor = SelectReactor()
    door = Door(watched=False, admission=Admission(Clock(), 3))
    path = tmp_path / "sock"
    endpoint = serverFromString(reactor, f"unix:{path}")
    port = CASE.successResultOf(listen(endpoint, door.site, None, reactor))
    clients = []
    for _ in range(10):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        clients.append(client)

    def turn() -> None:
        for _ in range(50):
            reactor.runUntilCurrent()
            reactor.doIteration(0)

    turn()
    assert len(door.site.channels) == 3
    assert port not in reactor.getReaders()
    for client in clients[:2]:
        client.close()
    turn()
    assert len(door.site.channels) == 3
    for client in clients[2:9]:
        client.close()
    turn()
    assert len(door.site.channels) == 1
    assert port in reactor.getReaders()
    clients[9].close()
    stopped = port.stopListening()
    assert stopped is not None
    turn()
    CASE.successResultOf(stopped)
    door.check_and_close()


@pytest.mark.parametrize("why", [errno.ENFILE, errno.EMFILE, errno.ENOBUFS, errno.ENOMEM])
def test_h06_a_kernel_that_has_nothing_left_is_asked_again_a_second_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: int
) -> None:
    """Not in every turn of the reactor, for whoever is there needs those."""
    reactor = SelectReactor()
    now = [0.0]
    monkeypatch.setattr(reactor, "seconds", lambda: now[0])
    door = Door(watched=False)
    path = tmp_path / "sock"
    endpoint = serverFromString(reactor, f"unix:{path}")
    port = CASE.successResultOf(listen(endpoint, door.site, None, reactor))
    tries = []

    def starved(self: socket.socket) -> Any:
        tries.append(now[0])
        raise OSError(why, "starved")

    def turn() -> None:
        for _ in range(20):
            reactor.runUntilCurrent()
            reactor.doIteration(0)

    with monkeypatch.context() as patch, socket.socket(socket.AF_UNIX) as client:
        patch.setattr(socket.socket, "accept", starved)
        client.connect(str(path))
        for each in range(3):
            now[0] = float(each)
            turn()
        assert sorted(set(tries)) == [0.0, 1.0, 2.0]
        # Twisted gives up a descriptor of its own, and asks once more.
        assert len(tries) <= 6
        patch.undo()
        now[0] = 3.0
        turn()
        assert len(door.site.channels) == 1
    turn()
    stopped = port.stopListening()
    assert stopped is not None
    turn()
    CASE.successResultOf(stopped)
    door.check_and_close()


def test_a_full_port_can_be_stopped(tmp_path: Path) -> None:
    """And does not accept again when somebody leaves after that."""
    reactor = SelectReactor()
    door = Door(watched=False, admission=Admission(Clock(), 1))
    path = tmp_path / "sock"
    endpoint = serverFromString(reactor, f"unix:{path}")
    port = CASE.successResultOf(listen(endpoint, door.site, None, reactor))
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    for _ in range(5):
        reactor.doIteration(0)
    stopped = port.stopListening()
    assert stopped is not None
    client.close()
    for _ in range(5):
        reactor.runUntilCurrent()
        reactor.doIteration(0)

    CASE.successResultOf(stopped)
    assert not door.site.channels
    assert port not in reactor.getReaders()
    door.check_and_close()


def test_only_tcp_can_be_introduced(tmp_path: Path) -> None:
    """A header that nobody would read must not be waited for."""
    trusted = TrustedProxies.parse(["unix:"])
    door = Door(watched=False, trusted=trusted, introduced=True)
    endpoint = serverFromString(REACTOR, f"unix:{tmp_path / 'sock'}")

    with pytest.raises(ValueError, match="only TCP connections begin with a PROXY header"):
        listen(endpoint, door.site, None, door.clock)
    door.check_and_close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_request_through_a_unix_socket(tmp_path: Path, tls: bool) -> None:
    """Plain, and with Twisted's own TLS under the same channel."""
    reactor = SelectReactor()
    door = Door(watched=False)
    path = tmp_path / "sock"
    certificates = Certificates([certificate(tmp_path, "a.example")]) if tls else None
    endpoint = serverFromString(reactor, f"unix:{path}")
    port = CASE.successResultOf(listen(endpoint, door.site, certificates, reactor))
    assert door.site.half_closes is not tls
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.setblocking(False)
    peer: SSL.Connection | socket.socket = client
    if tls:
        peer = SSL.Connection(client_context(), client)
        peer.set_connect_state()

    def turn() -> None:
        for _ in range(5):
            reactor.runUntilCurrent()
            reactor.doIteration(0)

    def receive(until: bytes) -> bytes:
        received = b""
        for _ in range(100):
            turn()
            with contextlib.suppress(BlockingIOError, SSL.WantReadError):
                received += peer.recv(65536)
            if received.endswith(until):
                return received
        raise AssertionError(received)

    while tls:
        try:
            assert isinstance(peer, SSL.Connection)
            peer.do_handshake()
            break
        except SSL.WantReadError:
            turn()
    peer.send(b"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" * 2)
    first, second = replies(receive(b"abc") if tls else receive(b"/echo abc"))[-2:]
    assert first.body == second.body == b"/echo abc"
    assert door.logged[0].client == "unix:"
    peer.send(b"PUT /now HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nabc")
    (refused,) = replies(receive(b"/now "))
    assert refused["Connection"] == [b"close"]
    client.close()
    stopped = port.stopListening()
    assert stopped is not None
    turn()
    CASE.successResultOf(stopped)
    assert not door.site.channels
    door.check_and_close()

"""G03: how long a TLS handshake may take, on real sockets and a clock that the test moves."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.selectreactor import SelectReactor

from regguard.transport import tls_transport
from tests.e2e.hello import client_hello, records
from tests.front.tls import client_context, context_of
from tests.front.wire import Door


class SecuredDoor:
    """A door whose connections speak TLS on their sockets."""

    def __init__(self, folder: Path) -> None:
        self.reactor = SelectReactor()
        self.door = Door()
        context = context_of(folder, "registry.example")
        self._accept = tls_transport(lambda: context)

    def connect(self) -> socket.socket:
        """A client's end; the door has accepted the other one."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
        ours.setblocking(False)
        client.setblocking(False)
        protocol: Any = self.door.site.buildProtocol(None)
        port = SimpleNamespace(_realPortNumber=5043)
        address = ("192.0.2.7", 50000)
        protocol.makeConnection(self._accept(ours, protocol, address, port, 1, self.reactor))
        return client

    def wait(self, seconds: int) -> None:
        """Let time pass for the door."""
        for _ in range(seconds):
            self.door.clock.advance(1)
            self.turn()

    def turn(self) -> None:
        """Let the reactor turn."""
        for _ in range(10):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[SecuredDoor]:
    """Closed in the end, and nothing left then."""
    secured = SecuredDoor(tmp_path)
    idle = secured.reactor.getReaders()
    yield secured
    secured.door.site.stop()
    secured.turn()
    assert not secured.door.site.channels
    assert secured.reactor.getReaders() == idle
    assert not secured.reactor.getWriters()


def is_closed(client: socket.socket) -> bool:
    """Whether the door has ended the connection, having said nothing."""
    try:
        return client.recv(65536) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "hello", [b"", records(client_hello()), b"\x16\x03"], ids=["silence", "hello", "two-octets"]
)
def test_g03_a_handshake_has_10_seconds_however_it_trickles(
    secured: SecuredDoor, hello: bytes
) -> None:
    """Silence, and an octet of a hello each second: no octet buys more time."""
    with secured.connect() as client:
        for second in range(9):
            client.send(hello[second : second + 1])
            secured.turn()
            secured.wait(1)
            assert not is_closed(client)
        secured.wait(2)

        assert is_closed(client)
    assert not secured.door.site.channels
    assert not secured.door.logged


def test_g03_a_handshake_that_stops_in_the_middle_has_10_seconds(secured: SecuredDoor) -> None:
    """The server's flight is out; the client's second one never comes."""
    with secured.connect() as client:
        client.send(records(client_hello()))
        secured.turn()
        assert client.recv(65536)[:1] == b"\x16"
        secured.wait(9)
        assert not is_closed(client)
        secured.wait(2)

        assert is_closed(client)
    assert not secured.door.site.channels


def test_g03_who_shakes_hands_and_asks_nothing_has_10_seconds_in_all(secured: SecuredDoor) -> None:
    """The handshake and the first octet of a request share them."""
    with secured.connect() as client:
        tls = SSL.Connection(client_context(), client)
        tls.set_connect_state()
        secured.wait(6)
        for _ in range(5):
            with contextlib.suppress(SSL.WantReadError):
                tls.do_handshake()
            secured.turn()
        assert tls.get_protocol_version_name() == "TLSv1.3"
        secured.wait(3)
        with pytest.raises(SSL.WantReadError):
            tls.recv(1)
        secured.wait(2)

        with pytest.raises(SSL.ZeroReturnError):
            tls.recv(1)

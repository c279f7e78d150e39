"""A reset is no end: regguard.transport.tell_resets."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from regguard.transport import tell_resets


class Transport:
    """A connected socket and what was told of its end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.told: list[type[BaseException]] = []

    def getHandle(self) -> socket.socket:
        return self.sock

    def readConnectionLost(self, reason: Any) -> None:
        self.told.append(reason.type)

    def connectionLost(self, reason: Any) -> None:
        self.told.append(reason.type)


def _ended(*, by_reset: bool) -> list[type[BaseException]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    if by_reset:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    with client:
        transport = Transport(client)
        tell_resets(transport)
        deadline = time.monotonic() + 5
        while not transport.told and time.monotonic() < deadline:
            # As Twisted calls it when epoll has told of a hang-up and of nothing to read.
            transport.readConnectionLost(Failure(ConnectionDone()))
    return transport.told


def test_i06_a_reset_that_looks_like_an_end_is_told_as_a_reset() -> None:
    """Else half of an answer without a length would look whole."""
    assert _ended(by_reset=True) == [ConnectionLost]


def test_h09_an_end_stays_an_end() -> None:
    """The other side has said all."""
    assert _ended(by_reset=False) == [ConnectionDone]

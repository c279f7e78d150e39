"""Reads that go straight to the protocol.

Between an outgoing connection of Twisted's and its protocol stands the endpoint's wrapper, and
each read takes three calls more than it needs.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import main
from twisted.internet.tcp import Connection


def read_directly(transport: Any, protocol: Any, size: int) -> None:
    """Let a plain TCP or UNIX connection hand what it reads, up to ``size`` octets in one turn, to
    ``protocol`` itself.

    As ``tcp.Connection.doRead`` else, and what fills a read counts as bulk (see ``turns``).  Any
    other transport is left alone.
    """
    if not (isinstance(transport, Connection) and type(transport).doRead is Connection.doRead):
        return
    receive = transport.socket.recv
    deliver = protocol.dataReceived

    def read() -> Any:
        try:
            data = receive(size)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        transport.is_bulk = len(data) == size  # type: ignore[attr-defined]
        deliver(data)
        return None

    # What else happens to the connection: without the wrapper, too.
    transport.protocol = protocol
    transport.doRead = read  # type: ignore[method-assign]

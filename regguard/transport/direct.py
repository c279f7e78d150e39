"""Reads that go straight to the protocol, in pieces that fit what comes.

Between an outgoing connection of Twisted's and its protocol stands the endpoint's wrapper, and
each read takes three calls more than it needs.  And a read has one size: 256 KiB, which bulk
wants, cost a small answer 5 microseconds, because glibc maps so much anew each time.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import main
from twisted.internet.tcp import Connection

SMALL = 120 * 1024
"""Octets of a read until one was full: below the 128 KiB from which on glibc maps memory."""


def read_directly(transport: Any, protocol: Any, most: int) -> None:
    """Let a plain TCP or UNIX connection hand what it reads to ``protocol`` itself.

    At most ``most`` octets in one turn, and so many only while the reads before it were full.  As
    ``tcp.Connection.doRead`` else; any other transport is left alone.
    """
    if not (isinstance(transport, Connection) and type(transport).doRead is Connection.doRead):
        return
    receive = transport.socket.recv
    deliver = protocol.dataReceived
    size = SMALL

    def read() -> Any:
        nonlocal size
        try:
            data = receive(size)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        size = most if len(data) >= SMALL else SMALL
        deliver(data)
        return None

    # What else happens to the connection: without the wrapper, too.
    transport.protocol = protocol
    transport.doRead = read  # type: ignore[method-assign]

"""Resets that nobody is told of: a reactor watches a connection only while it reads or writes."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure


def was_reset(transport: Any) -> bool:
    """Whether the other side has reset the connection under ``transport``, paused or not.

    The kernel tells it once (SO_ERROR, socket(7)): the connection is to be aborted then.
    """
    while isinstance(transport, ProtocolWrapper):  # TLS on a memory BIO, PROXY lines
        transport = transport.transport
    handle = getattr(transport, "getHandle", None)
    sock = handle() if handle is not None else None
    if not isinstance(sock, socket.socket) or sock.fileno() < 0:
        return False
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def tell_resets(transport: Any) -> None:
    """Let a TCP transport never take a reset for the end of what the other side had to say.

    While the kernel tears a connection down, epoll may show EPOLLHUP an instant before EPOLLIN,
    and Twisted reads no more then and reports ConnectionDone, as for a FIN.
    """
    read_connection_lost = getattr(transport, "readConnectionLost", None)
    if read_connection_lost is None:
        return

    def lost(reason: Failure) -> None:
        if was_reset(transport):
            transport.connectionLost(Failure(ConnectionLost()))
        else:
            read_connection_lost(reason)

    transport.readConnectionLost = lost

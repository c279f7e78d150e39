"""Resets that nobody is told of: a reactor watches a connection only while it reads or writes."""

from __future__ import annotations

import socket
from typing import Any

from twisted.protocols.policies import ProtocolWrapper


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

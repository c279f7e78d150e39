"""Writes that reach the socket in the same turn, and how much of them is not taken yet.

``FileDescriptor.write`` queues and waits for the reactor to report that the socket takes
octets: two epoll_ctl calls, one more turn and one more copy for each write.  Nearly always the
socket would have taken them at once.

Private names of Twisted: ``FileDescriptor._tempDataBuffer``, ``_tempDataLen``;
``tcp._AbortingMixin._aborting``.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper

from regguard.transport.contract import StreamTransport


def writer_for(transport: StreamTransport) -> Callable[[bytes], None]:
    """The quickest ``write`` of ``transport``, with the contract of ``ITransport.write``.

    A plain Twisted TCP or UNIX connection gets the eager write; a transport that is none
    (TLS on a memory BIO, a test's transport) keeps its own.
    """
    if isinstance(transport, Connection) and type(transport).write is Connection.write:
        return _eager_write(transport)
    return transport.write


def unsent_by(transport: Any) -> int:
    """Octets that were written and that the other side has not taken yet.

    Those in the kernel count: it holds megabytes, and tells us of room in them only now and then,
    so that to a slow reader nothing seems to move for minutes.  A transport that is no file
    descriptor of Twisted's may know by itself (``unsent``).
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    if not isinstance(transport, FileDescriptor):
        return getattr(transport, "unsent", 0)
    unsent = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    with suppress(OSError, ValueError):  # a system without this call, or a connection that is gone
        # SIOCOUTQ of Linux: written, and not acknowledged.
        queued = fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, bytes(4))
        unsent += struct.unpack("i", queued)[0]
    return unsent


def _eager_write(transport: Connection) -> Callable[[bytes], None]:
    """Send what the socket takes now; queue the rest and pause the producer.

    The producer is paused as soon as anything is queued, not only beyond ``bufferSize``: what
    stands in memory for a stalled peer is then at most what was read in one turn.
    A connection that turns out to be lost is left to the reactor, as ``write`` does.
    """
    send = transport.socket.send

    def write(data: bytes) -> None:
        if not transport.connected or transport.TLS or transport._aborting:
            transport.write(data)
            return
        if not transport._tempDataBuffer and not transport.dataBuffer:
            try:
                sent = send(data)
            except OSError:  # no room, or nobody is there any more
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)
        producer = transport.producer
        if producer is not None and transport.streamingProducer and not transport.producerPaused:
            transport.producerPaused = True
            producer.pauseProducing()  # type: ignore[attr-defined]

    return write

"""Writes that reach the socket in the same turn.

``FileDescriptor.write`` queues and waits for the reactor to report that the socket takes
octets: two epoll_ctl calls, one more turn and one more copy for each write.  Nearly always the
socket would have taken them at once.

Private names of Twisted: ``FileDescriptor._tempDataBuffer``, ``tcp._AbortingMixin._aborting``.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.tcp import Connection

from regguard.transport.contract import StreamTransport


def writer_for(transport: StreamTransport) -> Callable[[bytes], None]:
    """The quickest ``write`` of ``transport``, with the contract of ``ITransport.write``.

    A plain Twisted TCP or UNIX connection gets the eager write; a transport that is none
    (TLS on a memory BIO, a test's transport) keeps its own.
    """
    if isinstance(transport, Connection) and type(transport).write is Connection.write:

        def write(data: bytes) -> None:
            write_eagerly(transport, data)

        return write
    return transport.write


def write_eagerly(transport: Connection, data: bytes) -> None:
    """Send what the socket takes now; queue the rest and pause the producer.

    The producer is paused as soon as anything is queued, not only beyond ``bufferSize``: what
    stands in memory for a stalled peer is then at most what was read in one turn.
    A connection that turns out to be lost is left to the reactor, as ``write`` does.
    """
    if not (transport.connected and data) or transport.TLS or transport._aborting:
        transport.write(data)
        return
    if not transport._tempDataBuffer and not transport.dataBuffer:
        sent = transport.writeSomeData(data)
        if isinstance(sent, int):
            # Up to SEND_LIMIT in one call; bulk arrives in larger pieces.
            while sent < len(data):
                more = transport.writeSomeData(memoryview(data)[sent:])  # type: ignore[arg-type]
                if not isinstance(more, int) or not more:
                    break
                sent += more
            if sent == len(data):
                return
            data = data[sent:]
    transport.write(data)
    producer = transport.producer
    if producer is not None and transport.streamingProducer and not transport.producerPaused:
        transport.producerPaused = True
        producer.pauseProducing()  # type: ignore[attr-defined]

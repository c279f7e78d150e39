"""TLS on accepted connections, with OpenSSL working on the socket itself.

Twisted's own TLS decrypts and encrypts in memory BIOs above a TCP transport: two more copies
and several more calls per 16 KiB record, and twice the CPU per gigabyte.  Here the accepted
``tcp.Server`` keeps its queues, producers and closing rules, and OpenSSL reads and writes the
descriptor.  That is what nginx and HAProxy do.

Two facts carry the reading side.  OpenSSL is left without read-ahead, so it takes one record
from the socket at a time; and we always ask for a full record.  So no decrypted octets wait
inside OpenSSL, where epoll would not see them, and pausing is simply not reading.

Who refuses a client's certificate (a verify call-back) leaves its reason with the connection, as
``app_data``.

Renegotiation is off in every context of ours (``front.certificates``), so a write never waits
for a read; a TLS 1.3 key update may make a read wait for a write.

Private names of Twisted: ``FileDescriptor._tempDataBuffer``, ``_tempDataLen``,
``_maybePauseProducer``, ``_writeDisconnected``, ``_writeDisconnecting``,
``_closeWriteConnection``, ``_postLoseConnection``; ``tcp._SocketCloser._closeSocket``;
``tcp._AbortingMixin._aborting``.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet import main, tcp
from twisted.internet.abstract import FileDescriptor
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from regguard.transport.records import RECORD, Records, what_was_read

BATCH = 8
"""Records read in one turn: 128 KiB make one large write upstream, and other connections wait
no longer than a few hundred microseconds."""

BULK = 1024
"""A record of at least this size is likely to be followed by another.  Below it, asking again
would cost a system call for nothing (Go's first records hold 1.3 kB)."""

SINGLES = 32
"""Smaller records, one in each turn, after which asking again is tried.  Who sends a body in pieces
of a few octets has the next ones waiting; who sends requests makes us ask in vain once in 32."""

CROWD = 128
"""Small records read in one turn where more than one waited: they go on as one.  With a large one
behind them they fit into ``records.ROOM``, as a batch does."""


_DONE = Failure(main.CONNECTION_DONE)


class TLSServer(tcp.Server):
    """``tcp.Server`` with OpenSSL between its queues and its socket.

    ``bufferSize`` 0 makes Twisted's own queueing pause the producer as soon as anything is
    queued; reads do not use it.
    """

    bufferSize = 0

    #: Whether it may have filled its last read; see ``turns``.
    is_bulk = False

    def __init__(
        self,
        context: SSL.Context,
        skt: socket.socket,
        protocol: Any,
        client: Any,
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        super().__init__(skt, protocol, client, server, sessionno, reactor)
        self._tls = Records(context, skt)
        self._tls.set_accept_state()
        self._handshaking = True
        self._refused = False
        self._ended = False
        self._read_waits_for_write = False
        self._singles = 0

    def doRead(self) -> Any:
        """Read the records that are there, deliver them in one piece."""
        if self._refused:
            return self._forget()
        if self._handshaking:
            try:
                if not self._tls.shake_hands():
                    return None
            except SSL.WantWriteError:
                return self._wait_for_write()
            except SSL.Error:
                return main.CONNECTION_LOST if self._tls.get_app_data() is None else self._refuse()
            self._handshaking = False
        read = self._tls.read
        ending: Any = None
        try:
            got = filled = read(0)
            if not got:
                return None
            small = got < BULK
            if small and self._singles < SINGLES:
                self._singles += 1
            else:
                left = CROWD if small else BATCH
                try:
                    while left > 1 and (got < BULK) is small and (got := read(filled)):
                        filled += got
                        left -= 1
                except SSL.WantWriteError:
                    self._wait_for_write()
                except SSL.ZeroReturnError:
                    ending = main.CONNECTION_DONE
                except SSL.Error:
                    ending = main.CONNECTION_LOST
                if small and left == CROWD:
                    self._singles = 0
        except SSL.WantWriteError:
            return self._wait_for_write()
        except SSL.ZeroReturnError:
            return main.CONNECTION_DONE
        except SSL.Error:
            return main.CONNECTION_LOST
        self.is_bulk = filled >= BATCH * RECORD
        self.protocol.dataReceived(what_was_read(filled))
        return ending if self.connected else None

    def _refuse(self) -> None:
        """Let the alert arrive that tells a client what is wrong with its certificate.

        In TLS 1.3 it has sent its first request by then. Closed over that, TCP would throw away
        what we sent before; so only our direction is closed, for as long as the protocol's
        deadline lets the client read.
        """
        self._refused = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def _forget(self) -> Any:
        try:
            return None if self.socket.recv(RECORD) else main.CONNECTION_LOST
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST

    def _wait_for_write(self) -> None:
        self._read_waits_for_write = True
        self.startWriting()

    def doWrite(self) -> Any:
        """Go on with the queue, or with a read that had to write first."""
        if not self.connected:
            return None  # the read of this same event has closed it
        if self._read_waits_for_write:
            self._read_waits_for_write = False
            if not self._tempDataBuffer and not self.dataBuffer:
                self.stopWriting()
            failed = self.doRead()
            if failed is not None or not self.connected:
                return failed
            ends = self.disconnecting or self._writeDisconnecting
            if not (self._tempDataBuffer or self.dataBuffer or ends):
                return None
        return super().doWrite()  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        """Encrypt and send at once what the socket takes; queue the rest.

        As ``ITransport.write``; see ``eager``.
        """
        if not self.connected or self._writeDisconnected or self._aborting or not data:
            return
        if not self._tempDataBuffer and not self.dataBuffer:
            sent = self.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int) and sent:
                data = data[sent:]
        self._tempDataBuffer.append(data)
        self._tempDataLen += len(data)
        self._maybePauseProducer()
        self.startWriting()

    def writeSequence(self, iovec: Any) -> None:
        """As ``ITransport.writeSequence``: one write of all."""
        self.write(b"".join(iovec))

    def writeSomeData(self, data: Any) -> Any:
        """Encrypt and send; the number of octets taken, or what ended the connection."""
        try:
            return self._tls.send_some(data)
        except SSL.Error:
            return main.CONNECTION_LOST

    def readConnectionLost(self, reason: Failure) -> None:
        """The client will send no more (close_notify or FIN); the protocol decides.

        Twisted asks the protocol for its interface by adaptation here; ours has it.
        """
        self.protocol.readConnectionLost()  # type: ignore[attr-defined]

    def _closeWriteConnection(self) -> None:
        self._send_close_notify()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def _closeSocket(self, orderly: bool) -> None:
        # An aborted connection must look cut: no close_notify (RFC 8446 section 6.1).
        if orderly:
            self._send_close_notify()
        super()._closeSocket(orderly)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """As ``tcp.Server``; the protocol may still look at the handshake when it is told."""
        super().connectionLost(reason)
        # 22 kB of OpenSSL's, of which Python's collector knows nothing: it would let thousands lie.
        self.__dict__.pop("_tls", None)

    def _send_close_notify(self) -> bool:
        """False where the socket has no room for it yet."""
        if not (self._handshaking or self._ended):
            try:
                self._tls.shutdown()
            except SSL.WantWriteError:
                return False
            except SSL.Error:
                pass
            self._ended = True
        return True

    def _postLoseConnection(self) -> Any:
        # Whole as it is, what was sent would look cut without a close_notify.
        if self._send_close_notify():
            return main.CONNECTION_DONE
        self.startWriting()
        return None

    def loseConnection(self) -> None:
        """As ``ITransport.loseConnection``; where nothing waits for room, at once.

        Twisted would ask epoll first whether the socket takes octets: two calls and one more turn,
        for each of docker's requests.
        """
        if (
            self._tempDataBuffer
            or self.dataBuffer
            or self.disconnecting
            or self._writeDisconnecting
            or self._writeDisconnected
            or self.producer is not None
            or self._aborting
            or not self.connected
            or not self._send_close_notify()
        ):
            FileDescriptor.loseConnection(self)
        else:
            self.disconnecting = True
            self.connectionLost(_DONE)

    # Without the detour that tcp.Server makes for startTLS.
    registerProducer = FileDescriptor.registerProducer
    unregisterProducer = FileDescriptor.unregisterProducer


def tls_of(transport: Any) -> SSL.Connection | None:
    """OpenSSL's side of a transport, in memory or on the socket; None where there is no TLS."""
    if isinstance(transport, TLSServer):
        return transport._tls
    if isinstance(transport, TLSMemoryBIOProtocol):
        connection: SSL.Connection | None = transport.getHandle()
        return connection
    return None


def tls_transport(current_context: Callable[[], SSL.Context]) -> Callable[..., TLSServer]:
    """What ``tcp.Port.transport`` is set to, so that the port accepts TLS connections.

    ``current_context`` is asked once for each accepted connection: a reload takes effect with
    the next handshake and leaves running connections alone.
    """

    def accept(*arguments: Any) -> TLSServer:
        return TLSServer(current_context(), *arguments)

    return accept

"""Listening sockets that several processes hold: from systemd, and from a parent to its workers.

Such a socket goes on when one of them lets go of it, so nobody here shuts it down, unlinks its
path or changes its mode; Twisted's own adoption does all that to UNIX sockets.

Private names of Twisted: ``tcp._SocketCloser._shouldShutdown``, ``tcp._reservedFD``.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IStreamServerEndpoint)
class InheritedEndpoint:
    """Listens on a descriptor that somebody else has bound, once; takes the descriptor over.

    Its family is what the kernel says, whatever the operator has written.

    :raises OSError: if the descriptor is no socket.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        inherited = socket.socket(fileno=descriptor)
        try:
            self.addressFamily = inherited.family
            inherited.setblocking(False)
        finally:
            inherited.detach()

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """As ``IStreamServerEndpoint.listen``."""
        port: Any
        try:
            if self.addressFamily == socket.AF_UNIX:
                port = _UNIXPort(self._descriptor, protocolFactory, self._reactor)
                port.startListening()
            else:
                port = self._reactor.adoptStreamPort(
                    self._descriptor, self.addressFamily, protocolFactory
                )
        except Exception:
            return fail(Failure())
        os.close(self._descriptor)
        return succeed(port)


class _UNIXPort(unix.Port):
    _shouldShutdown = False

    def __init__(self, descriptor: int, factory: IProtocolFactory, reactor: Any) -> None:
        self._inherited = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)
        # The length of its queue is its owner's word.
        backlog: Any = None
        super().__init__(self._inherited.getsockname(), factory, backlog, reactor=reactor)

    def startListening(self) -> None:
        """Without bind, chmod and listen."""
        tcp._reservedFD.reserve()
        factory: Any = self.factory
        factory.doStart()
        self.connected = True
        self.socket = self._inherited
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Not ``unix.Port``'s, which unlinks the path."""
        tcp.Port.connectionLost(self, reason)


def leave_to_others(port: tcp.Port) -> None:
    """Accept nothing on this port of our own: its socket is for other processes.

    Who waits in it is theirs, also after we have closed it.
    """
    port.pauseProducing()
    port._shouldShutdown = False

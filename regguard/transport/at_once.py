"""Connections within this machine: there in the same turn.

A connection to a registry beside us is complete when the kernel comes back from ``connect``.
Twisted's endpoints wait for it two turns, with a timer, three wrappers and a look at interfaces.
That is as much as the request itself costs, and each request of a push has its own connection.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

_CONNECTED = (0, errno.EISCONN)


@implementer(IStreamClientEndpoint)
class AtOnceEndpoint:
    """Connects at once to an address of this machine, and through ``endpoint``, to the same one,
    where that does not work: it waits, and it says why."""

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        reactor: Any,
        family: socket.AddressFamily,
        address: Any,
    ) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        self._family = family
        self._address = address

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """As ``IStreamClientEndpoint.connect``; may have fired already."""
        skt = self._connected()
        if skt is None:
            return self._endpoint.connect(protocolFactory)
        protocol: Any = protocolFactory.buildProtocol(_address(self._family, self._address))
        protocol.makeConnection(_Connected(skt, protocol, self._reactor))
        return succeed(protocol)

    def _connected(self) -> socket.socket | None:
        skt = None
        with suppress(OSError):
            skt = socket.socket(self._family, socket.SOCK_STREAM)
            skt.setblocking(False)
            # TCP says the first time that it began, and the second time that it is done.  It may
            # have connected to itself, where nobody listens on a port that the kernel gives out.
            if (
                skt.connect_ex(self._address) in _CONNECTED
                or skt.connect_ex(self._address) in _CONNECTED
            ) and skt.getsockname() != skt.getpeername():
                return skt
        if skt is not None:
            skt.close()
        return None


class _Connected(tcp.Connection):
    """A ``tcp.Client`` without its way there."""

    def __init__(self, skt: socket.socket, protocol: Any, reactor: Any) -> None:
        super().__init__(skt, protocol, reactor)
        self.connected = 1
        self.logstr = f"{type(protocol).__name__},client"
        self.startReading()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """As ``ITCPTransport``; a UNIX socket delays nothing."""
        if self.socket.family != socket.AF_UNIX:
            super().setTcpNoDelay(enabled)

    def getPeer(self) -> Any:
        """The address that was connected to."""
        return _address(self.socket.family, self.socket.getpeername())

    def getHost(self) -> Any:
        """Our own."""
        return _address(self.socket.family, self.socket.getsockname())


def _address(family: int, address: Any) -> IAddress:
    if family == socket.AF_UNIX:
        return UNIXAddress(address or None)
    kind = IPv4Address if family == socket.AF_INET else IPv6Address
    return kind("TCP", *address)

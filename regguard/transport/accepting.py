"""Ports that accept no more connections than there is room for.

``tcp.Port`` accepts a hundred and more in one turn, and would not notice that it was stopped after
the first.  A full process stops it before file descriptors run out: Twisted then closes whoever
waits, and so would a log or a password file that needs one be closed out.

Nor does it notice that the whole machine has no file or memory left for a connection, and would try
again in every turn, for as long as somebody waits.

Private names of Twisted: ``tcp.Port._buildAddr``.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

BACKLOG = 1024
"""Connections that wait in the kernel to be accepted; Twisted's 50 are fewer than docker opens in a
small cluster at once, and the next ones come a second later.  The kernel has a limit of its own,
4096 on Linux."""

TURN = 64
"""Connections accepted in one turn: some milliseconds, so that others need not wait."""

UNSENT = 256 * 1024
"""Octets that may wait in the kernel for a client to read, beyond those that are on their way.
Linux would let it be four megabytes, and six hundred clients that read nothing would fill what it
has for all of TCP: then others stall, too.  Connections inherit it from the port."""

PAUSE = 1.0
"""Seconds until a port asks the kernel again that had nothing left for one more connection."""

_NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# It went while it waited, or a firewall of this machine's let it not come (accept(2)).
_NOBODY = (errno.ECONNABORTED, errno.EPERM)

_LOG = Logger(namespace="regguard.transport")


def bound_accepts(
    port: tcp.Port, room: Callable[[], int], clock: IReactorTime, turn: int = TURN
) -> None:
    """Let ``port`` accept at most ``room()`` connections, and ``turn``, in each turn, and rest
    where it can't.

    With a ``turn`` of 1, several processes that share the socket get as many each, if they have as
    much time: one of them would take all that come together.
    """
    listener = port.socket

    def accept_some() -> None:
        # Another port may have taken the last place in this same turn.
        for _ in range(min(room(), turn)):
            try:
                skt, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NOTHING_LEFT:
                    rest()
                elif error.errno not in _NOBODY:
                    _LOG.failure("cannot accept on {port}", port=port)
                return
            try:
                _begin(port, skt, address)
            except Exception:
                _LOG.failure("a connection could not begin")

    def rest() -> None:
        port.pauseProducing()
        clock.callLater(PAUSE, go_on)

    def go_on() -> None:
        if room() > 0:  # else whoever leaves resumes it
            port.resumeProducing()

    port.doRead = accept_some  # type: ignore[method-assign]
    if port.backlog == tcp.Port.backlog:  # else it is the operator's word, or systemd's
        port.socket.listen(BACKLOG)
    with suppress(OSError):  # a UNIX socket
        port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


def _begin(port: tcp.Port, skt: socket.socket, address: Any) -> None:
    """What ``tcp.Port.doRead`` does with each connection."""
    if port.addressFamily == socket.AF_INET6:
        # With the scope of a link-local address, as Twisted has it.
        host, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        address = (host, *address[1:])
    factory: Any = port.factory
    protocol = factory.buildProtocol(port._buildAddr(address))
    if protocol is None:
        skt.close()
        return
    session = port.sessionno
    port.sessionno = session + 1
    protocol.makeConnection(port.transport(skt, protocol, address, port, session, port.reactor))

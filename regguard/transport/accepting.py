"""Ports that accept no more connections than there is room for.

``tcp.Port`` accepts a hundred and more in one turn, and would not notice that it was stopped after
the first.  A full process stops it before file descriptors run out: Twisted then closes whoever
waits, and so would a log or a password file that needs one be closed out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from socket import IPPROTO_TCP, TCP_NOTSENT_LOWAT
from typing import Any

from twisted.internet import tcp

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


def bound_accepts(port: tcp.Port, room: Callable[[], int]) -> None:
    """Let ``port`` accept at most ``room()`` connections in each turn."""
    accept = port.doRead

    def accept_some() -> Any:
        # Another port may have taken the last place in this same turn.
        some = min(room(), TURN)
        if some > 0:
            port.numberAccepts = min(port.numberAccepts, some)
            accept()  # type: ignore[no-untyped-call]

    port.doRead = accept_some  # type: ignore[method-assign]
    if port.backlog == tcp.Port.backlog:  # else it is the operator's word, or systemd's
        port.socket.listen(BACKLOG)
    with suppress(OSError):  # a UNIX socket
        port.socket.setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT)

"""How many connections there may be: in all, and from one network.

One that is too many for its network is closed at once.  When there are too many in all, nobody is
accepted until one leaves: the others wait in the kernel, and cost neither a file descriptor nor
time here.  All listening ports share one ``Admission``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from regguard.addresses import UNIX, TrustedProxies, network_of

SHARE = 4
"""One network gets the total divided by this, unless it is told otherwise: an office or a cluster
behind one address has room, and nobody fills the house alone."""

RESERVED_FILES = 64
"""File descriptors that are no connection of clients and of the registry: log, epoll, listening
ports, files that are read anew, up to 16 connections to the admin port, and up to eight to each
server of a directory."""

SAY_AGAIN = 60
"""Seconds in which the log says the same thing once."""

_LOG = Logger(namespace="regguard.front")


def files_for(connections: int, upstream: int, idle: int) -> int:
    """File descriptors for so many connections of clients.

    Each may take one to the registry, ``upstream`` at most, and ``idle`` ones are kept.
    """
    return RESERVED_FILES + idle + connections + min(connections, upstream)


def connections_for(files: int, upstream: int, idle: int) -> int:
    """The reverse of ``files_for``: how many connections so many file descriptors are good for."""
    room = files - RESERVED_FILES - idle
    return max(1, room // 2, room - upstream)


def share_of(limits: tuple[int, int | None], workers: int) -> tuple[int, int | None]:
    """What one of several workers admits: its part of both limits, rounded up.

    Nobody counts over all of them, and connections come to whoever is free: a network that has
    all its part at one worker has none too many elsewhere.
    """
    total, per_network = limits
    return -(-total // workers), None if per_network is None else -(-per_network // workers)


class Admission:
    """Counts connections, and stops ports from accepting when there are enough.

    ``trusted`` proxies bring other networks' connections, so theirs count only in all; and so do
    those through a UNIX socket.  ``port`` is anything with ``pauseProducing`` and
    ``resumeProducing``.
    """

    def __init__(
        self,
        clock: IReactorTime,
        total: int,
        per_network: int | None = None,
        trusted: TrustedProxies | None = None,
    ) -> None:
        self.total = total
        self.per_network = max(1, total // SHARE) if per_network is None else per_network
        self.count = 0
        self.trusted = trusted or TrustedProxies()
        self._clock = clock
        self._networks: Counter[str] = Counter()
        self._ports: list[Any] = []
        self._said: dict[str, tuple[float, int]] = {}

    @property
    def room(self) -> int:
        """How many more may come."""
        return self.total - self.count

    def watch(self, port: Any) -> None:
        """Stop and resume this listening port, too."""
        self._ports.append(port)

    def network_of(self, host: str) -> str | None:
        """The network that a connection counts for; None if it counts only in all."""
        if host == UNIX or (self.trusted and self.trusted.trusts(host)):
            return None
        return network_of(host)

    def admits(self, network: str | None) -> bool:
        """Whether one more may come from there."""
        if network is None or self._networks[network] < self.per_network:
            return True
        self.say(
            "a network has too many connections",
            "{network} has {count} connections already: more are closed",
            network=network,
            count=self.per_network,
        )
        return False

    def enter(self, network: str | None) -> None:
        """A connection is there."""
        self.count += 1
        if network is not None:
            self._networks[network] += 1
        if self.count == self.total:
            self.say(
                "no room",
                "{count} connections are there: more wait until one leaves (--max-connections)",
                count=self.count,
            )
            for port in self._ports:
                port.pauseProducing()

    def leave(self, network: str | None) -> None:
        """A connection is gone."""
        self.count -= 1
        if network is not None:
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]
        if self.count == self.total - 1:
            for port in self._ports:
                port.resumeProducing()

    def say(self, what: str, text: str, /, **words: Any) -> None:
        """Log a warning; the same ``what`` once a minute, with how often it was not said."""
        now = self._clock.seconds()
        last, unsaid = self._said.get(what, (now - SAY_AGAIN, 0))
        if now - last < SAY_AGAIN:
            self._said[what] = (last, unsaid + 1)
            return
        self._said[what] = (now, 0)
        more = f" ({unsaid} more of that within the last minutes)" if unsaid else ""
        _LOG.warn(text + "{more}", more=more, **words)

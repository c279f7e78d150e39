"""From ``--listen`` to a door: its endpoint, and what is wrong where it does not open."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from regguard.addresses import INTRODUCED
from regguard.front.certificates import Certificates
from regguard.front.listening import listen
from regguard.front.site import Site
from regguard.transport import InheritedEndpoint, bound_accepts, leave_to_others


class DoorError(Exception):
    """A door does not open; the text names option, reason and cure."""


@dataclass(frozen=True, slots=True)
class Door:
    """An endpoint, and the words that asked for it (``--listen tcp:5043``); ``introduced`` if
    connections begin with a PROXY header."""

    said: str
    endpoint: IStreamServerEndpoint
    introduced: bool

    @classmethod
    def found(
        cls,
        description: str,
        reactor: Any,
        option: str = "--listen",
        example: str = "tcp:5043 or tcp:443:interface=10.0.0.1",
    ) -> Door:
        """The door that an endpoint string describes; raises DoorError."""
        kind, _, rest = description.partition(":")
        introduced = kind == INTRODUCED
        try:
            endpoint: IStreamServerEndpoint = serverFromString(
                reactor, rest if introduced else description
            )
            if isinstance(endpoint, AdoptedStreamServerEndpoint):
                endpoint = InheritedEndpoint(reactor, endpoint.fileno)
        except Exception as error:
            raise DoorError(
                f"{option} {description}: is no endpoint ({_reason(error)}); write {example}"
            ) from None
        return cls(f"{option} {description}", endpoint, introduced)

    @classmethod
    def inherited(cls, description: str, descriptor: int, reactor: Any) -> Door:
        """The door that a parent has opened already."""
        introduced = description.partition(":")[0] == INTRODUCED
        return cls(f"--listen {description}", InheritedEndpoint(reactor, descriptor), introduced)

    def open(self, site: Site, certificates: Certificates | None, clock: Any) -> IListeningPort:
        """Serve what comes; raises DoorError."""
        listening = maybeDeferred(listen, self.endpoint, site, certificates, clock)
        port: IListeningPort = self._opened(listening)
        return port

    def open_to(self, factory: IProtocolFactory) -> IListeningPort:
        """Let ``factory`` have what comes; raises DoorError."""
        port: IListeningPort = self._opened(maybeDeferred(self.endpoint.listen, factory))
        return port

    def hold(self, clock: Any) -> tcp.Port:
        """Open it for other processes, and accept nothing here; raises DoorError."""
        factory = Factory()
        factory.noisy = False
        port = self._opened(maybeDeferred(self.endpoint.listen, factory))
        if not isinstance(port, tcp.Port):
            raise DoorError(
                f"{self.said}: cannot be shared by workers; listen on tcp:, tcp6:, unix: or "
                "systemd:, or leave --workers out"
            )
        bound_accepts(port, lambda: 0, clock)
        leave_to_others(port)
        return port

    def _opened(self, listening: Deferred[Any]) -> Any:
        # Every TCP, UNIX and inherited listener is there or failed when this is called.
        outcome: list[Any] = []
        listening.addBoth(outcome.append)
        if outcome and not isinstance(outcome[0], Failure):
            return outcome[0]
        error = outcome[0].value if outcome else None
        why = _reason(error) if error is not None else "it does not start at once"
        raise DoorError(f"{self.said}: cannot listen ({why}); {_cure(error)}")


def address_of(port: Any) -> str:
    """Where a port listens, for the log."""
    address = port.getHost()
    host = getattr(address, "host", None)
    if host is None:
        return f"unix:{getattr(address, 'name', '?')}"
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def _reason(error: BaseException) -> str:
    if isinstance(error, CannotListenError):
        error = error.socketError
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _cure(error: BaseException | None) -> str:
    code = getattr(getattr(error, "socketError", None), "errno", None)
    if code == errno.EADDRINUSE:
        return "something else listens there: stop it, or listen elsewhere"
    if code == errno.EACCES:
        return "ports below 1024 need CAP_NET_BIND_SERVICE or a systemd socket"
    return "check the address"

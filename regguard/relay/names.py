"""A registry's host name, looked up beside the reactor; its last good addresses are kept.

A name service that is slow or away must not stop who is served already (case I22).  Twisted
looks names up in the thread pool that it shares with everything else, files among it, which a
dead name service fills within seconds.  So a look-up has a thread of its own, there is at most
one under way for a name, and whoever needs an address waits for it only where that may help.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

FRESH = 1.0
"""Seconds for which an address is used without a new look-up: one look-up a second is nothing to a
name service, and a registry that moved is found within that time."""

LOOKUP_TIMEOUT = 5.0
"""Seconds to wait for a look-up: resolv.conf's default for one try at one server.  The rest of the
15 s, after which docker gives up a login, is for connecting."""

PATIENCE = 1.0
"""The same for whoever has an address already; longer than any name service that works."""

Addresses = Sequence[IPv4Address | IPv6Address]

_LOG = Logger(namespace="regguard.relay")


def look_up(host: str, port: int) -> Addresses:
    """The addresses of a name, by the system's rules; blocks, and raises OSError or ValueError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[IPv4Address | IPv6Address] = []
    for family, _, _, _, address in found:
        if family == socket.AF_INET:
            addresses.append(IPv4Address("TCP", str(address[0]), port))
        elif family == socket.AF_INET6:
            addresses.append(IPv6Address("TCP", *address))
    return addresses


def in_own_thread(reactor: Any, function: Callable[[], Addresses]) -> Deferred[Addresses]:
    """Call a function in a thread that nobody waits for, not even the end of the process."""
    result: Deferred[Addresses] = Deferred()

    def run() -> None:
        try:
            outcome: Any = function()
        except Exception:
            outcome = Failure()
        reactor.callFromThread(result.callback, outcome)

    threading.Thread(target=run, name="regguard-names", daemon=True).start()
    return result


@implementer(IHostnameResolver)
class KnownName:
    """The addresses of one name: an IHostnameResolver for an endpoint that connects to it.

    ``look_up()`` finds them somewhere else; its Deferred need not be cancellable.
    """

    def __init__(self, host: str, clock: Any, look_up: Callable[[], Deferred[Addresses]]) -> None:
        self._host = host
        self._clock = clock
        self._look_up = look_up
        self._addresses: Addresses = ()
        self._looked_up = -inf
        self._is_looking = False
        # After a failure nobody who has an address waits, until a look-up succeeds.
        self._failing = False
        self._waiting: dict[Deferred[Addresses], None] = {}

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Tell the addresses; none at all where the name was never known."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def tell(addresses: Addresses) -> None:
            for address in addresses:
                resolutionReceiver.addressResolved(address)
            resolutionReceiver.resolutionComplete()

        if self._clock.seconds() - self._looked_up >= FRESH and not self._is_looking:
            self._start()
        if not self._is_looking or (self._addresses and self._failing):
            tell(self._addresses)
        else:
            waiting: Deferred[Addresses] = Deferred()
            self._waiting[waiting] = None
            seconds = PATIENCE if self._addresses else LOOKUP_TIMEOUT
            limit = self._clock.callLater(seconds, self._too_late, waiting, seconds)
            waiting.addBoth(_without(limit))
            waiting.addCallback(tell)
        return resolution

    def _start(self) -> None:
        self._is_looking = True
        maybeDeferred(self._look_up).addBoth(self._done)

    def _done(self, outcome: Addresses | Failure) -> None:
        self._is_looking = False
        self._looked_up = self._clock.seconds()
        if isinstance(outcome, Failure) or not outcome:
            why = outcome.getErrorMessage() if isinstance(outcome, Failure) else "no addresses"
            self._fail(why)
        else:
            self._addresses = outcome
            if self._failing:
                self._failing = False
                _LOG.info("the name {name} is known again", name=self._host)
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            each.callback(self._addresses)

    def _too_late(self, waiting: Deferred[Addresses], seconds: float) -> None:
        self._fail(f"no answer in {seconds:g} s")
        del self._waiting[waiting]
        waiting.callback(self._addresses)

    def _fail(self, why: str) -> None:
        if not self._failing:
            self._failing = True
            rest = "going on with its last address" if self._addresses else "no address is known"
            _LOG.warn(
                "cannot look up {name}: {reason}; {rest}", name=self._host, reason=why, rest=rest
            )


def _without(limit: Any) -> Callable[[Addresses], Addresses]:
    def end(addresses: Addresses) -> Addresses:
        if limit.active():
            limit.cancel()
        return addresses

    return end


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """A look-up serves whoever comes next, too."""


@implementer(IStreamClientEndpoint)
class NamedEndpoint:
    """An endpoint that looks a name up; given up, it fails with CancelledError.

    HostnameEndpoint says then, while it waits for the look-up, that there is no such name.
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """As the other endpoint."""
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        # Without a canceller it takes, and drops, what the other one still comes to.
        outcome: Deferred[Any] = Deferred()
        connecting.chainDeferred(outcome)

        def given_up(failure: Failure) -> Failure:
            if failure.check(CancelledError):
                connecting.cancel()
            return failure

        return outcome.addErrback(given_up)


@implementer(IReactorPluggableNameResolver)
class Resolving:
    """A reactor as HostnameEndpoint needs it, with a name resolver of its own."""

    def __init__(self, reactor: Any, resolver: IHostnameResolver) -> None:
        self.nameResolver = resolver
        self.connectTCP = reactor.connectTCP
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Another resolver from now on; returns the one before it."""
        before, self.nameResolver = self.nameResolver, resolver
        return before

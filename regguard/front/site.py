"""The factory of channels, and the one timer that watches all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from regguard.addresses import TrustedProxies, host_of
from regguard.front.admission import Admission
from regguard.front.channel import Channel
from regguard.front.clients import NoUser, fault_of, user_of
from regguard.front.request import Request
from regguard.transport import StreamTransport, tls_of, was_reset

TICK = 1.0
"""Seconds between looks at the deadlines.  One pass over all channels costs less than setting
and cancelling a timer for each request, and no deadline here needs more precision."""

_LOG = Logger(namespace="regguard.front")


class Renders(Protocol):
    """What a site needs of its resource; ``IResource`` has it."""

    def render(self, request: Any) -> Any:
        """Answer the request, now or later."""


class Site(Factory):
    """Builds a ``Channel`` for each connection and hands its requests to ``resource``.

    ``clock`` is an IReactorTime; ``wall_clock`` gives the seconds since the epoch for ``Date``.
    ``log`` is called once for each request that came to an end, however it ended.
    ``secure`` says that clients speak TLS to us; ``half_closes`` that the transports can close
    one direction (Twisted's memory-BIO TLS can't).  ``admission`` is shared by all sites
    (None: all may come);
    ``trusted`` proxies say who the client is, in every request, or, where ``introduced`` is set,
    in a PROXY header before everything else, and nobody else may come.
    """

    noisy = False

    def __init__(
        self,
        resource: Renders,
        clock: Any,
        wall_clock: Callable[[], float],
        log: Callable[[Request], None],
        secure: bool,
        half_closes: bool = True,
        admission: Admission | None = None,
        trusted: TrustedProxies | None = None,
        introduced: bool = False,
    ) -> None:
        self.resource = resource
        self.clock = clock
        self.wall_clock = wall_clock
        self.log = log
        self.secure = secure
        self.half_closes = half_closes
        self.admission = admission or Admission(clock, sys.maxsize)
        self.trusted = trusted or TrustedProxies()
        self.introduced = introduced
        #: Whether clients may show a certificate.
        self.certifies = False
        self.channels: set[Channel] = set()
        self.draining = False
        self.now: float = clock.seconds()
        self._watch = LoopingCall(self._look_at_deadlines)
        self._watch.clock = clock
        self._drained: Deferred[None] | None = None
        self._date = b""
        self._date_second = -1

    def buildProtocol(self, addr: IAddress | None) -> Channel | None:
        """A channel for a new connection; None closes it."""
        host = host_of(addr)
        if self.introduced and not self.trusted.trusts(host):
            self.admission.say(
                "no trusted proxy",
                "closed a connection from {host}: it is no --trusted-proxy, and --listen haproxy: "
                "takes connections from these only",
                host=host,
            )
            return None
        network = self.admission.network_of(host)
        return (
            Channel(self, network, host if addr else "") if self.admission.admits(network) else None
        )

    def header_missing(self) -> None:
        """A trusted proxy did not introduce its client."""
        self.admission.say(
            "no PROXY header",
            "closed a connection without a PROXY header: let the balancer send one "
            "(haproxy: send-proxy-v2), or listen without haproxy:",
        )

    def certified(self, transport: StreamTransport) -> str | None:
        """The user whom the certificate of a client names; None without one, or without TLS."""
        connection = tls_of(transport)
        try:
            return None if connection is None else user_of(connection)
        except NoUser as error:
            self.admission.say(
                "a certificate without a user",
                "the client certificate of {host} names no user: {why}",
                host=host_of(transport.getPeer()),
                why=str(error),
            )
            return None

    def handshake_failed(self, transport: StreamTransport) -> None:
        """A client went before its first request; say so if its certificate was refused."""
        connection = tls_of(transport)
        fault = None if connection is None else fault_of(connection)
        if fault is not None:
            self.admission.say(
                f"client certificate: {fault}",
                "refused the client certificate of {host}: {fault}",
                host=host_of(transport.getPeer()),
                fault=fault,
            )

    def clients_changed(self) -> None:
        """Other client certificates count than before: who showed one shows it again."""
        for channel in list(self.channels):
            channel.certify_again()

    def startFactory(self) -> None:
        """Begin to watch the deadlines."""
        self.now = self.clock.seconds()
        self._watch.start(TICK, now=False)

    def stopFactory(self) -> None:
        """Nothing: the channels outlive the listening port, and so does their watch."""

    def _look_at_deadlines(self) -> None:
        now = self.clock.seconds()
        late = now - self.now - TICK
        self.now = now
        if late > TICK:
            # Nobody was served meanwhile: this process stood still, or the machine slept.
            for channel in self.channels:
                channel.put_off(late)
        for channel in [c for c in self.channels if min(c.deadline, c.send_deadline) <= now]:
            self._act_on(channel, channel.deadline_passed)
        for channel in [c for c in self.channels if c.unwatched and was_reset(c.transport)]:
            self._act_on(channel, channel.lost_unwatched)

    def _act_on(self, channel: Channel, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            # One connection's fault must not end the watch over the others.
            _LOG.failure("fault in {channel}", channel=channel)
            channel.abort()

    def ended(self, request: Request) -> None:
        """A request came to an end; a log that fails costs nobody an answer."""
        try:
            self.log(request)
        except Exception:
            _LOG.failure("the access log failed on a request")

    def channel_lost(self, channel: Channel) -> None:
        """A connection is gone."""
        self.channels.discard(channel)
        self.admission.leave(channel.network)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def drain(self) -> Deferred[None]:
        """Let running requests finish and close every connection after its request.

        Fires when no connection is left.  To be called once, after listening has ended.
        """
        self.draining = True
        for channel in list(self.channels):
            channel.drain()
        drained: Deferred[None] = Deferred()
        if self.channels:
            self._drained = drained
        else:
            drained.callback(None)
        return drained

    def stop(self) -> None:
        """Cut what is left and stop watching."""
        for channel in list(self.channels):
            channel.abort()
        if self._watch.running:
            self._watch.stop()

    def date(self) -> bytes:
        """Now as an IMF-fixdate (RFC 9110 section 5.6.7), made once a second."""
        second = int(self.wall_clock())
        if second != self._date_second:
            self._date_second = second
            self._date = formatdate(second, usegmt=True).encode("ascii")
        return self._date

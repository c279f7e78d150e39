"""One registry: its kept-alive connections, one connection's HTTP/1.1, and whether it is there."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from errno import EMFILE, ENFILE
from math import inf
from typing import Any, Literal, Protocol, get_args

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectBindError, ConnectingCancelledError, ConnectionDone
from twisted.internet.interfaces import (
    IHandshakeListener,
    IPushProducer,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regguard.http1 import (
    HEAD_END,
    MAX_HEAD,
    Body,
    MalformedResponse,
    ResponseHead,
    UntilCloseBody,
    parse_response_head,
    response_body,
)
from regguard.relay.address import Address
from regguard.transport import StreamTransport, read_directly, tell_resets, writer_for

MAX_IDLE = 64
"""Idle connections kept for the next request; the most a registry sees when nothing happens."""

IDLE_TIMEOUT = 30
"""Seconds an idle connection is kept: below the 60 to 75 s after which servers close, so that
reuse seldom meets a closing one."""

MAX_INTERIM = 10
"""Interim (1xx) responses that are passed over before one request; a registry sends none."""

READ_SIZE = 7 * 16 * 1024
"""Octets read from the registry in one turn, and the most that one stalled relay holds: whole TLS
records, and below the 128 KiB from which on glibc maps the memory anew for each read."""


FIRST_PROBE = 1.0
"""Seconds after which a registry that was gone is looked for: a restart takes about as long."""

LAST_PROBE = 30.0
"""Most seconds between two looks; they double up to here."""

RESTARTS_WITHIN = 10.0
"""Seconds after the latest connection in which a registry that refuses the next one is taken for
one that restarts."""

_LOG = Logger(namespace="regguard.relay")


FailureKind = Literal[
    "refused",
    "timeout",
    "unreachable",
    "closed",
    "cut",
    "silent",
    "answer",
    "busy",
    "socket",
    "stopping",
    "fault",
]
"""Kinds of failures: no connection (refused, not in time, for another reason), no answer or half of
one, silence, an answer of no use; and on our side: too much under way, no socket left, the end of
this process, a fault."""

FAILURES: tuple[FailureKind, ...] = get_args(FailureKind)


class UpstreamFailure(Exception):
    """The registry did not answer as it should; ``status`` is 408, 502, 503 or 504.

    ``is_logged``: the reason stands in the log already, once for all whom it concerns.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: FailureKind = "answer",
        *,
        is_logged: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.is_logged = is_logged


class Answering(Protocol):
    """Who takes the response of one request."""

    __slots__ = ()

    def response_started(self, head: ResponseHead, body: Body, data: bytes) -> None:
        """The head and the first octets; ``body.complete`` tells whether they are the last."""

    def response_data(self, data: bytes) -> None:
        """Some octets of the body; never empty."""

    def response_finished(self) -> None:
        """The body is whole."""

    def response_lost(self, failure: UpstreamFailure, untouched: bool) -> None:
        """No (whole) response will come.

        ``untouched``: the connection ended without one octet of an answer, so the request may
        never have reached the registry.
        """


@implementer(IPushProducer, IHandshakeListener)
class UpstreamConnection(TwistedProtocol):
    """One connection to the registry; at most one request at a time.

    As IPushProducer it produces the response body.
    """

    transport: StreamTransport  # type: ignore[assignment]

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.exchange: Answering | None = None
        self.reused = False
        self.paused = False
        self.request_sent = False
        self.idle_since = 0.0
        self._method = b""
        self._body: Body | None = None
        self._keep = False
        self._buffer = b""
        self._interim = 0
        self._gone = False
        self._is_secured = False
        self._securing: Deferred[UpstreamConnection] | None = None

    def connectionMade(self) -> None:
        """The registry accepted."""
        transport: Any = self.transport
        self.write = writer_for(transport)
        read_directly(transport, self, READ_SIZE)
        # TLS, a UNIX socket, or the registry is gone already.
        with suppress(AttributeError, OSError):
            transport.setTcpNoDelay(True)
            tell_resets(transport)

    def when_secured(self) -> Deferred[UpstreamConnection]:
        """Fires with this connection when its TLS is up; fails with what ended it before."""
        securing = self._securing = Deferred(lambda _: self.abort())
        if self._is_secured:
            self._secured(self)
        return securing

    def handshakeCompleted(self) -> None:
        """The registry's certificate is good."""
        self._is_secured = True
        self._secured(self)

    def _secured(self, outcome: UpstreamConnection | Failure) -> None:
        securing, self._securing = self._securing, None
        if securing is not None and not securing.called:
            securing.callback(outcome)

    # -- the request ---------------------------------------------------------------------

    def begin(self, exchange: Answering, method: bytes, head: bytes) -> None:
        """Send the head of a request; its body, if any, goes through ``write``.

        ``request_sent`` is to be set when the body is out, before the connection can be kept.
        """
        self.exchange = exchange
        self.request_sent = False
        self._method = method
        self._body = None
        self._buffer = b""
        self._interim = 0
        self.write(head)

    # -- the response --------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Octets from the registry."""
        exchange = self.exchange
        if exchange is None:
            # Octets that answer nothing would be taken for the next request's answer.
            self.abort()
            return
        body = self._body
        try:
            if body is None:
                self._head_received(exchange, self._buffer + data if self._buffer else data)
                return
            data, rest = body.feed(data)
        except MalformedResponse as error:
            self._fail(UpstreamFailure(502, f"the registry's answer is broken: {error.reason}"))
            return
        if data:
            exchange.response_data(data)
        if body.complete and self.exchange is exchange:
            self._finish(rest)
            exchange.response_finished()

    def _head_received(self, exchange: Answering, buffer: bytes) -> None:
        while True:
            end = buffer.find(HEAD_END)
            if end < 0 or end > MAX_HEAD:
                if len(buffer) > MAX_HEAD:
                    raise MalformedResponse("head too long")
                if buffer[:5] != b"HTTP/"[: len(buffer)]:
                    raise MalformedResponse("malformed status line")
                self._buffer = buffer
                return
            end += len(HEAD_END)
            head = parse_response_head(buffer[:end])
            rest = buffer[end:]
            if head.status >= 200:
                break
            self._interim += 1
            if head.status == 101 or self._interim > MAX_INTERIM:
                raise MalformedResponse("unasked interim response")
            buffer = rest
            if not buffer:
                self._buffer = b""
                return
        self._buffer = b""
        body = self._body = response_body(head, self._method)
        self._keep = not head.close
        data, rest = body.feed(rest)
        if body.complete:
            self._finish(rest)
        exchange.response_started(head, body, data)

    def _finish(self, rest: bytes) -> None:
        """The response is whole: keep the connection for another request, or let it go."""
        self.exchange = None
        if self._keep and self.request_sent and not rest and not self._gone:
            self.upstream.release(self)
        else:
            self.abort()

    def _fail(self, failure: UpstreamFailure, untouched: bool = False) -> None:
        exchange, self.exchange = self.exchange, None
        self.abort()
        if exchange is not None:
            exchange.response_lost(failure, untouched)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The registry closed, or the connection broke."""
        self._gone = True
        self.upstream.connection_lost(self)
        self._secured(reason)
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        body = self._body
        if body is None:
            untouched = not self._buffer and not self._interim
            exchange.response_lost(
                UpstreamFailure(
                    502, "the registry closed the connection without an answer", "closed"
                ),
                untouched,
            )
        elif isinstance(body, UntilCloseBody) and reason.check(ConnectionDone):
            exchange.response_finished()
        else:
            exchange.response_lost(
                UpstreamFailure(502, "the registry cut its answer", "cut"), False
            )

    def abort(self) -> None:
        """Cut the connection: what was sent must not look whole to the registry."""
        self.exchange = None
        if not self._gone:
            self._gone = True
            # At once: the reactor tears the connection down in its next turn only.
            self.upstream.connection_lost(self)
            self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """The client does not take more of the response now."""
        self.paused = True
        if not self._gone:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The client takes more of the response."""
        self.paused = False
        if not self._gone:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The client is gone; the exchange cuts this connection itself."""


def lacks_socket(failure: Failure) -> bool:
    """Whether connecting failed for want of a file descriptor, or a port, of our own."""
    why = failure.value
    # Twisted's UNIX connections let the kernel's own error through.
    return isinstance(why, ConnectBindError) or (
        isinstance(why, OSError) and why.errno in (EMFILE, ENFILE)
    )


class Upstream:
    """One registry, its idle connections, and whether it took the latest connection.

    ``endpoint`` is an IStreamClientEndpoint; ``clock`` an IReactorTime.  ``is_up`` is a memory
    of what connecting came to, and no promise.
    """

    def __init__(self, address: Address, endpoint: IStreamClientEndpoint, clock: Any) -> None:
        self.address = address
        self.mark = address.mark
        self.is_up = True
        self._endpoint = endpoint
        self._clock = clock
        self._idle: deque[UpstreamConnection] = deque()
        self._live: set[UpstreamConnection] = set()
        self._factory = _ConnectionFactory(self)
        self._stopped = False
        self._connected_at = -inf
        self._down_since = 0.0
        self._probe_at = inf
        self._delay = FIRST_PROBE
        self._probing: Deferred[None] | None = None

    @property
    def was_just_there(self) -> bool:
        """Whether it may be restarting: it took a connection a few seconds ago."""
        now: float = self._clock.seconds()
        return now - self._connected_at < RESTARTS_WITHIN

    def idle_connection(self) -> UpstreamConnection | None:
        """The most recently used idle connection: the least likely to be closing."""
        if not self._idle:
            return None
        connection = self._idle.pop()
        connection.reused = True
        return connection

    def connect(self) -> Deferred[UpstreamConnection]:
        """A fresh connection; fails as the endpoint fails."""
        connecting: Deferred[Any] = self._endpoint.connect(self._factory)
        return connecting.addCallbacks(
            self._connected, self._not_connected, errbackArgs=(self._clock.seconds(),)
        )

    def _connected(self, connection: UpstreamConnection) -> UpstreamConnection:
        self._live.add(connection)
        self._connected_at = now = self._clock.seconds()
        if not self.is_up:
            self.is_up = True
            self._probe_at = inf
            self._delay = FIRST_PROBE
            _LOG.info(
                "the registry {upstream} is back after {seconds:.0f} s",
                upstream=str(self.address),
                seconds=now - self._down_since,
            )
        return connection

    def _not_connected(self, failure: Failure, began: float) -> Failure:
        # Given up by whoever asked, for want of a socket of our own, or overtaken: that says
        # nothing of the registry.
        given_up = failure.check(CancelledError, ConnectingCancelledError)
        if given_up or lacks_socket(failure) or began < self._connected_at:
            return failure
        now = self._clock.seconds()
        if self.is_up:
            self.is_up = False
            self._down_since = now
            self._probe_at = now + self._delay
            _LOG.warn(
                "the registry {upstream} is down: {reason}",
                upstream=str(self.address),
                reason=failure.getErrorMessage().rstrip("."),
            )
        return failure

    def knock(self) -> Deferred[None]:
        """Connect, and leave; fails as ``connect``."""
        return self.connect().addCallback(lambda connection: connection.transport.loseConnection())

    def look(self, now: float) -> None:
        """Close what was idle for too long, and see whether a registry that went is back.

        Called about once a second.
        """
        while self._idle and now - self._idle[0].idle_since >= IDLE_TIMEOUT:
            self._idle.popleft().abort()
        if now >= self._probe_at and self._probing is None:
            self._delay = min(2 * self._delay, LAST_PROBE)
            self._probe_at = now + self._delay
            self._probing = probing = maybeDeferred(self.connect).addCallbacks(
                self.release, lambda failure: None
            )
            # Only now: it may have ended already.
            probing.addErrback(lambda failure: _LOG.failure("fault in a probe", failure))
            probing.addBoth(self._probed)

    def _probed(self, _: None) -> None:
        self._probing = None

    def release(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose exchange is over."""
        if connection.paused:
            connection.resumeProducing()
        if self._stopped or len(self._idle) >= MAX_IDLE:
            connection.abort()
        else:
            connection.idle_since = self._clock.seconds()
            self._idle.append(connection)

    def connection_lost(self, connection: UpstreamConnection) -> None:
        """A connection is gone; it must not be handed out again."""
        self._live.discard(connection)
        with suppress(ValueError):
            self._idle.remove(connection)

    def stop(self) -> None:
        """Cut every connection and keep none from now on."""
        self._stopped = True
        self._probe_at = inf
        if self._probing is not None:
            self._probing.cancel()
        self._idle.clear()
        for connection in list(self._live):
            connection.abort()


class _ConnectionFactory(Factory):
    noisy = False

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def buildProtocol(self, addr: object) -> UpstreamConnection:
        return UpstreamConnection(self._upstream)

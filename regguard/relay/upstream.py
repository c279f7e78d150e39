"""The registry: where it is, its kept-alive connections, and one connection's HTTP/1.1."""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote, unquote_to_bytes

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.ssl import optionsForClientTLS
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
from regguard.relay.headers import Origin, check_ends_after_port, split_url
from regguard.transport import StreamTransport, writer_for

CONNECT_TIMEOUT = 5
"""Seconds until a registry that does not answer a SYN counts as gone: HAProxy's example, and
well below the 15 s after which docker gives up a login."""

MAX_IDLE = 64
"""Idle connections kept for the next request; the most a registry sees when nothing happens."""

IDLE_TIMEOUT = 30
"""Seconds an idle connection is kept: below the 60 to 75 s after which servers close, so that
reuse seldom meets a closing one."""

MAX_INTERIM = 10
"""Interim (1xx) responses that are passed over before one request; a registry sends none."""

READ_SIZE = 256 * 1024
"""Octets read from the registry in one turn while a response streams: fewer turns for bulk, and
the most that one stalled relay holds."""


class UpstreamFailure(Exception):
    """The registry did not answer as it should; ``status`` is 502, 503 or 504."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed ``--upstream``.

    ``origin`` is how the registry would name itself; ``credential`` an Authorization value made
    of ``user:password@``, never printed (``str`` and ``repr`` leave it out).
    """

    scheme: str
    host: str
    port: int
    path: str
    origin: Origin
    credential: bytes | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse ``http://``, ``https://`` or ``http+unix:///path``; ValueError says the cure."""
        parts = split_url(url)
        if parts.scheme == "http+unix":
            path = unquote(parts.path)
            if parts.netloc or not path.startswith("/") or "\0" in path:
                raise ValueError("a socket path is absolute: http+unix:///run/registry.sock")
            return cls("http+unix", "", 0, path, Origin(b"http", b"localhost"))
        if parts.scheme not in ("http", "https"):
            raise ValueError("must begin with http://, https:// or http+unix:///")
        check_ends_after_port(parts)
        assert parts.hostname is not None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        credential = None
        if parts.username is not None:
            pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
            credential = b"Basic " + b64encode(pair)
        authority = parts.netloc.rpartition("@")[2].encode("ascii")
        origin = Origin(parts.scheme.encode("ascii"), authority)
        return cls(parts.scheme, parts.hostname, port, "", origin, credential)

    def __str__(self) -> str:
        if self.scheme == "http+unix":
            return f"http+unix://{self.path}"
        return f"{self.scheme}://{self.origin.authority.decode('ascii')}"

    def __repr__(self) -> str:
        return f"<Address {self}>"


def endpoint_for(address: Address, reactor: Any, trust_root: Any = None) -> IStreamClientEndpoint:
    """The Twisted endpoint of an address; ``trust_root`` None is the system's store."""
    if address.scheme == "http+unix":
        return UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_TIMEOUT)
    endpoint: IStreamClientEndpoint
    if isIPAddress(address.host):
        endpoint = TCP4ClientEndpoint(reactor, address.host, address.port, CONNECT_TIMEOUT)
    elif isIPv6Address(address.host):
        endpoint = TCP6ClientEndpoint(reactor, address.host, address.port, CONNECT_TIMEOUT)
    else:
        # Resolves off the reactor thread.
        endpoint = HostnameEndpoint(reactor, address.host, address.port, CONNECT_TIMEOUT)
    if address.scheme == "https":
        options = optionsForClientTLS(address.host, trustRoot=trust_root)
        endpoint = wrapClientTLS(options, endpoint)
    return endpoint


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

        ``untouched``: a reused connection ended without one octet of an answer, so the request
        may never have reached the registry.
        """


@implementer(IPushProducer)
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

    def connectionMade(self) -> None:
        """The registry accepted."""
        transport: Any = self.transport
        self.write = writer_for(transport)
        # TLS, a UNIX socket, or the registry is gone already.
        with suppress(AttributeError, OSError):
            transport.setTcpNoDelay(True)
            transport.bufferSize = READ_SIZE

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
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        body = self._body
        if body is None:
            untouched = self.reused and not self._buffer and not self._interim
            exchange.response_lost(
                UpstreamFailure(502, "the registry closed the connection without an answer"),
                untouched,
            )
        elif isinstance(body, UntilCloseBody) and reason.check(ConnectionDone):
            exchange.response_finished()
        else:
            exchange.response_lost(UpstreamFailure(502, "the registry cut its answer"), False)

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


class Upstream:
    """One registry and its idle connections.

    ``endpoint`` is an IStreamClientEndpoint; ``clock`` an IReactorTime.
    """

    def __init__(self, address: Address, endpoint: IStreamClientEndpoint, clock: Any) -> None:
        self.address = address
        self._endpoint = endpoint
        self._clock = clock
        self._idle: deque[UpstreamConnection] = deque()
        self._live: set[UpstreamConnection] = set()
        self._factory = _ConnectionFactory(self)
        self._stopped = False

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
        return connecting.addCallback(self._connected)

    def _connected(self, connection: UpstreamConnection) -> UpstreamConnection:
        self._live.add(connection)
        return connection

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

    def close_idle(self, now: float) -> None:
        """Close the connections that were idle for too long; called about once a second."""
        while self._idle and now - self._idle[0].idle_since >= IDLE_TIMEOUT:
            self._idle.popleft().abort()

    def stop(self) -> None:
        """Cut every connection and keep none from now on."""
        self._stopped = True
        self._idle.clear()
        for connection in list(self._live):
            connection.abort()


class _ConnectionFactory(Factory):
    noisy = False

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def buildProtocol(self, addr: object) -> UpstreamConnection:
        return UpstreamConnection(self._upstream)

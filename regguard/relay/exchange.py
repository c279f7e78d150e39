"""One request and its response on their way through.

What may be repeated and what not (RFC 9110 section 9.2.2): GET and HEAD without a body go over
a kept-alive connection, and once more over a fresh one if that had gone stale.  Everything else
gets a fresh connection and is never sent twice.

Back-pressure: the client's body is a producer to the registry's transport, the registry's
response one to the client's.  Each side reads only while the other writes.

A failure before the response began becomes an answer of regguard's own.  A failure after that
cuts the client's connection; a truncated blob must never look whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, TCPTimedOutError, TimeoutError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from regguard.http1 import LAST_CHUNK, Body, ChunkedBody, RequestHead, ResponseHead, chunk
from regguard.relay.headers import Origin, client_fields, upstream_request
from regguard.relay.upstream import Upstream, UpstreamConnection, UpstreamFailure

MAX_EXCHANGES = 1000
"""Requests under way at once.  Beyond, clients get 503 and come again; an unbounded number
would end in file descriptors that nobody has left."""

_LOG = Logger(namespace="regguard.relay")


class Relay:
    """Sends granted requests to the registry and streams the responses back.

    ``read_timeout``: longest silence of the registry in an exchange, in seconds.
    ``origin``: the public origin, where it is not what the client's Host says.
    ``on_failure(request, failure)`` answers a request whose response did not begin.
    """

    def __init__(
        self,
        upstream: Upstream,
        clock: Any,
        read_timeout: float,
        origin: Origin | None,
        on_failure: Callable[[Any, UpstreamFailure], None],
    ) -> None:
        self.upstream = upstream
        self.clock = clock
        self.read_timeout = read_timeout
        self.origin = origin
        self.on_failure = on_failure
        self.exchanges: set[Exchange] = set()
        self.now: float = clock.seconds()
        self._watch = LoopingCall(self._look)
        self._watch.clock = clock

    def start(self) -> None:
        """Begin to watch for silence."""
        self.now = self.clock.seconds()
        self._watch.start(1.0, now=False)

    def stop(self) -> None:
        """End what is under way and cut every connection to the registry."""
        if self._watch.running:
            self._watch.stop()
        for exchange in list(self.exchanges):
            exchange.relay_stops()
        self.upstream.stop()

    def send(self, request: Any, target: bytes, user_name: str, is_upload: bool) -> None:
        """Relay ``request`` to ``target`` for a user."""
        if len(self.exchanges) >= MAX_EXCHANGES:
            self.on_failure(request, UpstreamFailure(503, "too many requests are under way"))
            return
        origin = self.origin
        if origin is None and not request.head.host:
            # HTTP/1.0 without Host: the registry's own name; Location is made relative then.
            origin = self.upstream.address.origin
        head = upstream_request(
            request.head,
            target,
            client=request.client,
            secure=request.secure,
            user_name=user_name,
            is_upload=is_upload,
            origin=origin,
            credential=self.upstream.address.credential,
        )
        Exchange(self, request, head).start()

    def _look(self) -> None:
        self.now = now = self.clock.seconds()
        self.upstream.close_idle(now)
        limit = now - self.read_timeout
        for exchange in list(self.exchanges):
            try:
                exchange.check_silence(now, limit)
            except Exception:
                # One exchange's fault must not end the watch over the others.
                _LOG.failure("fault in {exchange}", exchange=exchange)


class Exchange:
    """One request on its way; the sink of its body and the taker of its response.

    States, told by ``repr``: connecting, sending, waiting, streaming, over.
    """

    __slots__ = (
        "_body_done",
        "_chunked",
        "_connecting",
        "_connection",
        "_head_bytes",
        "_over",
        "_producing",
        "_relay",
        "_request",
        "_retriable",
        "_started",
        "_taking_body",
        "waiting_since",
    )

    def __init__(self, relay: Relay, request: Any, head_bytes: bytes) -> None:
        self._relay = relay
        self._request = request
        self._head_bytes = head_bytes
        head: RequestHead = request.head
        self._chunked = head.chunked
        self._body_done = not head.has_body
        self._retriable = self._body_done and head.method in (b"GET", b"HEAD")
        self._connecting: Deferred[UpstreamConnection] | None = None
        self._connection: UpstreamConnection | None = None
        self._started = False
        self._producing = False
        self._taking_body = False
        self._over = False
        self.waiting_since = relay.now

    def __repr__(self) -> str:
        if self._over:
            state = "over"
        elif self._connection is None:
            state = "connecting"
        elif self._started:
            state = "streaming"
        else:
            state = "waiting" if self._body_done else "sending"
        return f"<Exchange {self._request.head.method.decode('ascii')} {state}>"

    def start(self) -> None:
        """Send the request over a kept-alive connection or a fresh one."""
        self._relay.exchanges.add(self)
        self._request.when_gone = self.client_gone
        if self._retriable:
            connection = self._relay.upstream.idle_connection()
            if connection is not None:
                self._send(connection)
                return
        self._connect()

    # -- the connection ------------------------------------------------------------------

    def _connect(self) -> None:
        self._connecting = connecting = self._relay.upstream.connect()
        connecting.addCallbacks(self._connected, self._not_connected)
        connecting.addErrback(self._fault)

    def _connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        if self._over:
            connection.abort()
            return
        self._send(connection)
        if not self._body_done and not self._over:
            # Only now: who is granted and whose registry is there may send gigabytes.
            request = self._request
            request.send_continue()
            connection.transport.registerProducer(request.body_producer, True)
            self._taking_body = True
            request.receive_body(self)

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if self._over:
            return
        address = self._relay.upstream.address
        if failure.check(TimeoutError, TCPTimedOutError):
            self._fail(UpstreamFailure(504, "the registry does not answer connections"))
        elif failure.check(ConnectError):
            self._fail(UpstreamFailure(502, "the registry refuses connections"))
        elif failure.check(CancelledError):
            self._fail(UpstreamFailure(502, "the registry is not there"))
        else:
            _LOG.warn(
                "cannot connect to {upstream}: {reason}",
                upstream=str(address),
                reason=failure.getErrorMessage(),
            )
            self._fail(UpstreamFailure(502, "the registry cannot be reached"))

    def _fault(self, failure: Failure) -> None:
        _LOG.failure("fault in an exchange", failure=failure)
        if not self._over:
            self._fail(UpstreamFailure(502, "internal error"))

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self.waiting_since = self._relay.now
        connection.begin(self, self._request.head.method, self._head_bytes)
        connection.request_sent = self._body_done

    # -- the body ------------------------------------------------------------------------

    def body_data(self, data: bytes) -> None:
        """Octets from the client for the registry."""
        connection = self._connection
        if connection is not None and not self._started:
            self.waiting_since = self._relay.now
            connection.write(chunk(data) if self._chunked else data)

    def body_end(self) -> None:
        """The client's body is whole."""
        if self._started:
            return  # some of the body was dropped: the registry must not see an end of it
        self._body_done = True
        connection = self._connection
        if connection is not None:
            self.waiting_since = self._relay.now
            self._stop_taking_body()
            if self._chunked:
                connection.write(LAST_CHUNK)
            connection.request_sent = True

    def _stop_taking_body(self) -> None:
        if self._taking_body:
            self._taking_body = False
            if self._connection is not None and self._connection.transport is not None:
                self._connection.transport.unregisterProducer()

    def client_gone(self, reason: str) -> None:
        """The client or its body broke: the registry must not see a clean end."""
        self._end()

    # -- the response --------------------------------------------------------------------

    def response_started(self, head: ResponseHead, body: Body, data: bytes) -> None:
        """The registry answers, maybe while the body still flows."""
        if head.status in (401, 407):
            # The registry has its own access control, which nobody here can satisfy; its
            # challenge would lead clients to send passwords elsewhere.
            self._fail(UpstreamFailure(502, "the registry asks regguard for credentials"))
            return
        request = self._request
        self._started = True
        self.waiting_since = self._relay.now
        if not self._body_done:
            # An early answer: it counts, and the rest of the body does not.  The connection
            # can't be used again, and it ends with the exchange.
            self._stop_taking_body()
            request.body_producer.pauseProducing()
        fields = client_fields(head, self._relay.upstream.address.origin)
        if body.complete:
            if isinstance(body, ChunkedBody):
                fields.append(b"Content-Length: %d" % len(data))
            self._finish_connection()
            request.begin(head.status, head.reason, fields, len(data), data)
            self._over = True
            request.finish()
            return
        length = head.content_length if not head.chunked else None
        connection = self._connection
        assert connection is not None
        self._producing = True
        request.register_producer(connection)
        request.begin(head.status, head.reason, fields, length, data)

    def response_data(self, data: bytes) -> None:
        """More of the registry's answer."""
        self.waiting_since = self._relay.now
        self._request.write(data)

    def response_finished(self) -> None:
        """The registry's answer is whole, and so is ours."""
        request = self._request
        self._finish_connection()
        self._stop_producing()
        self._over = True
        request.finish()

    def response_lost(self, failure: UpstreamFailure, untouched: bool) -> None:
        """The registry went away."""
        if untouched and self._retriable and not self._over:
            self._retriable = False
            self._connection = None
            self._connect()
            return
        self._fail(failure)

    # -- endings -------------------------------------------------------------------------

    def check_silence(self, now: float, limit: float) -> None:
        """Fail if the registry said nothing since ``limit``; called about once a second."""
        connection = self._connection
        if self._started:
            clients_turn = connection is not None and connection.paused
        else:
            clients_turn = not self._body_done and self._request.waits_for_body
        if clients_turn:
            # It does not read or does not send: the registry's time begins after that.
            self.waiting_since = now
        elif self.waiting_since <= limit:
            self._fail(UpstreamFailure(504, "the registry is silent"))

    def relay_stops(self) -> None:
        """No time is left for this exchange."""
        self._fail(UpstreamFailure(503, "regguard is going down"))

    def _finish_connection(self) -> None:
        self._relay.exchanges.discard(self)
        self._stop_taking_body()
        connection, self._connection = self._connection, None
        if connection is not None and not connection.request_sent:
            connection.abort()

    def _stop_producing(self) -> None:
        if self._producing:
            self._producing = False
            self._request.unregister_producer()

    def _fail(self, failure: UpstreamFailure) -> None:
        request, started = self._request, self._started
        self._end()
        request.when_gone = None
        if started:
            _LOG.warn(
                "cut the answer to {user}: {reason}",
                user=request.user_name,
                reason=failure.message,
            )
            request.abort()
        else:
            self._relay.on_failure(request, failure)

    def _end(self) -> None:
        self._relay.exchanges.discard(self)
        if self._over:
            return
        self._over = True
        self._stop_taking_body()
        self._stop_producing()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

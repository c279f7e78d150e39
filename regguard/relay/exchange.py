"""One request and its response on their way through.

Back-pressure: the client's body is a producer to the registry's transport, the registry's
response one to the client's.  Each side reads only while the other writes.

A failure before the response began becomes an answer of regguard's own.  A failure after that
cuts the client's connection; a truncated blob must never look whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from regguard.http1 import LAST_CHUNK, Body, ChunkedBody, RequestHead, ResponseHead, chunk
from regguard.relay.headers import Origin, client_fields, told_origin, upstream_request
from regguard.relay.inquiry import Inquiry, Reply
from regguard.relay.references import Misleading, References
from regguard.relay.sending import CHALLENGES, READS, Sending
from regguard.relay.upstream import FAILURES, Upstream, UpstreamConnection, UpstreamFailure
from regguard.relay.upstreams import Upstreams

MAX_EXCHANGES = 4000
"""Requests under way at once, regguard's own questions included: a thousand machines that pull
four layers each.  Beyond, clients get 503 and come again; an unbounded number would end in file
descriptors that nobody has left."""

MAX_OF_ONE = MAX_EXCHANGES * 3 // 4
"""Requests under way beyond which only they may have more who have few: what one user's slow
transfers hold, they can't hold against the others."""

FEW = 16
"""Docker's pushes and pulls take three to five requests at once, and a user has several."""

TICK = 1.0
"""Seconds between looks whether a registry is silent."""

GIVE_UP_AT_502 = (b"containers/", b"libpod/", b"skopeo/", b"Buildah/", b"buildah/", b"containerd/")
"""How the clients name themselves that push nothing more after a 502, podman 4.3 and containerd 1.6
among them.  When a registry goes away in the middle of what they send, they hear 408 instead, at
which they send it again, as RFC 9110 section 15.5.9 allows; dockerd does that at a 502, too."""

_LOG = Logger(namespace="regguard.relay")


class Relay:
    """Sends granted requests to the registry and streams the responses back; asks it, too.

    ``read_timeout``: longest silence of the registry in an exchange, in seconds.
    ``origin``: the public origin, where it is not what the client's Host says.
    ``on_failure(request, failure)`` answers a request whose response did not begin.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        clock: Any,
        read_timeout: float,
        origin: Origin | None,
        on_failure: Callable[[Any, UpstreamFailure], None],
    ) -> None:
        self.upstreams = upstreams
        self.references = References((each.address.origin for each in upstreams.members), origin)
        self.clock = clock
        self.read_timeout = read_timeout
        self.origin = origin
        self.on_failure = on_failure
        self.exchanges: set[Sending] = set()
        self._held: dict[str, int] = {}
        #: How many requests the registry did not answer as it should, by kind.
        self.failures: dict[str, int] = dict.fromkeys(FAILURES, 0)
        self.now: float = clock.seconds()
        self._stopped = False
        self._watch = LoopingCall(self._look)
        self._watch.clock = clock

    def start(self) -> None:
        """Begin to watch for silence."""
        self.now = self.clock.seconds()
        self._watch.start(TICK, now=False)

    def stop(self) -> None:
        """End what is under way, take no more, and cut every connection to the registry."""
        # First: whoever waited for the end of another one would begin now.
        self._stopped = True
        if self._watch.running:
            self._watch.stop()
        for exchange in list(self.exchanges):
            exchange.relay_stops()
        self.upstreams.stop()

    def send(
        self,
        request: Any,
        target: bytes,
        user_name: str,
        is_upload: bool,
        *,
        body: bytes | None = None,
        on_error: Callable[[], None] | None = None,
        when_done: Callable[[], None] | None = None,
    ) -> None:
        """Relay ``request`` to ``target`` for a user.

        ``body`` is the request's whole body where the caller has read it already.
        ``on_error`` is called instead of a relayed answer from 400 on to GET or HEAD: the request
        is then the caller's again, as if it had never been sent; but its body, if it had one, is
        gone, and who sends it again sends ``body=b""``.
        ``when_done`` is called once when the registry has begun to answer, or never will. With it,
        a request whose body was read already runs on without its client from when it was sent: the
        registry may act on it whether we listen or not.
        """
        if self._stopped or (len(self.exchanges) >= MAX_OF_ONE and not self._has_room(user_name)):
            self.on_failure(request, self._no_room())
            if when_done is not None:
                when_done()
            return
        if is_upload:
            upstream, target = self.upstreams.of_upload(target)
        else:
            upstream = self.upstreams.first()
        exchange = Exchange(
            self, upstream, request, target, user_name, is_upload, body, on_error, when_done
        )
        request.when_gone = exchange.client_gone
        exchange.start()

    def ask(
        self, method: bytes, target: bytes, *lines: bytes, user_name: str, limit: int
    ) -> Deferred[Reply]:
        """Ask the registry for ``target``, by GET or HEAD, on behalf of a user.

        ``lines`` are ready field lines.  The answer's body may have ``limit`` octets; with 0
        only its head is awaited.  Fails with UpstreamFailure; cancelling ends the question.
        """
        if self._stopped or (len(self.exchanges) >= MAX_OF_ONE and not self._has_room(user_name)):
            return fail(self._no_room())
        inquiry = Inquiry(self, self.upstreams.first(), method, target, lines, user_name, limit)
        return inquiry.ask()

    def begins(self, sending: Sending) -> None:
        """A request is under way."""
        self.exchanges.add(sending)
        held = self._held
        held[sending.user_name] = held.get(sending.user_name, 0) + 1

    def ends(self, sending: Sending) -> None:
        """A request is over, or already was."""
        if sending in self.exchanges:
            self.exchanges.remove(sending)
            held = self._held
            left = held[sending.user_name] = held[sending.user_name] - 1
            if not left:
                del held[sending.user_name]

    def _has_room(self, user_name: str) -> bool:
        return len(self.exchanges) < MAX_EXCHANGES and self._held.get(user_name, 0) < FEW

    def _no_room(self) -> UpstreamFailure:
        if self._stopped:
            failure = UpstreamFailure(503, "regguard is going down", "stopping")
        else:
            failure = UpstreamFailure(503, "too many requests are under way", "busy")
        self.failures[failure.kind] += 1
        return failure

    def _look(self) -> None:
        now = self.clock.seconds()
        late = now - self.now - TICK
        self.now = now
        if late > TICK:
            # Nobody listened to the registry meanwhile: this process stood still.
            for exchange in self.exchanges:
                exchange.waiting_since += late
        self.upstreams.look(now)
        limit = now - self.read_timeout
        for exchange in list(self.exchanges):
            try:
                exchange.check_silence(now, limit)
            except Exception:
                # One exchange's fault must not end the watch over the others.
                _LOG.failure("fault in {exchange}", exchange=exchange)


class Exchange(Sending):
    """One request on its way; the sink of its body and the taker of its response.

    States, told by ``repr``: connecting, sending, waiting, streaming, over.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_is_upload",
        "_on_error",
        "_producing",
        "_request",
        "_started",
        "_taking_body",
        "_target",
        "_when_done",
    )

    def __init__(
        self,
        relay: Relay,
        upstream: Upstream,
        request: Any,
        target: bytes,
        user_name: str,
        is_upload: bool,
        body: bytes | None,
        on_error: Callable[[], None] | None,
        when_done: Callable[[], None] | None,
    ) -> None:
        head: RequestHead = request.head
        super().__init__(
            relay, upstream, head.method, user_name, body is not None or not head.has_body
        )
        if body is not None:
            self._retriable = False
        self._target = target
        self._is_upload = is_upload
        self._body = body
        self._request = request
        self._on_error = on_error
        self._when_done = when_done
        self._chunked = head.chunked
        self._started = False
        self._producing = False
        self._taking_body = False

    def __repr__(self) -> str:
        if self._over:
            state = "over"
        elif self._connection is None:
            state = "connecting"
        elif self._started:
            state = "streaming"
        else:
            state = "waiting" if self._body_done else "sending"
        return f"<Exchange {self._method.decode('ascii')} {state}>"

    def _compose(self, upstream: Upstream) -> bytes:
        request, body, address = self._request, self._body, upstream.address
        head = upstream_request(
            request.head,
            self._target,
            client=request.client,
            secure=request.secure,
            authority=request.authority,
            user_name=self.user_name,
            is_upload=self._is_upload,
            origin=self._relay.origin,
            registry=address.origin,
            credential=address.credential,
            body_length=None if body is None else len(body),
        )
        return head if body is None else head + body

    def _connected(self, connection: UpstreamConnection) -> None:
        super()._connected(connection)
        if not self._body_done and not self._over:
            # Only now: who is granted and whose registry is there may send gigabytes.
            request = self._request
            request.send_continue()
            connection.transport.registerProducer(request.body_producer, True)
            self._taking_body = True
            request.receive_body(self)

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
        was_sent = self._body_done and self._connection is not None
        if not (was_sent and self._when_done is not None):
            self._end()

    # -- the response --------------------------------------------------------------------

    def response_started(self, head: ResponseHead, body: Body, data: bytes) -> None:
        """The registry answers, maybe while the body still flows."""
        if head.status in CHALLENGES:
            self._challenged()
            return
        request = self._request
        request.upstream_seconds = self._relay.clock.seconds() - self.sent_at
        request.answered = head
        is_error = head.status >= 400 and self._on_error is not None and self._method in READS
        try:
            fields = [] if is_error else client_fields(head, self._lead)
        except Misleading as error:
            _LOG.warn(
                "the registry {upstream} leads {user} astray: {reason}",
                upstream=str(self._upstream.address),
                user=request.user_name,
                reason=str(error),
            )
            self._fail(
                UpstreamFailure(502, "the registry's answer leads elsewhere", is_logged=True)
            )
            return
        self._started = True
        # Not to be sent again: a manifest shall not stay for as long as its client reads.
        self._octets = b""
        self.waiting_since = self._relay.now
        if not self._body_done:
            # An early answer: it counts, and the rest of the body does not.  The connection
            # can't be used again, and it ends with the exchange.
            self._stop_taking_body()
            request.body_producer.pauseProducing()
        if is_error and self._on_error is not None:
            self._give_back(body.complete, self._on_error)
            return
        if body.complete:
            if isinstance(body, ChunkedBody):
                fields.append(b"Content-Length: %d" % len(data))
            self._finish_connection()
            request.begin(head.status, head.reason, fields, len(data), data)
            self._over = True
            request.finish()
            self._done()
            return
        length = head.content_length if not head.chunked else None
        connection = self._connection
        assert connection is not None
        self._producing = True
        request.register_producer(connection)
        request.begin(head.status, head.reason, fields, length, data)
        self._done()

    def _lead(self, head: ResponseHead, key: bytes, value: bytes) -> bytes:
        """Where a Location or a Link leads the client; raises Misleading."""
        request, relay = self._request, self._relay
        registry = self._upstream.address.origin
        told = Origin(*told_origin(request.authority, request.secure, relay.origin, registry))
        if key == b"link":
            return relay.references.link(value, told)
        if sum(name == key for _, name, _ in head.fields) > 1:
            raise Misleading("it has two Location fields")
        # A download may be at a storage service.  What is written, and what it is written to,
        # goes nowhere else.
        may_leave = 300 <= head.status <= 399 and self._method in READS and not self._is_upload
        found = relay.references.location(value, told, may_leave=may_leave)
        return relay.upstreams.marked(found, self._upstream) if self._is_upload else found

    def _give_back(self, is_whole: bool, on_error: Callable[[], None]) -> None:
        """Nothing of an error goes to the client."""
        if is_whole:
            self._finish_connection()
        self._end()
        self._request.when_gone = None
        on_error()

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

    # -- endings -------------------------------------------------------------------------

    def check_silence(self, now: float, limit: float) -> None:
        """Fail if the registry said nothing since ``limit``; called about once a second."""
        connection = self._connection
        if self._started:
            clients_turn = connection is not None and connection.paused
        else:
            is_asked = connection is not None and not self._body_done
            clients_turn = is_asked and self._request.waits_for_body
        if clients_turn:
            # It does not read or does not send: the registry's time begins after that.
            self.waiting_since = now
        else:
            super().check_silence(now, limit)

    def _finish_connection(self) -> None:
        self._relay.ends(self)
        self._stop_taking_body()
        connection, self._connection = self._connection, None
        if connection is not None and not connection.request_sent:
            connection.abort()

    def _stop_producing(self) -> None:
        if self._producing:
            self._producing = False
            self._request.unregister_producer()

    def _fail(self, failure: UpstreamFailure) -> None:
        self._relay.failures[failure.kind] += 1
        request, started = self._request, self._started
        agent = request.head.user_agent
        if failure.kind == "closed" and agent is not None and agent.startswith(GIVE_UP_AT_502):
            failure = UpstreamFailure(
                408, "the registry went away in this request: send it again", failure.kind
            )
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
        self._stop_taking_body()
        self._stop_producing()
        super()._end()
        self._done()

    def _done(self) -> None:
        when_done, self._when_done = self._when_done, None
        if when_done is not None:
            when_done()

"""The HTTP/1.1 server channel: one connection, its requests one after the other.

A request goes through these states; a pipelined request waits until the one before it is
answered, so answers keep their order (CVE-2023-46137 and CVE-2024-41671 were about that).

HEAD
    octets of a head are collected; the deadline is absolute.
BODY
    the resource has the request; the body goes to its sink, or stays with the client while the
    resource has not asked for it.
ANSWER
    the body is in; what the client sends now is its next request and is not read.
DRAIN
    the response is out, and the little rest of the body is read and forgotten so that the
    connection lives on.
LINGER
    the last response is out and our side is closed; the client may still be sending.  Closing
    the socket now would make TCP throw away the response (RFC 9112 section 9.6).
CLOSED
    nothing more is read; what is queued may still leave.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regguard import answers
from regguard.addresses import host_of
from regguard.front.forwarded import forwarded
from regguard.front.outflow import Outflow
from regguard.front.request import BodySink, Request
from regguard.http1 import (
    HEAD_END,
    MAX_HEAD,
    MAX_TARGET,
    LengthBody,
    MalformedRequest,
    NoBody,
    RequestHead,
    check_partial_request,
    parse_request_head,
    request_body,
)
from regguard.http1.body import NO_BODY, Body
from regguard.transport import StreamTransport, unsent_by, writer_for

if TYPE_CHECKING:
    from regguard.front.site import Site

FIRST_BYTE_TIMEOUT = 10
"""Seconds for the TLS handshake and the first octet of a request; HAProxy's advice."""
HEAD_TIMEOUT = 20
"""Seconds from the first octet of a head to its end, however slowly they trickle; the lower
bound of Apache's RequestReadTimeout."""
IDLE_TIMEOUT = 60
"""Seconds a kept-alive connection may wait for its next request; nginx's 60 to 75."""
BODY_TIMEOUT = 60
"""Seconds of silence of a client that owes us a body; nginx's client_body_timeout."""
BODY_GRACE = 20
"""Seconds until a body must have begun, and be sent at BODY_RATE; with it Apache's
RequestReadTimeout body=20,MinRate=500."""
BODY_RATE = 500
"""Octets a second of a body, on average since its begin: each buys time, and what is saved up is
no more than BODY_TIMEOUT.  Only the time counts in which we read."""
LINGER_TIMEOUT = 5
"""Seconds a refused client may go on sending before its socket is closed; nginx's
lingering_timeout."""
LINGER_BYTES = 256 * 1024
"""Octets of a refused body that are read and forgotten; after that the client's own socket
buffer stops it."""
SEND_TIMEOUT = 60
"""Seconds in which a client takes nothing of what is there for it; nginx's send_timeout."""
SEND_LOOK = 5
"""Seconds between looks whether it has taken some."""
DRAIN_BYTES = 64 * 1024
"""A refused body with at most this rest is read to keep the connection (a TLS handshake costs
more than that)."""

_TOO_SLOW = "client sends its body too slowly"
_BROKEN_OFF = "client closed in the body"

_HEAD, _BODY, _ANSWER, _DRAIN, _LINGER, _CLOSED = range(6)
_STATES = ("HEAD", "BODY", "ANSWER", "DRAIN", "LINGER", "CLOSED")

_LOG = Logger(namespace="regguard.front")


@implementer(IHalfCloseableProtocol, IPushProducer)
class Channel(Protocol):
    """See the module; as IPushProducer it produces the body of the current request."""

    transport: StreamTransport  # type: ignore[assignment]

    def __init__(self, site: Site, network: str | None = None, host: str = "") -> None:
        self.site = site
        self.network = network
        self._host = host
        self.client = ""
        #: The user whom the client's certificate names.
        self.certified: str | None = None
        self.request: Request | None = None
        self.deadline: float = inf
        self.send_deadline: float = inf
        self.outflow = Outflow(self)
        self._forwards = False
        self._named = False
        self._unsent = inf
        self._taken_at = 0.0
        self._state = _HEAD
        self._buffer = b""
        self._searched = 0
        self._parsing = False
        self._reading = True
        self._body: Body = NO_BODY
        self._sink: BodySink | None = None
        self._closing = False
        self._peer_finished = False
        self._continue_due = False
        self._discarded = 0

    def __repr__(self) -> str:
        return f"<Channel {self.client or '?'} {_STATES[self._state]} {self.request!r}>"

    # -- the connection ------------------------------------------------------------------

    def connectionMade(self) -> None:
        """A client is there."""
        self.write = writer_for(self.transport)
        self.transport.registerProducer(self.outflow, True)
        self.site.channels.add(self)
        self.site.admission.enter(self.network)
        self.deadline = self.site.now + FIRST_BYTE_TIMEOUT
        # Not on a UNIX socket, and not where the client is gone already.
        with suppress(AttributeError, OSError):
            # A response head and its body may be two writes; Nagle would hold the second.
            self.transport.setTcpNoDelay(True)

    def client_named(self) -> None:
        """A PROXY header said who the client is: now its network counts."""
        self._named = True
        self._host = ""
        admission = self.site.admission
        admission.leave(self.network)
        network = admission.network_of(host_of(self.transport.getPeer()))
        self.network = network if admission.admits(network) else None
        admission.enter(self.network)
        if self.network != network:
            self.abort()

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client."""
        state = self._state
        if state == _HEAD:
            self._buffer = self._buffer + data if self._buffer else data
            self._parse()
        elif state == _BODY:
            if self._sink is None:
                self._buffer += data
                self._pause()
            else:
                self._take_body(data)
        elif state == _ANSWER:
            self._buffer += data
            self._pause()
        elif state == _DRAIN:
            self._drain_body(data)
        elif state == _LINGER:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self._pause()

    def readConnectionLost(self) -> None:
        """The client closed its side and may still read ours."""
        self._peer_finished = True
        if self._state == _ANSWER:
            return
        if self._buffer and (self._state == _BODY or self.outflow.blocked):
            return  # in one turn with the end, as TLS may deliver it: that comes first
        if self._state == _BODY:
            self._break(_BROKEN_OFF)
        elif self._state != _CLOSED:
            self._close()

    def writeConnectionLost(self) -> None:
        """Our side is closed; that was asked for."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._state = _CLOSED
        self._buffer = b""
        self._gone("client went away")
        if self.site.certifies and not self.client:
            self.site.handshake_failed(self.transport)
        self.site.channel_lost(self)
        # They hold each other, and the transport with them: until Python's collector comes.
        del self.outflow

    def deadline_passed(self) -> None:
        """The client was too slow."""
        if self.send_deadline <= self.site.now:
            self._look_at_sending()
            return
        state = self._state
        if state == _HEAD:
            if self.outflow.blocked:
                # The next request waits for us to read it, not we for it.
                self.deadline = self.site.now + IDLE_TIMEOUT
            elif self._buffer:
                self._refuse(MalformedRequest("the request head took too long", 408))
            else:
                self._close()
        elif state in (_BODY, _DRAIN):
            self._break(_TOO_SLOW)
        elif state == _LINGER:
            self._close()
        else:
            self.abort()

    def put_off(self, seconds: float) -> None:
        """The client could not be served for so long: its deadlines come later."""
        self.deadline += seconds
        self.send_deadline += seconds
        self._taken_at += seconds

    def _look_at_sending(self) -> None:
        """Octets wait for the client: has it taken some since the last look?"""
        now, unsent = self.site.now, unsent_by(self.transport)
        if unsent < self._unsent:
            self._taken_at = now
        self._unsent = unsent
        if now - self._taken_at >= SEND_TIMEOUT:
            self._gone("client stopped reading")
            self.abort()
        else:
            self.send_deadline = now + SEND_LOOK

    @property
    def unwatched(self) -> bool:
        """Whether a request is under way and nothing is read: the reactor tells of no reset."""
        return self.request is not None and not self._reading

    def lost_unwatched(self) -> None:
        """A look at the socket has shown that the client went."""
        self._gone("client went away")
        self.abort()

    def drain(self) -> None:
        """End the connection after the current request, or after the first one.

        Who was accepted and has not asked yet cannot know, and has no other connection to turn to.
        """
        self._closing = True
        if self._state == _HEAD and not self._buffer and self.client:
            self._close()

    def certify_again(self) -> None:
        """End a connection that rests on a certificate, after the current request."""
        if self.certified is not None:
            self.drain()
        elif not self.client:
            # It may have shown one, and has asked for nothing yet.
            self._closing = True

    # -- heads ---------------------------------------------------------------------------

    def _parse(self) -> None:
        self._parsing = True
        while self._state == _HEAD and self._buffer and not self.outflow.blocked:
            buffer = self._buffer
            # RFC 9112 section 2.2: one empty line before a request is forgiven.
            start = 2 if buffer.startswith(b"\r\n") else 0
            end = buffer.find(HEAD_END, max(start, self._searched))
            if end < 0:
                self._wait_for_head(buffer, start)
                break
            end += len(HEAD_END)
            try:
                if end > MAX_HEAD:
                    too_long = buffer.find(b"\r\n", start) > MAX_TARGET
                    raise MalformedRequest("request head too long", 414 if too_long else 431)
                self._buffer = buffer[end:]
                head = parse_request_head(buffer[start:end])
            except MalformedRequest as error:
                self._refuse(error)
                break
            self._searched = 0
            self._begin(head, end)
        self._parsing = False
        if self._state == _HEAD:
            if self.outflow.blocked:
                self._pause()
            elif self._peer_finished:
                self._close()
            else:
                self._resume()

    def _wait_for_head(self, buffer: bytes, start: int) -> None:
        if not self._searched:
            self.deadline = self.site.now + HEAD_TIMEOUT
        try:
            if buffer not in (b"\r", b"\r\n"):
                check_partial_request(buffer[start:], max(0, self._searched - start))
        except MalformedRequest as error:
            self._refuse(error)
        else:
            # At least 1, so that the deadline is set once for each head.
            self._searched = max(1, len(buffer) - len(HEAD_END) + 1)

    def _begin(self, head: RequestHead, head_bytes: int) -> None:
        if not self.client:
            self._meet()
        request = self.request = Request(self, head, head_bytes)
        if self._forwards:
            request.client, request.secure, request.authority = forwarded(
                head, self.client, request.secure, self.site.trusted
            )
        self._body = request_body(head)
        self._sink = None
        self._continue_due = head.expects_continue
        if head.close:
            self._closing = True
        self._state = _BODY if head.has_body else _ANSWER
        self.deadline = inf
        try:
            self.site.resource.render(request)
        except Exception:
            _LOG.failure("the resource failed on a request")
            if self.request is request and not request.status:
                self._gone_silently()
                request.answer(answers.error(500, "UNKNOWN", "internal error"))
            elif self.request is request:
                self.abort()

    def _meet(self) -> None:
        self.client = self._host or host_of(self.transport.getPeer())
        site = self.site
        if site.certifies:
            self.certified = site.certified(self.transport)
        # A balancer for TCP that does not know its client passes on what that one writes.
        is_known = self._named or not site.introduced
        self._forwards = is_known and bool(site.trusted) and site.trusted.trusts(self.client)

    def _refuse(self, error: MalformedRequest) -> None:
        """Answer what is no request, and read no further."""
        if not self.client:
            self._meet()
        self._closing = True
        self._buffer = b""
        self._body = _UNKNOWN_BODY
        self._state = _BODY
        self.request = Request(self, None, 0)
        code = "UNSUPPORTED" if error.status in (417, 501, 505) else "UNKNOWN"
        self.request.answer(answers.error(error.status, code, error.reason))

    # -- bodies --------------------------------------------------------------------------

    def receive_body(self, sink: BodySink) -> None:
        """See ``Request.receive_body``."""
        self._sink = sink
        if self._state != _BODY:
            sink.body_end()
            return
        self.deadline = self.site.now + BODY_GRACE
        data, self._buffer = self._buffer, b""
        if data:
            self._take_body(data)
        if self._state == _BODY:
            if self._peer_finished:
                self._break(_BROKEN_OFF)
            elif self.deadline < inf:  # else the sink paused us
                self._resume()

    def send_continue(self) -> None:
        """See ``Request.send_continue``."""
        # A client that has begun to send does not wait (RFC 9110 section 10.1.1).
        if self._continue_due and not self._buffer:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._continue_due = False

    def waits_for_body(self, request: Request) -> bool:
        """See ``Request.waits_for_body``."""
        return self.request is request and self._state == _BODY and self._reading

    def _take_body(self, data: bytes) -> None:
        request, sink = self.request, self._sink
        assert request is not None
        assert sink is not None
        if self.deadline < inf:  # else it was on its way when the sink paused us
            saved = self.deadline + len(data) / BODY_RATE
            self.deadline = min(saved, self.site.now + BODY_TIMEOUT)
        try:
            data, rest = self._body.feed(data)
        except MalformedRequest as error:
            self._break(error.reason)
            return
        self._buffer = rest
        if data:
            request.body_bytes_in += len(data)
            sink.body_data(data)
            if self.request is not request or self._state != _BODY:
                return  # the sink ended the request
        if self._body.complete:
            self._state = _ANSWER
            self.deadline = inf
            if rest:
                self._pause()
            else:
                self._resume()
            sink.body_end()

    def _drain_body(self, data: bytes) -> None:
        try:
            _, self._buffer = self._body.feed(data)
        except MalformedRequest:
            self.abort()
            return
        if self._body.complete:
            self._next()

    def _break(self, reason: str) -> None:
        """The body will never be whole: say so on both sides."""
        request = self.request
        if request is None or request.status:
            self._gone(reason)
            self.abort()
            return
        self._gone_silently(reason)
        self._closing = True
        if reason is _TOO_SLOW:
            answer = answers.error(408, "UNKNOWN", reason)
        else:
            answer = answers.error(400, "UNKNOWN", reason)
        request.answer(answer)

    def pauseProducing(self) -> None:
        """The registry does not take more of the body now."""
        if self._state == _BODY:
            self.deadline = inf
            self._pause()

    def resumeProducing(self) -> None:
        """The registry takes more of the body."""
        if self._state == _BODY:
            self.deadline = self.site.now + BODY_TIMEOUT
            self._resume()

    def stopProducing(self) -> None:
        """The registry's connection is gone; whoever relays decides what the client hears."""

    # -- responses -----------------------------------------------------------------------

    def response_begins(self) -> bool:
        """Whether the connection ends with the response that begins now."""
        if not self._closing and self._state == _BODY and not self._may_drain():
            self._closing = True
        return self._closing or self.site.draining

    def close_after_response(self) -> bool:
        """The end of the response is the end of the connection."""
        self._closing = True
        return True

    def _may_drain(self) -> bool:
        # A client that waits for 100 Continue may or may not send its body after a refusal:
        # what comes next could be read in two ways.
        body = self._body
        return (
            isinstance(body, LengthBody)
            and body.remaining <= DRAIN_BYTES
            and not self._continue_due
        )

    def response_finished(self) -> None:
        """The response of the current request went out whole."""
        request = self.request
        if request is None:
            return
        request.when_gone = None
        self._sink = None
        self._over(request)
        if self._closing or self.site.draining:
            if self._state == _BODY and not self._peer_finished:
                self._linger()
            else:
                self._close()
        elif self._state == _BODY:
            self._state = _DRAIN
            self.deadline = self.site.now + BODY_TIMEOUT
            data, self._buffer = self._buffer, b""
            self._resume()
            self._drain_body(data)
            if self._peer_finished and self._state == _DRAIN:
                self._close()
        else:
            self._next()

    def _next(self) -> None:
        if self._closing:  # draining began while a rest was skipped
            self._close()
            return
        self._state = _HEAD
        self._searched = 0
        self.deadline = self.site.now + IDLE_TIMEOUT
        if not self._parsing:
            self._parse()

    def outflow_blocked(self) -> None:
        """The client does not take what we write."""
        self._watch_sending()

    def outflow_free(self) -> None:
        """The client has taken everything that was queued."""
        self.send_deadline = inf
        if self._state == _HEAD and not self._parsing:
            if not self._searched:
                self.deadline = self.site.now + IDLE_TIMEOUT
            self._parse()

    def _gone(self, reason: str) -> None:
        """The current request ends without its whole response."""
        request = self.request
        if request is not None:
            self._gone_silently(reason)
            if self.request is request:  # else whoever was told has aborted it
                self._over(request)

    def _over(self, request: Request) -> None:
        """The current request has ended, in whatever way."""
        self.request = None
        self.site.ended(request)
        if request.when_over is not None:
            try:
                request.when_over()
            except Exception:
                _LOG.failure("the resource failed on the end of a request")

    def _gone_silently(self, reason: str = "internal error") -> None:
        request = self.request
        if request is not None and request.when_gone is not None:
            when_gone, request.when_gone = request.when_gone, None
            try:
                when_gone(reason)
            except Exception:
                _LOG.failure("the resource failed on the end of a request")

    # -- endings -------------------------------------------------------------------------

    def _linger(self) -> None:
        self._state = _LINGER
        self._buffer = b""
        self.deadline = self.site.now + LINGER_TIMEOUT
        self._release_outflow()
        if self.site.half_closes:
            self.transport.loseWriteConnection()
            self._reading = True
            self.transport.resumeProducing()
        else:
            # Twisted's own TLS sends close_notify and reads on until the client closes.
            self._resume()
            self.transport.loseConnection()

    def _close(self) -> None:
        """Close after what is queued has left."""
        self._state = _CLOSED
        self._buffer = b""
        self.deadline = inf
        self._release_outflow()
        self._watch_sending()
        self.transport.loseConnection()

    def abort(self) -> None:
        """Cut the connection now (a TCP reset, no close_notify)."""
        self._state = _CLOSED
        self._buffer = b""
        self.deadline = self.send_deadline = inf
        self._gone("aborted")
        self.transport.abortConnection()

    def _release_outflow(self) -> None:
        # A transport does not close while it has a paused producer.
        self.send_deadline = inf
        self.transport.unregisterProducer()

    def _watch_sending(self) -> None:
        # With the next tick: most queues are gone by then, and nobody needs to ask the kernel.
        self._unsent = inf
        self.send_deadline = self.site.now

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pauseProducing()

    def _resume(self) -> None:
        if not self._reading and not self._peer_finished:
            self._reading = True
            self.transport.resumeProducing()


class _UnknownBody(NoBody):
    """What follows a head that was not understood: nobody can say."""

    __slots__ = ()
    complete = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return b"", b""


_UNKNOWN_BODY = _UnknownBody()

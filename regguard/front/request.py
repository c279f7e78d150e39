"""One request as the resource sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from regguard.answers import Answer
from regguard.http1 import LAST_CHUNK, RequestHead, chunk, response_head

if TYPE_CHECKING:
    from regguard.front.channel import Channel


class BodySink(Protocol):
    """Who takes a request's body, piece by piece."""

    def body_data(self, data: bytes) -> None:
        """Some octets of the body; never empty."""

    def body_end(self) -> None:
        """The body was received whole."""


class Request:
    """A request and the response to it.

    The resource answers with ``answer`` or with ``begin``, ``write`` and ``finish``; where the
    response can't be finished honestly, with ``abort``.  ``when_gone`` is called once if the
    client, its connection or its body breaks before the end; no answer is due then.  Whatever
    is done to a request that is over does nothing: it must not touch the one after it.

    ``when_over`` is called once when the request is over in whatever way: its answer is given
    to the connection whole, or was cut, or the client has left.  It is to be set before that.
    """

    __slots__ = (
        "_channel",
        "_chunked",
        "access",
        "answered",
        "authority",
        "began",
        "body_bytes_in",
        "body_bytes_out",
        "certified",
        "client",
        "head",
        "head_bytes_in",
        "head_bytes_out",
        "incident",
        "refused_by",
        "secure",
        "status",
        "upstream_seconds",
        "user_name",
        "when_gone",
        "when_over",
    )

    def __init__(self, channel: Channel, head: RequestHead | None, head_bytes: int) -> None:
        self._channel = channel
        self._chunked = False
        self.head = head
        #: The client's address, whether it speaks TLS, and the host that it asked for: ours to
        #: see, or what a trusted proxy says.
        self.client = channel.client
        self.secure = channel.site.secure
        #: The user whom the certificate of the connection names, whoever sends the request.
        self.certified = channel.certified
        self.authority = b"" if head is None else head.host
        #: Seconds of the site's clock when the head was whole.
        self.began: float = channel.site.clock.seconds()
        #: What is asked for (an ``Access``), where the target was understood.
        self.access: Any = None
        self.user_name: str | None = None
        #: The id of a denial, by which the access log can be searched.
        self.incident: str | None = None
        #: The rule that denied it.
        self.refused_by: str | None = None
        #: The head of the registry's answer (a ``ResponseHead``), as it came.
        self.answered: Any = None
        #: From when the request went upstream until the registry began to answer.
        self.upstream_seconds: float | None = None
        self.when_gone: Callable[[str], None] | None = None
        self.when_over: Callable[[], None] | None = None
        self.status = 0
        self.head_bytes_in = head_bytes
        self.body_bytes_in = 0
        self.head_bytes_out = 0
        self.body_bytes_out = 0

    def receive_body(self, sink: BodySink) -> None:
        """Let the body flow to ``sink``; until this is called it stays with the client."""
        if self.live:
            self._channel.receive_body(sink)

    def send_continue(self) -> None:
        """Send ``100 Continue`` if the client waits for it (RFC 9110 section 10.1.1)."""
        if self.live and not self.status:
            self._channel.send_continue()

    def begin(
        self,
        status: int,
        reason: bytes | None,
        fields: Sequence[bytes],
        length: int | None,
        data: bytes = b"",
    ) -> None:
        """Send the response head and the first octets of the body.

        ``fields`` are ready field lines without framing of a body of unknown length;
        ``length`` is the number of body octets that will follow (0 for HEAD, 204 and 304
        whatever Content-Length says), None where nobody knows.
        """
        channel = self._channel
        if channel.request is not self:
            return
        head = self.head
        ending = channel.response_begins()
        if length is None and head is not None:
            if head.minor_version == 1:
                self._chunked = True
                fields = [*fields, b"Transfer-Encoding: chunked"]
                data = chunk(data)
            else:
                ending = channel.close_after_response()
        if ending:
            fields = [*fields, b"Connection: close"]
        elif head is not None and head.minor_version == 0:
            fields = [*fields, b"Connection: keep-alive"]
        self.status = status
        start = response_head(status, reason, fields)
        self.head_bytes_out = len(start)
        self.body_bytes_out = len(data)
        # Small responses leave as one TLS record and one packet; large ones are not copied.
        if len(data) <= _JOIN:
            channel.write(start + data)
        else:
            channel.write(start)
            channel.write(data)

    def write(self, data: bytes) -> None:
        """Send some octets of the body."""
        channel = self._channel
        if channel.request is not self:
            return
        if self._chunked:
            data = chunk(data)
        self.body_bytes_out += len(data)
        channel.write(data)

    def finish(self) -> None:
        """The response is whole."""
        channel = self._channel
        if channel.request is not self:
            return
        if self._chunked:
            self.body_bytes_out += len(LAST_CHUNK)
            channel.write(LAST_CHUNK)
        channel.response_finished()

    def answer(self, answer: Answer) -> None:
        """Send a whole response; to HEAD without its body, everything else the same."""
        fields = [b"Date: " + self._channel.site.date(), *answer.fields]
        fields.append(b"Content-Length: %d" % len(answer.body))
        body = b"" if self.head is not None and self.head.method == b"HEAD" else answer.body
        self.begin(answer.status, None, fields, len(body), body)
        self.finish()

    def abort(self) -> None:
        """Cut the connection, so that nothing sent so far can look whole."""
        if self.live:
            self._channel.abort()

    def register_producer(self, producer: Any) -> None:
        """Let ``producer`` (IPushProducer) be paused while the client does not read."""
        if self.live:
            self._channel.outflow.attach(producer)

    def unregister_producer(self) -> None:
        """The producer is done."""
        if self.live:
            self._channel.outflow.detach()

    @property
    def body_producer(self) -> Channel:
        """The IPushProducer of the request's body."""
        return self._channel

    @property
    def live(self) -> bool:
        """Whether the client is there and its answer is not finished."""
        return self._channel.request is self

    @property
    def waits_for_body(self) -> bool:
        """Whether the next move is the client's: body octets are due and would be read."""
        return self._channel.waits_for_body(self)


_JOIN = 16 * 1024
"""Octets below which a copy is cheaper than a second TLS record and system call."""

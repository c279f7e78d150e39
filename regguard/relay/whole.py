"""A small body, read whole before its request goes on: what a manifest says must be known first."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


class BodyTooLong(Exception):
    """A body has more than ``limit`` octets."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's body is longer than {limit} octets")
        self.limit = limit


def read_whole(request: Any, limit: int) -> Deferred[bytes]:
    """The body of ``request`` (a ``front.Request``), if it has at most ``limit`` octets.

    Sends ``100 Continue`` where that is due; so who must not send its body is to be refused
    before.  Fails with BodyTooLong: at once, and without the 100, where the length says so.
    ``request.when_gone`` stays the caller's, who cancels the Deferred by it.
    """
    length = request.head.content_length
    body = WholeBody(request, limit)
    if length is not None and length > limit:
        body.refuse()
    else:
        request.send_continue()
        request.receive_body(body)
    return body.read


class WholeBody:
    """Collects a body; ``read`` fires with it.  It never holds more than ``limit`` octets."""

    __slots__ = ("_collected", "_limit", "_request", "read")

    def __init__(self, request: Any, limit: int) -> None:
        self._request = request
        self._limit = limit
        self._collected = bytearray()
        self.read: Deferred[bytes] = Deferred(self._cancelled)

    def body_data(self, data: bytes) -> None:
        """Some octets of the body."""
        if self.read.called:
            return  # refused or cancelled: nobody wants the rest
        if len(self._collected) + len(data) > self._limit:
            # The rest stays with the client until somebody answers.
            self._request.body_producer.pauseProducing()
            self.refuse()
        else:
            self._collected += data

    def body_end(self) -> None:
        """The body is whole."""
        if not self.read.called:
            body = bytes(self._collected)
            self._collected.clear()
            self.read.callback(body)

    def refuse(self) -> None:
        """It is longer than the limit."""
        self._collected.clear()
        self.read.errback(BodyTooLong(self._limit))

    def _cancelled(self, read: Deferred[bytes]) -> None:
        self._collected.clear()

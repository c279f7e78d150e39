"""A small body, read whole before its request goes on: what a manifest says must be known first."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred

from regguard.relay.upstream import UpstreamFailure


class BodyTooLong(Exception):
    """A body has more than ``limit`` octets."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's body is longer than {limit} octets")
        self.limit = limit


class Allowance:
    """How many octets all bodies that are read whole may hold together.

    What has come counts, not what was announced: who sends nothing takes nothing from others.
    ``of_one`` is the most that one user's bodies may hold: who sends slowly leaves room, too.
    """

    __slots__ = ("_held", "_of_one", "free")

    def __init__(self, octets: int, of_one: int) -> None:
        self.free = octets
        self._of_one = of_one
        self._held: Counter[str] = Counter()

    def take(self, user_name: str, octets: int) -> bool:
        """Whether there was room for so many more, which are then to be given back."""
        if octets > self.free or self._held[user_name] + octets > self._of_one:
            return False
        self.free -= octets
        self._held[user_name] += octets
        return True

    def give_back(self, user_name: str, octets: int) -> None:
        """So many are held no more."""
        self.free += octets
        self._held[user_name] -= octets
        if not self._held[user_name]:
            del self._held[user_name]


def read_whole(request: Any, limit: int, allowance: Allowance) -> Deferred[bytes]:
    """The body of ``request`` (a ``front.Request``), if it has at most ``limit`` octets.

    Its octets are taken from the ``allowance`` in its user's name; the caller gives them back when
    the body is of no more use.  Nothing is taken where the Deferred fails.

    Sends ``100 Continue`` where that is due; so who must not send its body is to be refused
    before.  Fails with BodyTooLong: at once, and without the 100, where the length says so; and
    with UpstreamFailure, 503, where the allowance is used up.  ``request.when_gone`` stays the
    caller's, who cancels the Deferred by it.
    """
    length = request.head.content_length
    body = WholeBody(request, limit, allowance)
    if length is not None and length > limit:
        body.refuse(BodyTooLong(limit))
    else:
        request.send_continue()
        request.receive_body(body)
    return body.read


class WholeBody:
    """Collects a body; ``read`` fires with it.  It never holds more than ``limit`` octets."""

    __slots__ = ("_allowance", "_collected", "_limit", "_request", "read")

    def __init__(self, request: Any, limit: int, allowance: Allowance) -> None:
        self._request = request
        self._limit = limit
        self._allowance = allowance
        self._collected = bytearray()
        self.read: Deferred[bytes] = Deferred(self._cancelled)

    def body_data(self, data: bytes) -> None:
        """Some octets of the body."""
        if self.read.called:
            return  # refused or cancelled: nobody wants the rest
        why: Exception
        if len(self._collected) + len(data) > self._limit:
            why = BodyTooLong(self._limit)
        elif not self._allowance.take(self._request.user_name, len(data)):
            why = UpstreamFailure(503, "too many manifests are under way", "busy")
        else:
            self._collected += data
            return
        # The rest stays with the client until somebody answers.
        self._request.body_producer.pauseProducing()
        self.refuse(why)

    def body_end(self) -> None:
        """The body is whole."""
        if not self.read.called:
            body = bytes(self._collected)
            self._collected.clear()
            self.read.callback(body)

    def refuse(self, why: Exception) -> None:
        """It is not wanted."""
        self._drop()
        self.read.errback(why)

    def _cancelled(self, read: Deferred[bytes]) -> None:
        self._drop()

    def _drop(self) -> None:
        self._allowance.give_back(self._request.user_name, len(self._collected))
        self._collected.clear()

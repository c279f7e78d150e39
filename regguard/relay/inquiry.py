"""A question of regguard's own to the registry: does a tag exist, which repositories are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from regguard.http1 import Body, ResponseHead
from regguard.relay.headers import inquiry_request
from regguard.relay.sending import CHALLENGES, Sending
from regguard.relay.upstream import Upstream, UpstreamFailure

if TYPE_CHECKING:
    from regguard.relay.exchange import Relay


@dataclass(frozen=True, slots=True)
class Reply:
    """The registry's answer to a question; ``fields`` as in ``ResponseHead``."""

    status: int
    body: bytes
    fields: list[tuple[bytes, bytes, bytes]]

    def field(self, key: bytes) -> bytes | None:
        """The value of the field with a lower-case name; None where there is none.

        Several lines are one list (RFC 9110 section 5.3).  So no Link is lost, and a doubled
        Docker-Content-Digest, of which nobody could say which half counts, equals no digest.
        """
        values = [value for _, name, value in self.fields if name == key]
        return b", ".join(values) if values else None


class Inquiry(Sending):
    """One question under way; the taker of its answer.

    ``method`` is GET or HEAD; ``limit`` the most octets that the answer's body may have.  With 0
    the head alone is wanted: whatever body comes is neither awaited nor kept.
    """

    __slots__ = ("_answered", "_body", "_head", "_limit", "_lines", "_target")

    def __init__(
        self,
        relay: Relay,
        upstream: Upstream,
        method: bytes,
        target: bytes,
        lines: tuple[bytes, ...],
        user_name: str,
        limit: int,
    ) -> None:
        super().__init__(relay, upstream, method, user_name, body_done=True)
        self._target = target
        self._lines = lines
        self._limit = limit
        self._body = bytearray()
        self._head: ResponseHead | None = None
        self._answered: Deferred[Reply] = Deferred(lambda _: self._end())

    def __repr__(self) -> str:
        state = "over" if self._over else "connecting" if self._connection is None else "waiting"
        return f"<Inquiry {self._method.decode('ascii')} {state}>"

    def ask(self) -> Deferred[Reply]:
        """Send the question.  Fails with UpstreamFailure; cancelling cuts the connection."""
        self.start()
        return self._answered

    def _compose(self, upstream: Upstream) -> bytes:
        address = upstream.address
        origin = self._relay.origin or address.origin
        return inquiry_request(
            self._method,
            self._target,
            self._lines,
            user_name=self.user_name,
            authority=origin.authority,
            credential=address.credential,
        )

    def response_started(self, head: ResponseHead, body: Body, data: bytes) -> None:
        """The registry answers."""
        if head.status in CHALLENGES:
            self._challenged()
            return
        self._head = head
        if body.complete:
            self._connection = None  # it is at rest, and no longer ours
        if self._limit:
            self.response_data(data)
        if not self._over and (body.complete or not self._limit):
            self._succeed(head)

    def response_data(self, data: bytes) -> None:
        """More of the answer's body."""
        self.waiting_since = self._relay.now
        self._body += data
        if len(self._body) > self._limit:
            self._fail(UpstreamFailure(502, "the registry's answer is too long"))

    def response_finished(self) -> None:
        """The answer is whole."""
        self._connection = None
        assert self._head is not None
        self._succeed(self._head)

    def _succeed(self, head: ResponseHead) -> None:
        self._end()
        self._answered.callback(Reply(head.status, bytes(self._body), head.fields))

    def _fail(self, failure: UpstreamFailure) -> None:
        # The end of one sending may have ended others, which are still to be told of a stop.
        if not self._over:
            self._relay.failures[failure.kind] += 1
            self._end()
            self._answered.errback(failure)

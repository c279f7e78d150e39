"""One request to the registry: over which connection, how often, and when that failed.

What may be repeated and what not (RFC 9110 section 9.2.2): GET and HEAD without a body go over
a kept-alive connection, and once more over a fresh one if that had gone stale, or to the next
registry if this one ended without a word.  Everything else gets a fresh connection and is never
sent twice.  A registry that can't be connected to was sent nothing, so the next one may be asked,
whatever the request is; and where there is no other, one that seems to restart is asked again.

``Exchange`` relays a client's request by it, ``Inquiry`` asks a question of regguard's own.
"""

from __future__ import annotations

from abc import abstractmethod
from errno import ENOENT
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from regguard.relay.upstream import (
    Answering,
    Upstream,
    UpstreamConnection,
    UpstreamFailure,
    lacks_socket,
)

if TYPE_CHECKING:
    from regguard.relay.exchange import Relay

READS = (b"GET", b"HEAD")
CHALLENGES = (401, 407)

TRY_FOR = 8.0
"""Seconds after which no other registry is tried: with CONNECT_TIMEOUT two silent ones take 10 s,
and docker's login has 15."""

KNOCKS, PAUSE = 7, 0.1
"""How often, and after how many seconds each, a registry that restarts is tried again.  Engines
take a 502 for the last word, so it is worth a wait; but nobody waits a second for it."""

_LOG = Logger(namespace="regguard.relay")


class Sending(Answering):
    """A request on its way to the registry.

    ``upstream`` is asked first, on behalf of the user; ``body_done`` says that nothing will follow
    what ``_compose`` gives.
    """

    __slots__ = (
        "_body_done",
        "_connecting",
        "_connection",
        "_knocks",
        "_method",
        "_octets",
        "_over",
        "_relay",
        "_retriable",
        "_tried",
        "_upstream",
        "sent_at",
        "user_name",
        "waiting_since",
    )

    def __init__(
        self, relay: Relay, upstream: Upstream, method: bytes, user_name: str, body_done: bool
    ) -> None:
        self._relay = relay
        self.user_name = user_name
        self._upstream = upstream
        self._tried: tuple[Upstream, ...] = ()
        self._method = method
        self._knocks = 0
        self._octets = b""
        self._body_done = body_done
        self._retriable = body_done and method in READS
        self._connecting: Deferred[UpstreamConnection] | None = None
        self._connection: UpstreamConnection | None = None
        self._over = False
        self.sent_at = 0.0
        self.waiting_since = relay.now

    def start(self) -> None:
        """Send the request over a kept-alive connection or a fresh one."""
        self._octets = self._compose(self._upstream)
        self._relay.begins(self)
        self._try()

    @abstractmethod
    def _compose(self, upstream: Upstream) -> bytes:
        """The head for a registry, with the body behind it where that is there already."""

    def _try(self) -> None:
        if self._retriable:
            connection = self._upstream.idle_connection()
            if connection is not None:
                self._send(connection)
                return
        self._connect()

    def _try_next(self) -> bool:
        """Turn to a registry that was not tried yet, if there is one and time for it."""
        tried = (*self._tried, self._upstream)
        upstream = self._relay.upstreams.next(tried)
        if upstream is None or self._relay.clock.seconds() - self.waiting_since >= TRY_FOR:
            return False
        self._tried = tried
        self._upstream = upstream
        self._octets = self._compose(upstream)
        self._try()
        return True

    def _connect(self) -> None:
        self._await(self._upstream.connect())

    def _await(self, connecting: Deferred[UpstreamConnection]) -> None:
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._not_connected)
        connecting.addErrback(self._fault)

    def _connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        if self._over:
            connection.abort()
        else:
            self._send(connection)

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if self._over or self._try_next() or self._knock_again(failure):
            return
        if lacks_socket(failure):
            self._fail(UpstreamFailure(503, "no socket is left to reach the registry", "socket"))
        elif failure.check(TimeoutError, TCPTimedOutError):
            self._fail(
                UpstreamFailure(
                    504, "the registry does not answer connections", "timeout", is_logged=True
                )
            )
        elif failure.check(ConnectError):
            self._fail(
                UpstreamFailure(502, "the registry refuses connections", "refused", is_logged=True)
            )
        else:
            self._fail(
                UpstreamFailure(
                    502, "the registry cannot be reached", "unreachable", is_logged=True
                )
            )

    def _knock_again(self, failure: Failure) -> bool:
        """Wait a moment for a registry that restarts."""
        upstream = self._upstream
        if (
            self._tried
            or self._knocks >= KNOCKS
            or not (_refused(failure) and upstream.was_just_there)
        ):
            return False
        self._knocks += 1
        waiting: Deferred[Any] = deferLater(self._relay.clock, PAUSE, upstream.connect)
        self._await(waiting)
        return True

    def _fault(self, failure: Failure) -> None:
        _LOG.failure("fault in an exchange", failure=failure)
        if not self._over:
            self._fail(UpstreamFailure(502, "internal error", "fault"))

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self.waiting_since = self._relay.now
        self.sent_at = self._relay.clock.seconds()
        connection.begin(self, self._method, self._octets)
        connection.request_sent = self._body_done

    def _challenged(self) -> None:
        """The registry has its own access control, which nobody here can satisfy.

        Its challenge would lead clients to send passwords elsewhere.
        """
        self._fail(UpstreamFailure(502, "the registry asks regguard for credentials"))

    def response_lost(self, failure: UpstreamFailure, untouched: bool) -> None:
        """The registry went away."""
        connection = self._connection
        if untouched and self._retriable and connection is not None:
            self._connection = None
            self.waiting_since = self._relay.now
            if connection.reused:
                # It had gone stale; a fresh one tells whether the registry is there.
                self._connect()
                return
            if self._try_next():
                return
        self._fail(failure)

    def check_silence(self, now: float, limit: float) -> None:
        """Fail if the registry said nothing since ``limit``; called about once a second."""
        if self.waiting_since <= limit:
            self._fail(UpstreamFailure(504, "the registry is silent", "silent"))

    def relay_stops(self) -> None:
        """No time is left."""
        self._fail(UpstreamFailure(503, "regguard is going down", "stopping"))

    @abstractmethod
    def _fail(self, failure: UpstreamFailure) -> None:
        """End, and tell whoever waits for the answer."""

    def _end(self) -> None:
        """Let go of the connection: an answer that still comes is for nobody."""
        self._relay.ends(self)
        self._over = True
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


def _refused(failure: Failure) -> bool:
    """Nobody listens: not at this port, or not yet at a UNIX socket of that name."""
    if failure.check(ConnectionRefusedError):
        return True
    error = failure.value
    return isinstance(error, ConnectError) and error.osError == ENOENT

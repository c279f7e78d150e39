"""One stream through the real door, guard and relay, in memory, before a registry that notes all.

A world is used for many streams; each of them has to leave it empty.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import implementer

from regguard.access import Access, Denial, Grant, Policy, Rule, Who
from regguard.auth.basic import decode_basic
from regguard.auth.interfaces import Unauthenticated
from regguard.auth.realm import User
from tests.canary import CANARY
from tests.fuzz.plan import Plan
from tests.fuzz.reading import Head, Unreadable, read_upstream_body, read_upstream_head
from tests.guard.world import D, Guarded
from tests.relay.world import Peer

SECRET = b"/v2/secret/"
"""Only the writer may do anything with this and what is below it."""

MINUTES = 4
"""Minutes after which a request must have ended, with what it leaves behind: the longest chain is
a silent registry (100 s), an answer, and a client that lingers or lets us idle."""

_USERS = {
    "reader": User("reader", frozenset()),
    "writer": User("writer", frozenset({"pusher"})),
    "late": User("late", frozenset({"pusher"})),
}


def policy() -> Witness:
    """Hidden repositories and immutable tags: what asks the registry questions of its own."""
    writer = Who.parse("user:writer")
    return Witness(
        rules=[
            Rule(("secret", "secret/**"), writer, writer, writer, hide=True),
            Rule(("kept/**",), immutable=("v*",)),
        ]
    )


class Witness(Policy):
    """Notes every verdict."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self.verdicts: list[tuple[str, Access, Grant | Denial]] = []

    def decide(self, name: str, groups: frozenset[str], access: Access) -> Grant | Denial:
        verdict = super().decide(name, groups, access)
        self.verdicts.append((name, access, verdict))
        return verdict


@dataclass
class Received:
    """A request at the registry; ``serial`` counts from 1 in each stream."""

    serial: int
    head: Head
    octets: bytes
    raw_body: bytearray
    body: bytes = b""
    whole: bool = False
    status: bytes = b""
    #: Whether the target is that of a hidden repository, for which another name arrived.
    stands_in: bool = False

    @property
    def is_inquiry(self) -> bool:
        """Whether regguard asked it by itself."""
        return not self.head.all(b"x-forwarded-for")


class Link:
    """One connection at the registry."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.requests: list[Received] = []
        self.partial = b""
        self.ended_first = False

    def read(self, registry: Registry) -> bool:
        """Take what has come; tells whether anything has."""
        octets = self.partial + self.peer.take()
        if octets == self.partial:
            return False
        self.partial = b""
        while octets:
            last = self.requests[-1] if self.requests else None
            if last is None or (last.whole and last.status):
                end = octets.find(b"\r\n\r\n") + 4
                if end == 3:
                    self.partial = octets
                    break
                head = read_upstream_head(octets[:end])
                last = Received(registry.next_serial(), head, octets[:end], bytearray())
                self.requests.append(last)
                registry.received.append(last)
                octets = octets[end:]
            elif last.whole:
                raise Unreadable("octets behind a request that is not answered yet")
            last.raw_body += octets
            last.body, last.whole, octets = read_upstream_body(last.head, bytes(last.raw_body))
            if octets:
                del last.raw_body[-len(octets) :]
        return True

    def answer(self, plan: Plan) -> None:
        """Answer the last request."""
        request = self.requests[-1]
        octets, closes = answer_to(request, plan.answers[request.serial % len(plan.answers)])
        request.status = octets[9:12]
        self.peer.send(octets)
        if closes:
            self.ended_first = True
            self.peer.end()
        elif not request.whole and self.peer.is_open:
            raise Unreadable("kept open, with a body that is owed")


def answer_to(request: Received, kind: int) -> tuple[bytes, bool]:
    """What the registry says, and whether it closes then."""
    method, kind = request.head.method, kind % 20
    lines = [b"X-Serial: %d" % request.serial, b"Docker-Distribution-Api-Version: registry/2.0"]
    body, status, closes, chunked = b"", b"200 OK", kind == 0, False
    if not request.whole:
        status, body = b"413 Request Entity Too Large", b"{}"
    elif kind == 1:
        status, body = b"404 Not Found", b'{"errors":[]}'
    elif kind == 2:
        status, body = b"401 Unauthorized", b"{}"
    elif request.is_inquiry and method == b"GET":
        body = b'{"name":"a","tags":["latest","v1"],"repositories":["a","secret/app"]}'
    elif method in (b"GET", b"HEAD"):
        body, chunked = b"\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" * (kind % 3), kind in (3, 4, 5)
        lines.append(b"Docker-Content-Digest: " + D)
        if kind == 6:
            status, body = b"304 Not Modified", b""
    else:
        status = {b"PUT": b"201 Created", b"PATCH": b"204 No Content"}.get(method, b"202 Accepted")
        lines.append(b"Location: http://127.0.0.1:5000/v2/a/blobs/uploads/6b3c?_state=x")
    until_close = kind == 7 and method == b"GET"
    if closes or until_close:
        lines.append(b"Connection: close")
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
        body = b"%x;ext=1\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif not until_close and not status.startswith((b"204", b"304")):
        lines.append(b"Content-Length: %d" % len(body))
    if method == b"HEAD":
        body = b""
    head = b"\r\n".join((b"HTTP/1.1 " + status, *lines, b"", b""))
    return head + body, closes or until_close


@dataclass
class Registry:
    """All connections of one stream."""

    plan: Plan
    links: list[Link] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)

    def next_serial(self) -> int:
        """The number of the next request."""
        return len(self.received) + 1

    def work(self, connections: list[Peer], *, is_late: bool = False) -> None:
        """Read and answer until nothing moves any more."""
        moved = True
        while moved:
            moved = False
            while len(self.links) < len(connections):
                self.links.append(Link(connections[len(self.links)]))
            for link in self.links:
                moved |= link.read(self)
            for link in self.links:
                if self._may_answer(link, is_late):
                    link.answer(self.plan)
                    moved = True

    def _may_answer(self, link: Link, is_late: bool) -> bool:
        if not link.requests or link.requests[-1].status or not link.peer.is_open:
            return False
        timing, request = self.plan.timing, link.requests[-1]
        if timing == "early":
            return True
        return request.whole and (timing == "prompt" or (timing == "late" and is_late))


@dataclass
class Ended:
    """A request that the door told the log about."""

    head: Any
    status: int


@dataclass
class Record:
    """All that was seen of one stream."""

    plan: Plan
    registry: Registry
    ended: list[Ended]
    verdicts: list[tuple[str, Access, Grant | Denial]]
    #: What the names come from that stand in for hidden repositories'.
    key: bytes
    answer: bytes = b""
    fin: bool = False
    rst: bool = False
    broken: str = ""
    left: list[str] = field(default_factory=list)
    closed: bool = False


class World:
    """Takes one stream after the other."""

    def __init__(self) -> None:
        self.policy = policy()
        self._guarded = Guarded(self.policy)
        self._world = self._guarded.world
        # The tests' own table, and logins that take a turn.
        self._guarded.authenticator.authenticate = self._authenticate  # type: ignore[method-assign]
        self._world.site.log = self._ended
        self._log: list[Ended] = []

    def _ended(self, request: Any) -> None:
        self._log.append(Ended(request.head, request.status))

    def _authenticate(self, authorization: bytes | None, client: str) -> User | Deferred[User]:
        if authorization is None:
            raise Unauthenticated("no credentials")
        name, password = decode_basic(authorization)
        user = _USERS.get(name)
        if user is None or password != CANARY:
            raise Unauthenticated("wrong user name or password")
        if name != "late":
            return user
        waiting: Deferred[User] = Deferred(lambda _: verified.cancel())
        verified = self._world.reactor.callLater(0, waiting.callback, user)
        return waiting

    def run(self, plan: Plan) -> Record:
        """Let it happen; what is raised on the way is a finding."""
        reactor, registry = self._world.reactor, self._guarded.registry
        self._log = []
        self.policy.verdicts = []
        reactor.peers.clear()
        registry.connections.clear()
        registry.capacity = plan.registry_room
        registry.failure = ConnectionRefusedError() if plan.refuses else None
        record = Record(
            plan, Registry(plan), self._log, self.policy.verdicts, self._guarded.guard._key
        )
        try:
            self._run(plan, record)
        except Unreadable as error:
            record.broken = f"unreadable upstream: {error}"
        return record

    def _run(self, plan: Plan, record: Record) -> None:
        reactor, registry = self._world.reactor, record.registry
        connections = self._guarded.registry.connections
        client = self._world.client(capacity=plan.client_room)
        pauses = plan.pauses or (0,) * len(plan.pieces)
        for piece, pause in zip(plan.pieces, pauses, strict=False):
            if pause:
                reactor.advance(pause)
                reactor.turn()
                registry.work(connections)
            client.send(piece)
            registry.work(connections)
        if plan.ending == "reset":
            client.reset()
        elif plan.ending == "fin":
            client.end()
        registry.work(connections, is_late=True)
        heads = plan.stream.count(b"\r\n\r\n")
        for _ in range(MINUTES * (heads + 1)):
            # A minute in which the watches looked each second, and found nothing due.
            self._world.site.now = self._world.relay.now = reactor.seconds() + 60
            reactor.advance(61)
            reactor.turn()
            registry.work(connections, is_late=True)
            record.left = self._left()
            if not record.left:
                break
        record.answer = bytes(client.received)
        record.fin, record.rst = client.was_ended, client.was_reset

    def _left(self) -> list[str]:
        """What should not be there any more; the two watches are the only timers."""
        reactor, world = self._world.reactor, self._world
        left = [repr(each) for each in (*world.relay.exchanges, *world.site.channels)]
        left += [f"timer {call!r}" for call in reactor.getDelayedCalls()[2:]]
        left += [f"reader {each.socket!r}" for each in reactor.readers]
        left += [f"writer {each.socket!r}" for each in reactor.writers]
        return left + [f"socket {each.socket}" for each in reactor.peers if each.socket.open]

    def close(self) -> None:
        """Stop everything."""
        self._world.close()


@implementer(ILogObserver)
class Faults:
    """What the log was told of failures; a Deferred's comes when it is collected."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self.seen.append(event["log_failure"].getTraceback())
        elif event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self.seen.append(repr(event))

    def __enter__(self) -> Faults:
        gc.collect()
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)

    def take(self, *, collect: bool = False) -> list[str]:
        """What came since the last time."""
        if collect:
            gc.collect()
        seen, self.seen = self.seen, []
        return seen

"""The guard in the world of ``tests.relay.world``."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.internet.defer import Deferred

from regguard.access import Policy
from regguard.auth.interfaces import Unauthenticated
from regguard.auth.realm import User
from regguard.guard import HOLD, GuardResource
from tests.canary import CANARY
from tests.relay.world import Answer, Peer, World, read_answers

D = b"sha256:" + b"0123456789abcdef" * 4


class Authenticator:
    """Knows reader and writer by themselves; ``later`` lets the test decide, by a Deferred."""

    def __init__(self) -> None:
        self.asked: list[bytes | None] = []
        self.later: list[Deferred[User]] | None = None
        self.failure: BaseException | None = None
        self.cancelled = 0

    def authenticate(self, authorization: bytes | None, client: str) -> User | Deferred[User]:
        self.asked.append(authorization)
        if self.failure is not None:
            raise self.failure
        if authorization is None:
            raise Unauthenticated("no credentials")
        if self.later is not None:
            waiting: Deferred[User] = Deferred(self._cancel)
            self.later.append(waiting)
            return waiting
        for user in (READER, WRITER):
            if authorization == credential(user.name):
                return user
        raise Unauthenticated("wrong user name or password")

    def certified(self, name: str) -> User:
        return User(name, frozenset())

    def _cancel(self, waiting: Deferred[User]) -> None:
        self.cancelled += 1


READER = User("reader", frozenset())
WRITER = User("writer", frozenset({"pusher"}))


def credential(name: str) -> bytes:
    """The value of Authorization for a user."""
    return b"Basic " + b64encode(name.encode() + f":{CANARY}".encode())


def request(
    method: bytes, target: bytes, *lines: bytes, user: str | None = "reader", body: bytes = b""
) -> bytes:
    """A whole request."""
    head = [method + b" " + target + b" HTTP/1.1", b"Host: r.example", *lines]
    if user is not None:
        head.append(b"Authorization: " + credential(user))
    if body:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*head, b"", body])


class Guarded:
    """A world whose door leads to a guard."""

    def __init__(self, policy: Policy | None = None, realm: str = "Registry") -> None:
        self.authenticator = Authenticator()
        fake: Any = self.authenticator
        self.world = World()
        self.guard = GuardResource(fake, policy or Policy(), realm, self.world.reactor)
        self.world.site.resource = self.guard
        self.world.relay.on_failure = self.guard.upstream_failed
        self.guard.relay_through(self.world.relay)
        self.registry = self.world.registry

    def wait_for_held_answers(self) -> None:
        """Let the time pass for which the guard holds an answer back."""
        self.world.reactor.pass_time(2 * HOLD)

    def ask(self, octets: bytes, *methods: bytes) -> Answer:
        """Send one request over a connection of its own; its answer."""
        client = self.world.client()
        client.send(octets)
        return self.answer_of(client, *methods or (octets.split(b" ")[0],))

    def answer_of(self, client: Peer, *methods: bytes) -> Answer:
        """The one answer that the client has got."""
        [answer] = read_answers(client.take(), *methods, ended=client.was_ended)
        return answer

"""regguard.guard: what becomes of a log-in that is not granted."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from twisted.internet.defer import Deferred

from regguard.access import Policy, Who
from regguard.auth.interfaces import CheckerFailed, Overloaded, Throttled
from regguard.auth.realm import User
from regguard.guard import HOLD, GuardResource
from tests.relay.world import Peer, World, read_answer

REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Basic eDp5\r\n\r\n"
EVERYBODY = Who.parse("valid-user")


class Authenticator:
    """Says what a test tells it to; remembers who was asked about."""

    def __init__(self) -> None:
        self.say: Callable[[], User | Deferred[User]] = lambda: User("ci", frozenset())
        self.asked: list[tuple[bytes | None, str]] = []

    def authenticate(self, authorization: bytes | None, client: str) -> User | Deferred[User]:
        self.asked.append((authorization, client))
        return self.say()


class House:
    """A guard in a world in memory."""

    def __init__(self) -> None:
        self.world = World()
        self.authenticator = Authenticator()
        guard = GuardResource(
            self.authenticator,  # type: ignore[arg-type]
            Policy(EVERYBODY, EVERYBODY, EVERYBODY, EVERYBODY),
            "Registry",
            self.world.reactor,
        )
        guard.relay_through(self.world.relay)
        self.world.site.resource = guard

    def ask(self, request: bytes = REQUEST) -> Peer:
        client = self.world.client()
        client.send(request)
        return client

    def throttle(self, retry_after: int = 287) -> None:
        def say() -> User:
            raise Throttled("too many wrong passwords", retry_after, False)

        self.authenticator.say = say


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.world.close()


def test_the_authenticator_is_told_the_clients_address(house: House) -> None:
    """Counting by network needs it."""
    house.ask()

    assert house.authenticator.asked == [(b"Basic " + b64encode(b"x:y"), "192.0.2.7")]


def test_e12_throttled_is_429_with_the_time_to_wait(house: House) -> None:
    """OCI's TOOMANYREQUESTS, with a message that docker prints; nothing goes upstream."""
    house.throttle()

    client = house.ask()
    house.world.reactor.pass_time(2 * HOLD)

    answer = read_answer(client.take())
    assert (answer.status, answer[b"Retry-After"]) == (429, b"287")
    assert answer[b"Docker-Distribution-Api-Version"] == b"registry/2.0"
    (error,) = json.loads(answer.body)["errors"]
    assert error["code"] == "TOOMANYREQUESTS"
    assert error["message"] == "too many wrong passwords; try again in 287 s"
    assert house.world.registry.connections == []


@pytest.mark.parametrize("undecided", [Overloaded, CheckerFailed])
def test_no_telling_is_503_with_the_time_to_wait(
    house: House, undecided: type[Overloaded] | type[CheckerFailed]
) -> None:
    """Not 401: docker would tell its user that the password is wrong."""
    waiting: Deferred[User] = Deferred()
    house.authenticator.say = lambda: waiting
    client = house.ask()
    waiting.errback(undecided())
    house.world.reactor.pass_time(2 * HOLD)

    answer = read_answer(client.take())

    assert (answer.status, answer[b"Retry-After"]) == (503, b"5")
    assert json.loads(answer.body)["errors"][0]["code"] == "UNAVAILABLE"


def test_e11_a_flood_is_held_back_and_spread(house: House) -> None:
    """No answer before its time, and not all at the same: the others' requests fit between."""
    house.throttle()
    for _ in range(50):
        house.ask()

    house.world.reactor.pass_time(0.99 * HOLD)
    answered = [len(house.world.ended)]
    for _ in range(10):
        house.world.reactor.pass_time(HOLD / 10)
        answered.append(len(house.world.ended))

    assert (answered[0], answered[-1]) == (0, 50)
    assert max(later - sooner for sooner, later in pairwise(answered)) <= 11


def test_who_hangs_up_while_held_leaves_nothing_behind(house: House) -> None:
    """The answer is forgotten with its client; ``close`` finds a timer otherwise."""
    house.throttle()
    client = house.ask()

    client.reset()
    house.world.reactor.turn()

    assert [ended.status for ended in house.world.ended] == [0]


def test_who_is_known_is_not_held_back(house: House) -> None:
    """Their requests go on at once, whatever becomes of others."""
    house.throttle()
    house.ask()
    house.authenticator.say = lambda: User("ci", frozenset())

    house.ask()

    assert len(house.world.registry.connections) == 1

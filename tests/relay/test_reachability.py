"""regguard.relay.reachability: whether a registry takes connections, without a flood of tries."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from regguard.relay import Upstream
from regguard.relay.reachability import HOLD, LIMIT, Reachability
from tests.relay.world import OK, World, get, read_answer


class Registry:
    """Takes a connection when the test says so."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.knocks: list[Deferred[None]] = []

    def knock(self) -> Deferred[None]:
        self.knocks.append(Deferred())
        return self.knocks[-1]

    def opens(self) -> None:
        self.knocks[-1].callback(None)

    def refuses(self) -> None:
        self.knocks[-1].errback(ConnectionRefusedError("Connection refused"))


class Place:
    """Some registries, and who asks for them."""

    def __init__(self, *addresses: str) -> None:
        self.clock = Clock()
        self.registries = [Registry(address) for address in addresses]
        self.reachability = Reachability(cast("list[Upstream]", self.registries), self.clock)

    def ask(self) -> list[list[str]]:
        """The answer, once it is there."""
        answers: list[list[str]] = []
        self.reachability.complaints().addCallback(answers.append)
        return answers


def test_a_registry_that_takes_a_connection_is_reached() -> None:
    """There is nothing to complain of."""
    place = Place("a")
    answers = place.ask()
    assert answers == []
    place.registries[0].opens()

    assert answers == [[]]


def test_one_of_several_is_enough_and_the_others_are_not_waited_for() -> None:
    """A silent one would take longer than a probe waits."""
    place = Place("a", "b", "c")
    answers = place.ask()
    place.registries[0].refuses()
    assert answers == []
    place.registries[2].opens()

    assert answers == [[]]
    place.clock.advance(LIMIT)  # the silent one's time
    assert answers == [[]]


def test_where_none_is_reached_each_is_named_with_the_reason() -> None:
    """Refused, or silent for too long."""
    place = Place("a", "b")
    answers = place.ask()
    place.registries[0].refuses()
    place.clock.advance(LIMIT - 0.1)
    assert answers == []
    place.clock.advance(0.1)

    [[refused, silent]] = answers
    assert refused.startswith("the registry a cannot be reached: Connection was refused")
    assert silent.startswith("the registry b cannot be reached: ")
    assert "no connection in 2 s" in silent


def test_a_flood_of_probes_is_one_look() -> None:
    """All who ask meanwhile have its answer, and for a while all who ask after it."""
    place = Place("a")
    (registry,) = place.registries
    waiting = [place.ask() for _ in range(1000)]
    registry.opens()
    place.clock.advance(HOLD - 0.01)

    assert [*waiting, place.ask()] == [[[]]] * 1001
    assert len(registry.knocks) == 1


def test_an_outcome_does_not_hold_for_long() -> None:
    """One that is back counts within a second, and so does one that went."""
    place = Place("a")
    (registry,) = place.registries
    place.ask()
    registry.refuses()
    for opens in (True, False):
        place.clock.advance(HOLD)
        answers = place.ask()
        if opens:
            registry.opens()
        else:
            registry.refuses()
        assert (answers == [[]]) is opens
    assert HOLD < 1


def test_who_asked_may_leave() -> None:
    """The look goes on for the others."""
    place = Place("a")
    place.reachability.complaints().addErrback(lambda _: None).cancel()
    answers = place.ask()
    place.registries[0].opens()

    assert answers == [[]]
    assert len(place.registries[0].knocks) == 1


@pytest.mark.parametrize("idle", [False, True])
def test_a_knock_leaves_nothing_behind(world: World, idle: bool) -> None:
    """The connection is closed, not kept: probes shall not fill the registry with idle ones."""
    if idle:
        client = world.client()
        client.send(get())
        world.registry.last.send(OK)
        assert read_answer(client.take()).body == b"ok"
    before = list(world.registry.open)
    knocked: list[Any] = []
    world.upstream.knock().addCallback(knocked.append)
    world.reactor.turn()

    assert knocked == [None]
    assert world.registry.last not in before
    assert world.registry.last.take() == b""
    assert world.registry.open == before

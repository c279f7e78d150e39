"""What the relay counts of a registry that does not answer as it should."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet import error

from regguard.relay import exchange as exchange_module
from tests.relay.world import OK, World, get, read_answer, refused

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


def counted(world: World) -> dict[str, int]:
    """The kinds that were counted, and how often."""
    return {kind: number for kind, number in world.relay.failures.items() if number}


def refuse(why: BaseException) -> Callable[[World], None]:
    """Let no connection come about, for this reason."""

    def happen(world: World) -> None:
        world.registry.accepting = False
        world.client().send(get())
        world.registry.refuse(why)

    return happen


def answer(octets: bytes, *, end: bool = False) -> Callable[[World], None]:
    """Send this instead of an answer."""

    def happen(world: World) -> None:
        world.client().send(get(method=b"POST"))
        world.registry.last.send(octets)
        if end:
            world.registry.last.end()

    return happen


def be_silent(world: World) -> None:
    world.client().send(get())
    world.reactor.pass_time(102)


def stop(world: World) -> None:
    world.client().send(get())
    world.relay.stop()
    world.reactor.turn()


@pytest.mark.parametrize(
    ("happen", "kind"),
    [
        (refuse(refused()), "refused"),
        (refuse(error.TimeoutError()), "timeout"),
        (refuse(error.DNSLookupError("no such host")), "unreachable"),
        (refuse(error.ConnectBindError()), "socket"),
        (answer(b"", end=True), "closed"),
        (answer(HEAD + b"abc", end=True), "cut"),
        (answer(b"garbage\r\n\r\n"), "answer"),
        (answer(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"), "answer"),
        (answer(HEAD.replace(b"\r\n\r\n", b"\r\nLocation: ftp://x\r\n\r\n")), "answer"),
        (be_silent, "silent"),
        (stop, "stopping"),
    ],
)
def test_failures_are_counted_by_kind(
    world: World, happen: Callable[[World], None], kind: str
) -> None:
    """Each once, whatever the client hears."""
    happen(world)

    assert counted(world) == {kind: 1}


def test_what_goes_well_is_no_failure(world: World) -> None:
    """Nor is an error that the registry answers, nor a client that leaves."""
    for status in (b"200", b"404", b"503"):
        client = world.client()
        client.send(get())
        world.registry.last.send(OK.replace(b"200", status))
        assert read_answer(client.take()).status == int(status)
    client = world.client()
    client.send(get())
    client.reset()

    assert counted(world) == {}


def test_who_finds_no_room_is_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of requests under way."""
    monkeypatch.setattr(exchange_module, "MAX_EXCHANGES", 1)
    monkeypatch.setattr(exchange_module, "MAX_OF_ONE", 1)
    for _ in range(3):
        world.client().send(get())

    assert counted(world) == {"busy": 2}


def test_a_question_of_our_own_counts_too(world: World) -> None:
    """Whoever hears of its failure."""
    world.relay.ask(b"GET", b"/v2/_catalog", user_name="u", limit=9).addErrback(
        lambda failure: None
    )
    world.reactor.turn()
    world.registry.last.send(HEAD.replace(b"9", b"10") + b"0123456789")

    assert counted(world) == {"answer": 1}

"""What the registry does not have, and whoever relayed the request has a say about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from regguard import answers
from tests.relay.world import World, read_answer, read_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MISSING = b"HTTP/1.1 404 Not Found\r\nX-Theirs: yes\r\n"
THEIRS = MISSING + b"Content-Length: 6\r\n\r\ntheirs"


def get(*lines: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join(
        [method + b" /v2/a/manifests/1 HTTP/1.1", b"Host: r.example", *lines, b"", b""]
    )


class Finder:
    """A resource that relays, and answers itself, or asks elsewhere, where that finds nothing."""

    def __init__(self) -> None:
        self.relay: Any = None
        self.missing = 0
        self.elsewhere: bytes | None = None

    def render(self, request: Any) -> None:
        def missing() -> None:
            self.missing += 1
            assert request.live
            assert request.when_gone is None
            assert not request.status
            assert self.relay.exchanges == set()
            if self.elsewhere is None:
                request.answer(answers.error(404, "NAME_UNKNOWN", "ours"))
            else:
                self.relay.send(request, self.elsewhere, "alice", False)

        request.user_name = "alice"
        self.relay.send(request, request.head.target, "alice", False, on_error=missing)


@pytest.fixture
def finder() -> Finder:
    return Finder()


@pytest.fixture
def world(logged: list[Any], finder: Finder) -> Iterator[World]:
    """A world whose resource is the finder."""
    world = World(finder)
    finder.relay = world.relay
    yield world
    world.close()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (THEIRS, True),
        (MISSING + b"Transfer-Encoding: chunked\r\n\r\n6\r\ntheirs\r\n0\r\n\r\n", True),
        (MISSING + b"Connection: close\r\nContent-Length: 6\r\n\r\ntheirs", False),
        (THEIRS[:-1], False),
        (MISSING + b"\r\ntheirs", False),
    ],
)
def test_a_404_to_get_is_given_back(
    world: World, finder: Finder, answer: bytes, kept: bool
) -> None:
    """Nothing of it is seen; the connection is kept where the answer came whole."""
    client = world.client()
    client.send(get())
    world.registry.last.send(answer)

    ours = read_answer(client.take())
    assert (ours.status, ours.all(b"x-theirs")) == (404, [])
    assert b"ours" in ours.body
    assert b"theirs" not in ours.body
    assert finder.missing == 1
    assert (world.registry.open == [world.registry.last]) is kept
    assert world.registry.last.was_reset is not kept
    assert world.failures == []
    assert [each.status for each in world.ended] == [404]


def test_a_404_to_head_is_given_back(world: World, finder: Finder) -> None:
    """It never has a body: its connection is kept."""
    client = world.client()
    client.send(get(method=b"HEAD"))
    world.registry.last.send(THEIRS[:-6])

    assert read_answer(client.take(), b"HEAD").all(b"x-theirs") == []
    assert finder.missing == 1
    assert len(world.registry.open) == 1


@pytest.mark.parametrize("method", [b"PUT", b"POST", b"PATCH", b"DELETE"])
def test_a_404_to_a_write_is_relayed(world: World, finder: Finder, method: bytes) -> None:
    """It says what became of the write."""
    client = world.client()
    client.send(get(method=method))
    world.registry.last.send(THEIRS)

    assert read_answer(client.take(), method).body == b"theirs"
    assert finder.missing == 0


@pytest.mark.parametrize("status", [400, 403, 405, 410, 416, 429, 500, 503])
def test_any_other_error_is_given_back(world: World, finder: Finder, status: int) -> None:
    """Its words may tell as much as those of a 404."""
    client = world.client()
    client.send(get())
    world.registry.last.send(b"HTTP/1.1 %d X\r\nContent-Length: 6\r\n\r\ntheirs" % status)

    assert b"theirs" not in read_answer(client.take()).body
    assert finder.missing == 1


@pytest.mark.parametrize("status", [200, 206, 301, 307, 399])
def test_any_other_answer_is_relayed(world: World, finder: Finder, status: int) -> None:
    """As if there were no hook."""
    client = world.client()
    client.send(get())
    world.registry.last.send(b"HTTP/1.1 %d X\r\nContent-Length: 6\r\n\r\ntheirs" % status)

    answer = read_answer(client.take())
    assert (answer.status, answer.body) == (status, b"theirs")
    assert finder.missing == 0


def test_what_is_missing_may_be_looked_for_elsewhere(world: World, finder: Finder) -> None:
    """The request is as if it had never been sent: over the same connection, at once."""
    finder.elsewhere = b"/v2/b/manifests/1"
    client = world.client()
    client.send(get())
    registry = world.registry.last
    registry.take()
    registry.send(THEIRS)
    assert client.take() == b""
    assert read_request(registry.take()).target == b"/v2/b/manifests/1"
    registry.send(THEIRS)

    assert read_answer(client.take()).body == b"theirs"
    assert finder.missing == 1
    assert world.registry.connections == [registry]


def test_a_client_that_leaves_in_the_second_search_ends_it(world: World, finder: Finder) -> None:
    """The second exchange is told, and not the first."""
    finder.elsewhere = b"/v2/b/manifests/1"
    client = world.client()
    client.send(get())
    world.registry.last.send(THEIRS)
    client.reset()

    assert world.registry.last.was_reset
    assert world.relay.exchanges == set()


def test_i09_an_early_404_stops_the_body_of_a_get(world: World, finder: Finder) -> None:
    """A body does not make a GET see what others don't; and it is never ended."""
    client = world.client()
    client.send(get(b"Transfer-Encoding: chunked"), b"3\r\nabc\r\n")
    registry = world.registry.last
    registry.send(THEIRS)
    client.send(b"0\r\n\r\n")

    answer = read_answer(client.take())
    assert (answer.status, answer[b"connection"]) == (404, b"close")
    assert b"ours" in answer.body
    assert registry.was_reset
    assert not registry.take().endswith(b"0\r\n\r\n")
    assert finder.missing == 1


def test_i05_a_stale_connection_is_forgiven_before(world: World, finder: Finder) -> None:
    """The 404 of the second try counts."""
    client = world.client()
    client.send(get())
    world.registry.last.send(OK)
    client.take()
    client.send(get())
    world.registry.last.end()
    world.registry.last.send(THEIRS)

    assert b"ours" in read_answer(client.take()).body
    assert finder.missing == 1


def test_a_failure_is_no_404(world: World, finder: Finder) -> None:
    """It is answered as ever."""
    client = world.client()
    client.send(get())
    world.registry.last.send(MISSING)
    world.registry.last.end()

    assert read_answer(client.take()).status == 502
    assert finder.missing == 0

"""Small bodies that are read whole before their request goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from regguard import answers
from regguard.front import BodySink
from regguard.relay import Allowance, BodyTooLong, UpstreamFailure, read_whole
from regguard.relay.whole import WholeBody
from tests.relay.world import World, read_answer, read_answers, read_request

LIMIT = 100_000
TOGETHER = 250_000
MANIFEST = b"/v2/a/manifests/1"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


def put(*lines: bytes, method: bytes = b"PUT") -> bytes:
    return b"\r\n".join(
        [method + b" " + MANIFEST + b" HTTP/1.1", b"Host: r.example", *lines, b"", b""]
    )


def framed(body: bytes, kind: str) -> bytes:
    """A PUT of this body."""
    if kind == "length":
        return put(b"Content-Length: %d" % len(body)) + body
    chunks = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
    return put(b"Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n"


class Reader:
    """A resource that reads a body whole and relays it, or refuses it where it is too long."""

    def __init__(self) -> None:
        self.relay: Any = None
        self.read: list[bytes] = []
        self.failures: list[Any] = []
        self.reading: Deferred[Any] | None = None
        self.held: Any = None
        self.user_name = "alice"
        self.allowance = Allowance(TOGETHER, 2 * LIMIT + LIMIT // 2)

    def render(self, request: Any) -> None:
        request.user_name = self.user_name
        if request.head.method == b"GET":
            request.answer(answers.welcome())
            return
        self.reading = reading = read_whole(request, LIMIT, self.allowance)
        request.when_gone = lambda _: reading.cancel()
        self.reading.addCallbacks(self._go_on, self._stop, (request,), {}, (request,))

    def _go_on(self, body: bytes, request: Any) -> None:
        self.read.append(body)
        self.allowance.give_back(request.user_name, len(body))
        self.relay.send(request, request.head.target, request.user_name, False, body=body)

    def _stop(self, failure: Failure, request: Any) -> None:
        self.failures.append(failure.value)
        if failure.check(UpstreamFailure):
            self.relay.on_failure(request, failure.value)
        elif failure.check(BodyTooLong) and self.held is None:
            request.answer(answers.error(413, "SIZE_INVALID", failure.getErrorMessage()))
        self.held = request


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def world(logged: list[Any], reader: Reader) -> Iterator[World]:
    """A world whose resource is the reader."""
    world = World(reader)
    reader.relay = world.relay
    yield world
    world.close()
    assert reader.allowance.free == TOGETHER


def test_a_whole_body_is_a_sink() -> None:
    """As the door wants it."""
    sink: BodySink = WholeBody(None, 1, Allowance(1, 1))

    assert callable(sink.body_data)
    assert callable(sink.body_end)


# -- reading and relaying --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["length", "chunked"])
@pytest.mark.parametrize("length", [0, 1, 17, LIMIT])
def test_a_body_is_read_whole_and_goes_on_with_its_length(
    world: World, reader: Reader, kind: str, length: int
) -> None:
    """However the client framed it; up to and with the limit."""
    body = bytes(range(256)) * (length // 256) + bytes(length % 256)
    client = world.client()
    client.send(framed(body, kind))

    assert reader.read == [body]
    request = read_request(world.registry.last.take())
    assert (request.method, request.target, request.body) == (b"PUT", MANIFEST, body)
    assert (request.whole, request.rest) == (True, b"")
    assert request[b"content-length"] == b"%d" % length
    assert request.all(b"transfer-encoding") == []
    assert request.all(b"expect") == []
    world.registry.last.send(CREATED)
    assert read_answer(client.take(), b"PUT").status == 201
    assert client.is_open
    assert world.ended[0].body_bytes_in == length


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_a35_a_body_is_read_the_same_at_every_split(
    world: World, reader: Reader, kind: str
) -> None:
    """And nothing goes to the registry before its last octet is there."""
    sample = framed(b"manifest", kind)
    client = world.client()
    for cut in range(1, len(sample)):
        connections = len(world.registry.connections)
        client.send(sample[:cut])
        assert len(world.registry.connections) == connections
        client.send(sample[cut:])
        assert reader.read.pop() == b"manifest"
        world.registry.last.send(CREATED)
        assert read_answer(client.take(), b"PUT").status == 201


def test_the_next_request_on_the_connection_is_served(world: World, reader: Reader) -> None:
    """What stands behind the body is not of it."""
    client = world.client()
    client.send(framed(b"one", "chunked") + b"GET / HTTP/1.1\r\nHost: r\r\n\r\n")
    world.registry.last.send(CREATED)

    found = list(read_answers(client.take(), b"PUT", b"GET"))
    assert [each.status for each in found] == [201, 200]
    assert reader.read == [b"one"]


@pytest.mark.parametrize("method", [b"PUT", b"POST", b"PATCH", b"DELETE", b"GET"])
def test_a_given_body_gets_a_fresh_connection_and_is_sent_once(
    logged: list[Any], method: bytes
) -> None:
    """As any other body: the registry may have acted on the first."""

    class Giver:
        relay: Any = None

        def render(self, request: Any) -> None:
            body = b"given" if request.head.target == MANIFEST else None
            self.relay.send(request, request.head.target, "alice", False, body=body)

    giver = Giver()
    world = World(giver)
    giver.relay = world.relay
    client = world.client()
    client.send(b"GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n")
    idle = world.registry.last
    idle.take()
    idle.send(CREATED)
    client.take()
    client.send(put(method=method))
    assert idle.take() == b""
    assert read_request(world.registry.last.take()).body == b"given"
    world.registry.last.end()

    assert len(world.registry.connections) == 2
    assert read_answer(client.take(), method).status == 502
    world.close()


def test_a_connection_is_kept_after_a_given_body(world: World) -> None:
    """Its request was sent whole and its answer read whole."""
    client = world.client()
    client.send(framed(b"one", "chunked"))
    world.registry.last.send(CREATED)

    assert world.registry.open == [world.registry.last]


def test_a_registry_that_does_not_read_a_given_body_is_silent(world: World) -> None:
    """The client has done all it had to do."""
    world.registry.capacity = 1024
    world.registry.accepting = False
    client = world.client()
    client.send(framed(bytes(LIMIT), "length"))
    world.registry.accept()
    world.registry.last.reading = False
    world.reactor.pass_time(99)
    assert client.take() == b""
    world.reactor.pass_time(3)

    assert read_answer(client.take(), b"PUT").status == 504


# -- 100 Continue ----------------------------------------------------------------------------


def test_a23_continue_comes_when_the_body_is_wanted(world: World, reader: Reader) -> None:
    """Then, and once: the registry is not there yet."""
    client = world.client()
    client.send(put(b"Content-Length: 3", b"Expect: 100-continue"))
    assert client.take() == CONTINUE
    assert world.registry.connections == []
    client.send(b"abc")
    assert client.take() == b""
    world.registry.last.send(CREATED)

    assert client.take().startswith(b"HTTP/1.1 201 ")


def test_a23_no_continue_for_a_body_that_is_too_long(world: World, reader: Reader) -> None:
    """The refusal comes instead, before a single octet."""
    client = world.client()
    client.send(put(b"Content-Length: %d" % (LIMIT + 1), b"Expect: 100-continue"))

    assert client.take().startswith(b"HTTP/1.1 413 ")
    assert reader.read == []


# -- too long --------------------------------------------------------------------------------


def in_memory(world: World) -> int:
    """Octets of bodies that the sinks of all channels hold."""
    sinks: list[Any] = [channel._sink for channel in world.site.channels]
    return sum(len(sink._collected) for sink in sinks if sink is not None)


def test_a_length_beyond_the_limit_is_refused_at_once(world: World, reader: Reader) -> None:
    """Without reading."""
    client = world.client()
    client.send(put(b"Content-Length: %d" % (LIMIT + 1)))

    assert read_answer(client.take(), b"PUT").status == 413
    [failure] = reader.failures
    assert isinstance(failure, BodyTooLong)
    assert (failure.limit, str(failure)) == (
        LIMIT,
        "the request's body is longer than 100000 octets",
    )
    assert world.registry.connections == []


def test_chunks_beyond_the_limit_are_refused_when_they_come(world: World, reader: Reader) -> None:
    """One octet too many; the connection ends with the answer."""
    client = world.client()
    client.send(put(b"Transfer-Encoding: chunked"), b"%x\r\n" % LIMIT + bytes(LIMIT) + b"\r\n")
    assert reader.failures == []
    client.send(b"1\r\nx\r\n")

    answer = read_answer(client.take(), b"PUT")
    assert (answer.status, answer[b"connection"]) == (413, b"close")
    assert world.registry.connections == []


def test_h03_no_more_than_the_limit_is_held(world: World, reader: Reader) -> None:
    """While nobody has answered yet, the rest of a body without end stays with the client."""
    reader.held = "nobody answers"
    client = world.client()
    client.send(put(b"Transfer-Encoding: chunked"))
    for _ in range(40):
        client.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        assert in_memory(world) <= LIMIT

    assert [type(failure) for failure in reader.failures] == [BodyTooLong]
    assert client.unread > 36 * 0x10000
    assert in_memory(world) == 0
    assert client.is_open
    reader.held.answer(answers.error(413, "SIZE_INVALID", "later"))
    world.reactor.turn()
    assert read_answer(client.take(), b"PUT").status == 413


def test_the_rest_of_a_refused_read_is_dropped(world: World, reader: Reader) -> None:
    """epoll may deliver once more after a pause; neither data nor an end counts any more."""
    reader.held = "nobody answers"
    client = world.client()
    client.send(put(b"Transfer-Encoding: chunked"))
    protocol = client.transport.protocol
    for _ in range(3):
        protocol.dataReceived(b"10000\r\n" + bytes(0x10000) + b"\r\n")
    protocol.dataReceived(b"0\r\n\r\n")

    assert len(reader.failures) == 1
    assert reader.read == []
    assert in_memory(world) == 0
    reader.held.abort()


# -- too many --------------------------------------------------------------------------------


def test_h03_all_bodies_together_have_an_allowance(world: World, reader: Reader) -> None:
    """Whose octets are too many gets 503; what was only announced takes nothing from anybody."""
    clients = [world.client() for _ in range(5)]
    for client in clients:
        client.send(put(b"Content-Length: %d" % LIMIT))
    for client in clients[:2]:
        client.send(bytes(LIMIT - 1))
    clients[2].send(bytes(TOGETHER - 2 * LIMIT + 2))
    assert reader.allowance.free == in_memory(world) - TOGETHER == 0
    clients[3].send(b"x")
    assert read_answer(clients[3].take(), b"PUT").status == 503
    clients[2].reset()
    clients[4].send(bytes(LIMIT // 2))
    clients[0].send(b"x")
    clients[4].send(bytes(LIMIT // 2))

    assert [len(body) for body in reader.read] == [LIMIT, LIMIT]
    assert in_memory(world) == LIMIT - 1
    clients[1].reset()


def test_h03_one_user_leaves_room_for_the_others(world: World, reader: Reader) -> None:
    """However many bodies are kept unfinished in one name; what is over is given back."""
    reader.allowance = Allowance(TOGETHER, LIMIT + 10)
    clients = [world.client() for _ in range(3)]
    for client in clients:
        client.send(put(b"Content-Length: %d" % LIMIT))
    clients[0].send(bytes(LIMIT - 1))
    clients[1].send(bytes(12))
    assert read_answer(clients[1].take(), b"PUT").status == 503
    reader.user_name = "bob"
    other = world.client()
    other.send(framed(bytes(LIMIT), "length"))
    assert [len(body) for body in reader.read] == [LIMIT]
    clients[0].reset()
    clients[2].send(bytes(LIMIT))

    assert [len(body) for body in reader.read] == [LIMIT, LIMIT]


# -- endings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["end", "reset"])
@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_i10_a_client_that_leaves_cancels_the_read(
    world: World, reader: Reader, framing: bytes, end: str
) -> None:
    """Half a manifest is none; nothing of it goes anywhere."""
    client = world.client()
    client.send(put(framing), b"3\r\nabc\r\n")
    getattr(client, end)()

    assert [type(failure) for failure in reader.failures] == [CancelledError]
    assert reader.read == []
    assert world.registry.connections == []


def test_a18_a20_a_broken_chunk_cancels_the_read(world: World, reader: Reader) -> None:
    """400 for the client."""
    client = world.client()
    client.send(put(b"Transfer-Encoding: chunked"), b"3\r\nabc\r\n", b"x\r\n")

    assert read_answer(client.take(), b"PUT").status == 400
    assert [type(failure) for failure in reader.failures] == [CancelledError]


def test_h02_a_client_that_stops_sending_cancels_the_read(world: World, reader: Reader) -> None:
    """At the door's deadline."""
    client = world.client()
    client.send(put(b"Content-Length: 10") + b"abc")
    world.reactor.pass_time(70)

    assert read_answer(client.take(), b"PUT").status == 408
    assert [type(failure) for failure in reader.failures] == [CancelledError]


def test_a_read_may_be_given_up(world: World, reader: Reader) -> None:
    """Then the rest is dropped, and somebody else answers."""
    client = world.client()
    client.send(put(b"Content-Length: 4") + b"ab")
    [channel] = world.site.channels
    request: Any = channel.request
    request.when_gone = None
    assert reader.reading is not None
    reader.reading.cancel()
    client.send(b"cd")

    assert [type(failure) for failure in reader.failures] == [CancelledError]
    assert in_memory(world) == 0
    request.answer(answers.error(503, "UNAVAILABLE", "given up"))
    world.reactor.turn()
    assert read_answer(client.take(), b"PUT").status == 503


def test_i10_a_client_that_leaves_after_its_body_ends_the_exchange(
    world: World, reader: Reader
) -> None:
    """From then on it is a relayed request as any other."""
    client = world.client()
    client.send(framed(b"one", "length"))
    client.reset()

    assert reader.failures == []
    assert world.registry.last.was_reset
    assert world.relay.exchanges == set()

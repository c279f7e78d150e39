"""The relay while octets flow: uploads, back-pressure, early answers, aborts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from regguard.relay.upstream import READ_SIZE
from tests.relay.world import Peer, World, read_answer, read_answers, read_request

KIB = 1024
MIB = 1024 * KIB
UPLOAD = b"/v2/a/blobs/uploads/1?_state=x"
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def upload(*lines: bytes, method: bytes = b"PATCH") -> bytes:
    return b"\r\n".join(
        [method + b" " + UPLOAD + b" HTTP/1.1", b"Host: r.example", *lines, b"", b""]
    )


def download() -> bytes:
    return b"GET /v2/a/blobs/1 HTTP/1.1\r\nHost: r.example\r\n\r\n"


def held(peer: Peer) -> int:
    """Octets that stand in memory for the other side of this connection."""
    transport: Any = peer.transport
    return len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)


# -- uploads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 5, 16 * KIB, 300 * KIB])
def test_an_upload_with_a_length_arrives_octet_for_octet(world: World, length: int) -> None:
    """With the same length, in a type that is no form."""
    body = random.Random(length).randbytes(length)
    client = world.client()
    client.send(upload(b"Content-Length: %d" % length) + body)

    request = read_request(world.registry.last.take())
    assert (request.method, request.target, request.body) == (b"PATCH", UPLOAD, body)
    assert request.whole
    assert request.rest == b""
    assert request[b"content-length"] == b"%d" % length
    assert request[b"content-type"] == b"application/octet-stream"
    world.registry.last.send(CREATED)
    assert read_answer(client.take(), b"PATCH").status == 201
    assert client.is_open
    assert world.ended[0].body_bytes_in == length


SAMPLES = {
    "length": upload(b"Content-Length: 7") + b"abc\r\n\r\n",
    "chunked": upload(b"Transfer-Encoding: chunked")
    + b'3;x="y"\r\nabc\r\n0004\r\n\r\n\r\n\r\n0\r\nContent-Length: 99\r\n\r\n',
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a35_an_upload_arrives_the_same_at_every_split(world: World, kind: str) -> None:
    """However the network cuts it, with a fresh framing and without extensions and trailers."""
    sample = SAMPLES[kind]
    for cut in range(1, len(sample)):
        client = world.client()
        client.send(sample[:cut], sample[cut:])
        request = read_request(world.registry.last.take())

        assert (request.body, request.whole, request.rest) == (b"abc\r\n\r\n", True, b"")
        if kind == "length":
            assert request[b"content-length"] == b"7"
        else:
            assert request[b"transfer-encoding"] == b"chunked"
            assert request.all(b"content-length") == []
        world.registry.last.send(CREATED)
        assert read_answer(client.take(), b"PATCH").status == 201
        client.end()
    assert world.relay.exchanges == set()


@pytest.mark.parametrize("kind", SAMPLES)
def test_a35_an_upload_arrives_the_same_octet_by_octet(world: World, kind: str) -> None:
    """Every octet its own segment."""
    sample = SAMPLES[kind]
    client = world.client()
    client.send(*[sample[n : n + 1] for n in range(len(sample))])

    octets = world.registry.last.take()
    request = read_request(octets)
    assert (request.body, request.whole) == (b"abc\r\n\r\n", True)
    if kind == "chunked":
        assert octets.count(b"0\r\n\r\n") == 1
        assert octets.endswith(b"0\r\n\r\n")


def test_i25_an_empty_chunked_upload_arrives_as_one(world: World) -> None:
    """The last chunk alone."""
    client = world.client()
    client.send(upload(b"Transfer-Encoding: chunked") + b"0\r\n\r\n")

    assert world.registry.last.take().endswith(b"\r\n\r\n0\r\n\r\n")


def test_an_upload_of_large_random_pieces_arrives_octet_for_octet(world: World) -> None:
    """4 MiB in chunks and segments of any size, through small socket buffers."""
    world.registry.capacity = 16 * KIB
    chance = random.Random(4)
    body = chance.randbytes(4 * MIB)
    framed = bytearray(upload(b"Transfer-Encoding: chunked"))
    position = 0
    while position < len(body):
        piece = body[position : position + chance.choice((1, 100, 32768, 200_000))]
        framed += b"%x\r\n%s\r\n" % (len(piece), piece)
        position += len(piece)
    framed += b"0\r\n\r\n"
    client = world.client()
    position = 0
    while position < len(framed):
        size = chance.choice((1, 7, 1460, 65536, 300_000))
        client.send(bytes(framed[position : position + size]))
        position += size

    assert read_request(world.registry.last.take()).body == body


# -- 100 Continue ----------------------------------------------------------------------------


def test_a23_continue_comes_once_the_registry_is_connected(world: World) -> None:
    """Who is granted and whose registry is there may send gigabytes."""
    world.registry.accepting = False
    client = world.client()
    client.send(upload(b"Content-Length: 3", b"Expect: 100-continue"))
    assert client.take() == b""

    world.registry.accept()
    assert client.take() == CONTINUE
    client.send(b"abc")
    world.registry.last.send(CREATED)
    assert client.take().startswith(b"HTTP/1.1 201 ")


def test_a23_no_continue_when_the_registry_is_away(world: World) -> None:
    """The refusal comes instead, before a single octet of the body."""
    world.registry.accepting = False
    client = world.client()
    client.send(upload(b"Content-Length: 3", b"Expect: 100-continue"))
    world.registry.refuse(ConnectionRefusedError())

    assert client.take().startswith(b"HTTP/1.1 502 ")


def test_a23_no_continue_for_who_sends_already(world: World) -> None:
    """RFC 9110 section 10.1.1: it may be left out then."""
    client = world.client()
    client.send(upload(b"Content-Length: 3", b"Expect: 100-continue") + b"abc")

    assert client.take() == b""
    assert read_request(world.registry.last.take()).body == b"abc"


def test_a38_the_registrys_continue_is_not_relayed(world: World) -> None:
    """Its Expect never got there; whatever it says is its own."""
    client = world.client()
    client.send(upload(b"Content-Length: 3") + b"abc")
    world.registry.last.send(CONTINUE + CREATED)

    assert client.take().startswith(b"HTTP/1.1 201 ")


# -- I09: early answers ----------------------------------------------------------------------


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("status", [b"413 Too Large", b"202 Accepted", b"404 Not Found"])
@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 2\r\n\r\nno", b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"],
)
def test_i09_an_early_answer_is_relayed_at_once(
    world: World, framing: bytes, status: bytes, rest: bytes
) -> None:
    """The upload is stopped, never ended, and the connection not used again."""
    client = world.client()
    client.send(upload(framing), b"5\r\nabcde\r\n")
    registry = world.registry.last
    registry.send(b"HTTP/1.1 " + status + b"\r\n" + rest)

    raw = client.take()
    answer = read_answer(raw, b"PATCH")
    assert (answer.status, answer.body, answer.whole) == (int(status[:3]), b"no", True)
    assert answer[b"connection"] == b"close"
    assert registry.was_reset
    sent = registry.take()
    client.send(b"5\r\nabcde\r\n0\r\n\r\n")
    assert registry.take() == b""
    assert not sent.endswith(b"0\r\n\r\n")
    assert world.relay.exchanges == set()
    client.send(download())
    assert len(world.registry.connections) == 1


def test_i09_an_early_answer_in_pieces_is_relayed_at_once(world: World) -> None:
    """The head reaches the client while the upload would still go on."""
    client = world.client()
    client.send(upload(b"Transfer-Encoding: chunked"), b"3\r\nabc\r\n")
    registry = world.registry.last
    registry.take()
    registry.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\n")
    assert client.take().startswith(b"HTTP/1.1 413 ")
    client.send(b"3\r\ndef\r\n0\r\n\r\n")
    registry.send(b"to")
    registry.send(b"o!")

    assert client.take() == b"too!"
    assert registry.take() == b""
    assert registry.was_reset


@pytest.mark.parametrize("reading", [True, False])
def test_i09_a_client_that_goes_on_is_not_read(world: World, reading: bool) -> None:
    """Its octets stay with it while the early answer still streams, whatever the registry reads."""
    world.registry.capacity = 4 * KIB
    client = world.client()
    client.send(upload(b"Content-Length: %d" % (8 * MIB)))
    registry = world.registry.last
    registry.reading = reading
    client.send(bytes(300 * KIB))
    registry.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nto")
    left = client.unread
    client.send(bytes(MIB))
    registry.reading = True
    world.reactor.turn()

    assert client.unread == left + MIB
    registry.send(b"o!")
    assert client.take().endswith(b"\r\n\r\ntoo!")


def test_i09_the_end_of_a_dropped_body_is_not_passed_on(world: World) -> None:
    """epoll may deliver once more after a pause; a short upload must not get a clean end."""
    client = world.client()
    client.send(upload(b"Transfer-Encoding: chunked"), b"3\r\nabc\r\n")
    registry = world.registry.last
    registry.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\n")
    registry.take()
    client.transport.protocol.dataReceived(b"3\r\ndef\r\n0\r\n\r\n")
    registry.send(b"too!")

    assert b"0\r\n\r\n" not in registry.take()
    assert registry.was_reset
    assert world.registry.open == []


def test_i09_no_deadlock_when_nobody_reads(world: World) -> None:
    """The registry answers without reading a body that fills every buffer."""
    world.registry.capacity = 4 * KIB
    client = world.client()
    client.send(upload(b"Content-Length: %d" % (8 * MIB)))
    world.registry.last.reading = False
    client.send(bytes(MIB))
    assert client.unread > 0
    world.registry.last.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    assert read_answer(client.take(), b"PATCH").status == 413
    assert world.registry.last.was_reset


def test_i09_an_early_answer_then_close(world: World) -> None:
    """What Go does with a body that it does not want."""
    client = world.client()
    client.send(upload(b"Content-Length: 1000000") + b"abc")
    world.registry.last.send(
        b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
    )
    world.registry.last.reset()

    answer = read_answer(client.take(), b"PATCH")
    assert (answer.status, answer.whole) == (413, True)
    assert not client.was_reset


def test_i09_a_small_rest_keeps_the_connection(world: World) -> None:
    """Few octets are read and forgotten: a TLS handshake costs more."""
    client = world.client()
    client.send(upload(b"Content-Length: 6") + b"abc")
    world.registry.last.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert read_answer(client.take(), b"PATCH").status == 404
    client.send(b"def" + download())

    assert len(world.registry.connections) == 2
    assert world.registry.last.take().startswith(b"GET ")


@pytest.mark.parametrize("end", ["end", "reset"])
@pytest.mark.parametrize("rest", [b"", bytes(997)], ids=["in the body", "after it"])
@pytest.mark.parametrize(
    ("agent", "status"),
    [("libpod/4.3.1", 408), ("containerd/1.6.20~ds1", 408), ("docker/24.0.7", 502), (None, 502)],
)
def test_i12_a_registry_that_dies_in_an_upload_is_told_so_that_it_is_sent_again(
    world: World, end: str, rest: bytes, agent: str | None, status: int
) -> None:
    """Some engines give up at a 502; nothing is sent twice by us."""
    fields = b"" if agent is None else b"User-Agent: %s\r\n" % agent.encode()
    client = world.client()
    client.send(upload(fields + b"Content-Length: 1000") + b"abc" + rest)
    getattr(world.registry.last, end)()

    assert read_answer(client.take(), b"PATCH").status == status
    assert len(world.registry.connections) == 1
    assert [each.status for each in world.failures] == [status]


# -- aborts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["end", "reset"])
@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_i10_a_client_that_leaves_in_its_upload_aborts_it(
    world: World, framing: bytes, end: str
) -> None:
    """The registry must see a cut, not an end."""
    client = world.client()
    client.send(upload(framing), b"3\r\nabc\r\n")
    getattr(client, end)()

    registry = world.registry.last
    assert registry.was_reset
    assert not registry.was_ended
    assert not registry.take().endswith(b"0\r\n\r\n")
    assert world.relay.exchanges == set()


@pytest.mark.parametrize("chunk", [b"x\r\n", b"3\r\nabcd\r\n", b"-3\r\nabc\r\n"])
def test_a18_a20_a_broken_chunk_aborts_the_upload(world: World, chunk: bytes) -> None:
    """400 for the client, a cut for the registry."""
    client = world.client()
    client.send(upload(b"Transfer-Encoding: chunked"), b"3\r\nabc\r\n" + chunk)

    assert read_answer(client.take(), b"PATCH").status == 400
    assert world.registry.last.was_reset
    assert not world.registry.last.take().endswith(b"0\r\n\r\n")


def test_h02_a_client_that_stops_sending_aborts_its_upload(world: World) -> None:
    """The door's deadline reaches the registry as a cut."""
    client = world.client()
    client.send(upload(b"Content-Length: 1000") + b"abc")
    world.reactor.pass_time(70)

    assert client.take().startswith(b"HTTP/1.1 408 ")
    assert world.registry.last.was_reset


def test_i11_a_client_that_leaves_in_its_download_aborts_it(world: World) -> None:
    """The registry need not send the rest to nobody."""
    client = world.client()
    client.send(download())
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
    client.reset()

    assert world.registry.last.was_reset
    assert world.relay.exchanges == set()
    assert world.ended[0].status == 200


def test_i11_a_client_that_leaves_before_its_answer_aborts_the_request(world: World) -> None:
    """Whatever the registry is still thinking about."""
    client = world.client()
    client.send(download())
    client.reset()

    assert world.registry.last.was_reset
    assert world.ended[0].status == 0


def test_i11_a_client_that_leaves_while_connecting_cancels_that(world: World) -> None:
    """A flood of such clients must not pile up connects."""
    world.registry.accepting = False
    client = world.client()
    client.send(download())
    client.reset()

    assert world.registry.cancelled == 1
    assert world.relay.exchanges == set()


def test_h09_a_half_closed_client_gets_its_whole_answer(world: World) -> None:
    """It sent all it had to say."""
    client = world.client()
    client.send(download())
    client.end()
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", b"cd")

    assert read_answer(client.take()).body == b"abcd"
    assert client.was_ended
    assert not client.was_reset


# -- back-pressure ---------------------------------------------------------------------------


def test_h03_a_client_that_does_not_read_stops_the_registry(world: World) -> None:
    """At most one read stands in memory; when the client reads again, so do we."""
    client = world.client(capacity=64 * KIB)
    client.reading = False
    client.send(download())
    registry = world.registry.last
    body = random.Random(3).randbytes(8 * MIB)
    registry.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    for start in range(0, len(body), MIB):
        registry.send(body[start : start + MIB])

    assert registry.unread > 7 * MIB
    assert held(client) <= READ_SIZE + KIB
    assert registry.is_open
    while not client.received.endswith(body[-100:]):
        assert client.read(50_000)
        assert held(client) <= READ_SIZE + KIB
    assert read_answer(client.take()).body == body
    assert world.registry.open == [registry]


def test_a39_a_connection_is_watched_again_after_a_client_that_did_not_read(world: World) -> None:
    """It was paused when its response ended; while idle its octets and its end must be seen."""
    client = world.client(capacity=4 * KIB)
    client.reading = False
    client.send(download())
    registry = world.registry.last
    registry.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", bytes(100_000))
    assert world.relay.exchanges == set()
    assert registry.is_open
    registry.send(b"x")

    assert registry.was_reset


def test_h03_a_chunked_answer_obeys_the_client_too(world: World) -> None:
    """The same with chunks, and again on the second request of both connections."""
    client = world.client(capacity=64 * KIB)
    body = random.Random(5).randbytes(2 * MIB)
    framed = b"".join(
        b"%x\r\n%s\r\n" % (len(body[at : at + 40_000]), body[at : at + 40_000])
        for at in range(0, len(body), 40_000)
    )
    for _ in range(3):
        client.reading = False
        client.send(download())
        registry = world.registry.last
        registry.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", framed)
        registry.send(b"0\r\n\r\n")
        assert registry.unread > MIB
        assert held(client) <= READ_SIZE + KIB
        client.reading = True
        world.reactor.turn()

        assert read_answer(client.take()).body == body
    assert len(world.registry.connections) == 1


def test_a_registry_that_does_not_read_stops_the_client(world: World) -> None:
    """At most one read stands in memory; when the registry reads again, so do we."""
    world.registry.capacity = 64 * KIB
    client = world.client()
    body = random.Random(6).randbytes(8 * MIB)
    client.send(upload(b"Content-Length: %d" % len(body)))
    registry = world.registry.last
    registry.reading = False
    for start in range(0, len(body), MIB):
        client.send(body[start : start + MIB])

    assert client.unread > 7 * MIB
    assert held(registry) <= 128 * KIB + KIB
    while not registry.received.endswith(body[-100:]):
        assert registry.read(50_000)
        assert held(registry) <= 128 * KIB + KIB
    assert read_request(registry.take()).body == body
    registry.send(CREATED)
    assert read_answer(client.take(), b"PATCH").status == 201


def test_a_body_stays_with_the_client_until_the_registry_is_connected(world: World) -> None:
    """No more than one read of it is taken."""
    world.registry.accepting = False
    client = world.client()
    client.send(upload(b"Content-Length: %d" % MIB), bytes(MIB))

    assert client.unread >= MIB - 2 * 64 * KIB
    world.registry.accept()
    assert read_request(world.registry.last.take()).whole


def test_a33_pipelined_requests_wait_for_a_client_that_does_not_read(world: World) -> None:
    """Answers to requests that came all at once must not pile up."""
    client = world.client(capacity=4 * KIB)
    client.reading = False
    client.send(download() * 200)
    for _ in range(200):
        if not world.registry.open:
            break
        world.registry.last.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * KIB) + bytes(64 * KIB)
        )

    assert held(client) <= MIB


@pytest.fixture
def hasty(logged: list[Any]) -> Iterator[World]:
    """A world where the registry has 20 s, less than the door gives a client that stands still."""
    world = World(read_timeout=20)
    yield world
    world.close()


def test_a_resumed_client_gives_the_registry_its_full_time(hasty: World) -> None:
    """The silence of who was not read is not the registry's."""
    world = hasty
    client = world.client(capacity=4 * KIB)
    client.reading = False
    client.send(download())
    registry = world.registry.last
    registry.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000))
    world.reactor.pass_time(19)
    client.reading = True
    world.reactor.turn()
    world.reactor.pass_time(15)
    assert client.is_open
    registry.send(bytes(50_000))

    assert read_answer(client.take()).whole


def test_a_client_that_does_not_read_is_not_the_registrys_silence(hasty: World) -> None:
    """The door has a deadline of its own for that."""
    world = hasty
    client = world.client(capacity=4 * KIB)
    client.reading = False
    client.send(download())
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000))
    world.reactor.pass_time(50)

    assert client.is_open
    assert world.registry.last.is_open
    assert world.failures == []


def test_a_registry_that_stops_reading_is_silent(world: World) -> None:
    """An upload that stands still because of the registry ends at the read timeout."""
    world.registry.capacity = 4 * KIB
    client = world.client()
    client.send(upload(b"Content-Length: %d" % MIB))
    world.registry.last.reading = False
    client.send(bytes(MIB))
    world.reactor.pass_time(99)
    assert client.take() == b""
    world.reactor.pass_time(3)

    assert client.take().startswith(b"HTTP/1.1 504 ")
    assert world.registry.last.was_reset


def test_a_client_that_does_not_send_is_not_the_registrys_silence(hasty: World) -> None:
    """And the registry's time begins when the client has sent again."""
    world = hasty
    client = world.client()
    client.send(upload(b"Content-Length: 30001") + bytes(30000))
    world.reactor.pass_time(50)
    client.send(b"x")
    world.reactor.pass_time(15)
    world.registry.last.send(CREATED)

    assert read_answer(client.take(), b"PATCH").status == 201


def test_a_slow_upload_that_moves_is_not_silence(world: World) -> None:
    """The read timeout counts from the last octet in either direction."""
    client = world.client()
    client.send(upload(b"Content-Length: 330000") + bytes(30000))
    for _ in range(10):
        world.reactor.pass_time(50)
        client.send(bytes(30000))
    world.reactor.pass_time(90)
    world.registry.last.send(CREATED)

    assert read_answer(client.take(), b"PATCH").status == 201


# -- many at once ----------------------------------------------------------------------------


def test_a32_pipelined_requests_are_answered_in_order(world: World) -> None:
    """Uploads and downloads mixed, each by its own exchange."""
    client = world.client()
    client.send(download() + upload(b"Content-Length: 3") + b"abc" + download())
    assert len(world.registry.connections) == 1
    world.registry.connections[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
    assert len(world.registry.connections) == 2
    assert read_request(world.registry.last.take()).body == b"abc"
    world.registry.last.send(b"HTTP/1.1 202 OK\r\nContent-Length: 1\r\n\r\n2")
    # The third goes over the connection that was used last.
    world.registry.last.send(b"HTTP/1.1 404 OK\r\nContent-Length: 1\r\n\r\n3")

    answers = list(read_answers(client.take(), b"GET", b"PATCH", b"GET"))
    assert [(a.status, a.body) for a in answers] == [(200, b"1"), (202, b"2"), (404, b"3")]


def test_a22_the_body_of_a_get_is_no_request(world: World) -> None:
    """What stands in a body stays in it."""
    client = world.client()
    inner = b"GET /v2/secret/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(
        b"GET /v2/a/manifests/1 HTTP/1.1\r\nHost: r.example\r\nContent-Length: %d\r\n\r\n%s"
        % (len(inner), inner)
    )

    request = read_request(world.registry.last.take())
    assert (request.body, request.rest) == (inner, b"")
    assert len(world.registry.connections) == 1


def test_i26_any_ending_of_either_side_at_any_octet_leaves_nothing_behind(world: World) -> None:
    """Every cut of an exchange, by client or registry, FIN or RST: no leak, no false end."""
    request = upload(b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    for end in ("end", "reset"):
        for cut in range(len(request)):
            connections = len(world.registry.connections)
            client = world.client()
            client.send(request[:cut])
            getattr(client, end)()
            assert world.relay.exchanges == set()
            for registry in world.registry.connections[connections:]:
                assert registry.was_reset
                assert not registry.received.endswith(b"0\r\n\r\n")
        for cut in range(len(answer)):
            client = world.client()
            client.send(request)
            registry = world.registry.last
            registry.send(answer[:cut])
            getattr(registry, end)()
            assert world.relay.exchanges == set()
            got = read_answer(client.take(), b"PATCH")
            assert (got.status, got.whole) == ((200, False) if client.was_reset else (502, True))
            client.end()
    assert world.site.channels == set()


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_h03_a_slow_client_gets_everything_and_then_the_close(world: World, version: bytes) -> None:
    """What is queued when the registry is done still leaves, and then the connection ends well."""
    client = world.client(capacity=4 * KIB)
    client.reading = False
    client.send(b"GET /v2/a/blobs/1 " + version + b"\r\nHost: r\r\nConnection: close\r\n\r\n")
    body = random.Random(8).randbytes(100 * KIB)
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert held(client) > 50 * KIB
    assert world.relay.exchanges == set()
    while client.is_open and client.read(5000):
        pass
    client.reading = True
    world.reactor.turn()

    answer = read_answer(client.take(), ended=True)
    assert (answer.body, answer.whole) == (body, True)
    assert client.was_ended
    assert not client.was_reset

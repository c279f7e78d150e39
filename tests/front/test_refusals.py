"""regguard.front.channel: what is no request, and what is refused before its body came."""

from __future__ import annotations

import json

import pytest

from regguard import answers
from regguard.front.channel import DRAIN_BYTES, LINGER_BYTES
from tests.front.wire import Door, Seen, Wire, replies

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"PUT /%s HTTP/1.1\r\nHost: a\r\n"


def refuse(seen: Seen) -> None:
    """As the guard does with who is not known."""
    seen.request.answer(answers.error(401, "UNAUTHORIZED", "who are you"))


@pytest.fixture(autouse=True)
def _refusing(door: Door) -> None:
    door.script.paths[b"/refuse"] = refuse


def check_refusal(door: Door, wire: Wire, status: int) -> None:
    """One answer in JSON, one log line, the end of the connection, nothing for the resource."""
    (reply,) = replies(wire.received)
    assert reply.status == status
    assert reply["Connection"] == [b"close"]
    assert reply["Content-Type"] == [b"application/json"]
    assert reply["X-Content-Type-Options"] == [b"nosniff"]
    assert reply["Docker-Distribution-Api-Version"] == [b"registry/2.0"]
    (error,) = json.loads(reply.body)["errors"]
    assert set(error) == {"code", "message"}
    assert len(door.logged) == 1
    assert (door.logged[0].head, door.logged[0].status) == (None, status)
    assert door.logged[0].client == "192.0.2.7"
    assert not door.seen
    assert wire.state == "half-closed"
    wire.finish_sending()
    assert wire.state == "closed"


MALFORMED = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (HEAD % b"x" + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (HEAD % b"x" + b"Transfer-Encoding: identity\r\n\r\n", 400),
    (HEAD % b"x" + b"X: a\r\n folded\r\n\r\n", 400),
    (HEAD % b"x" + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    (b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET /" + b"x" * 70_000, 414),
    (HEAD % b"x" + b"X: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    (HEAD % b"x" + b"X: y\r\n" * 501 + b"\r\n", 431),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
]


@pytest.mark.parametrize(("stream", "status"), MALFORMED)
def test_a_malformed_head_is_answered_once_and_logged_once(
    door: Door, stream: bytes, status: int
) -> None:
    """And a good request behind it in the same segment is none."""
    wire = door.connect()
    wire.send(stream + GET % b"now")

    check_refusal(door, wire, status)


@pytest.mark.parametrize(("stream", "status"), [m for m in MALFORMED if len(m[0]) < 200])
def test_a35_a_malformed_head_is_refused_at_every_cut(stream: bytes, status: int) -> None:
    """Once, and with the same words for sizes and expectations."""
    for cut in range(1, len(stream)):
        door = Door()
        wire = door.connect()
        wire.send(stream[:cut], stream[cut:])
        (reply,) = replies(wire.received)
        if status in (400, 505):
            assert reply.status in (400, 505)  # which of two faults is seen first
        else:
            assert reply.status == status
        assert len(door.logged) == 1
        assert wire.state == "half-closed"
        door.check_and_close()


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_h04_a_long_head_is_refused_however_it_comes(door: Door, size: int) -> None:
    """Before much more than the limit was collected."""
    wire = door.connect()
    head = HEAD % b"x" + b"X: " + b"y" * 60_000
    for start in range(0, len(head), size):
        wire.send(head[start : start + size])
        if wire.received:
            break
    assert start < 33 * 1024 + size

    check_refusal(door, wire, 431)


def test_a34_empty_lines_before_a_request(door: Door) -> None:
    """One is forgiven before each request, two are not, whatever the segments."""
    wire = door.connect()
    wire.send(b"\r\n" + GET % b"now" + b"\r\n" + GET % b"now")
    wire.send(b"\r\n")
    wire.send(GET % b"now")
    assert len(replies(wire.received)) == 3
    wire.received.clear()
    wire.send(b"\r\n", b"\r\n")
    assert replies(wire.received)[0].status == 400
    assert wire.state == "half-closed"


def test_a_refusal_in_the_middle_keeps_its_place(door: Door) -> None:
    """The answers before it go out first."""
    wire = door.connect()
    wire.send(GET % b"later" + b"bad\r\n\r\n" + GET % b"now")
    assert not wire.received
    door.seen[0].answer("first")

    first, second = replies(wire.received)
    assert (first.status, second.status) == (200, 400)
    assert len(door.seen) == 1


# -- answers before the body ---------------------------------------------------------------


def with_body(path: bytes, length: int) -> bytes:
    return HEAD % path + b"Content-Length: %d\r\n\r\n" % length


def test_e19_a_small_rest_is_read_and_the_connection_kept(door: Door) -> None:
    """A TLS handshake costs more than 64 KiB."""
    wire = door.connect()
    wire.send(with_body(b"refuse", DRAIN_BYTES))
    (reply,) = replies(wire.received)
    assert (reply.status, reply["Connection"]) == (401, [])
    wire.send(b"x" * (DRAIN_BYTES - 1))
    wire.send(b"x" + GET % b"now")

    assert [reply.status for reply in replies(wire.received)] == [401, 200]
    assert wire.state == "open"


def test_e19_a_small_rest_that_came_with_the_head_is_skipped(door: Door) -> None:
    """The next request is what stands behind it."""
    wire = door.connect()
    wire.send(with_body(b"refuse", 10) + b"GET /now H" + GET % b"now")

    assert [reply.status for reply in replies(wire.received)] == [401, 200]


@pytest.mark.parametrize("framing", [b"Content-Length: 5000000000", b"Transfer-Encoding: chunked"])
def test_e19_a_large_rest_ends_the_connection_after_the_answer(door: Door, framing: bytes) -> None:
    """Half-closed and read on for a while, so that the client sees the answer and no reset."""
    wire = door.connect()
    wire.send(HEAD % b"refuse" + framing + b"\r\n\r\n")

    (reply,) = replies(wire.received)
    assert (reply.status, reply["Connection"]) == (401, [b"close"])
    assert wire.state == "half-closed"
    for _ in range(LINGER_BYTES // 65536):
        wire.send(b"x" * 65536)
        assert not wire.outbox
    wire.send(b"x" * 65536, b"x" * 65536)
    assert wire.outbox  # enough is enough; the rest stays with the client
    door.wait(6)
    assert wire.state == "closed"
    assert len(door.logged) == 1
    assert door.seen[0].gone == []


def test_e19_the_client_may_end_the_lingering_itself(door: Door) -> None:
    """As soon as it has read the answer."""
    wire = door.connect()
    wire.send(with_body(b"refuse", 10**9) + b"x" * 1000)
    wire.finish_sending()

    assert wire.state == "closed"


def test_e19_behind_twisteds_tls_the_transport_lingers() -> None:
    """It can't close one direction; its loseConnection waits for the client's close_notify."""
    door = Door(half_closes=False)
    door.script.paths[b"/refuse"] = refuse
    wire = door.connect()
    wire.send(with_body(b"refuse", 10**9))

    assert replies(wire.received)[0].status == 401
    assert wire.state == "closed"
    door.check_and_close()


def test_i09_an_answer_before_the_end_of_a_taken_body(door: Door) -> None:
    """Too much is left to read: the connection ends with the answer, the body does not go on."""
    wire = door.connect()
    wire.send(with_body(b"take", 10**9) + b"x" * 1000)
    seen = door.seen[0]
    refuse(seen)
    wire.send(b"x" * 1000)

    assert replies(wire.received)[0].status == 401
    assert (len(seen.body), seen.ended, seen.gone) == (1000, 0, [])
    assert wire.state == "half-closed"
    wire.finish_sending()


def test_i09_a_streamed_answer_while_the_body_is_held(door: Door) -> None:
    """The body is paused, the answer flows, then the connection ends."""
    wire = door.connect()
    wire.send(with_body(b"take", 10**9) + b"x" * 1000)
    seen = door.seen[0]
    seen.request.body_producer.pauseProducing()
    seen.request.begin(413, b"Too Large", [b"Content-Length: 4"], 4, b"so")
    wire.send(b"x" * 200_000)
    door.wait(100)
    seen.request.write(b" so")
    seen.request.finish()
    wire.turn()

    assert wire.received.endswith(b"Connection: close\r\n\r\nso so")
    assert len(seen.body) == 1000


# -- broken bodies ---------------------------------------------------------------------------

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"


@pytest.mark.parametrize(
    "rest",
    [b"g\r\n", b"5;\r\nhello\r\n", b"3\r\nabcX\r\n", b"0\r\nno colon\r\n\r\n", b"+1\r\nx\r\n"],
)
def test_a18_a20_a_broken_chunk_is_told_to_both_sides(door: Door, rest: bytes) -> None:
    """The resource hears of it once, the client gets 400; the body never looks whole."""
    wire = door.connect()
    wire.send(HEAD % b"take" + CHUNKED)
    wire.send(rest + GET % b"now")

    seen = door.seen[0]
    assert len(seen.gone) == 1
    assert (bytes(seen.body[:3]), seen.ended) == (b"abc", 0)
    (reply,) = replies(wire.received)
    assert (reply.status, reply["Connection"]) == (400, [b"close"])
    assert wire.state == "half-closed"
    assert door.logged == [seen.request]
    wire.finish_sending()


def test_a18_a_broken_chunk_that_came_with_the_head(door: Door) -> None:
    """It is found when the resource asks for the body."""
    wire = door.connect()
    wire.send(HEAD % b"take" + CHUNKED + b"g\r\n")

    assert len(door.seen[0].gone) == 1
    assert replies(wire.received)[0].status == 400


def test_a18_a_broken_chunk_after_the_answer_began_cuts_the_connection(door: Door) -> None:
    """Nothing honest can follow."""
    wire = door.connect()
    wire.send(HEAD % b"take" + CHUNKED)
    seen = door.seen[0]
    seen.request.begin(200, b"OK", [b"Content-Length: 10"], 10, b"some")
    wire.send(b"g\r\n")

    assert len(seen.gone) == 1
    assert wire.state == "aborted"
    seen.request.write(b"more")
    assert wire.received.endswith(b"some")


def test_a_resource_that_answers_what_is_gone_does_no_harm(door: Door) -> None:
    """The channel's own answer stays the only one."""
    wire = door.connect()
    wire.send(HEAD % b"take" + CHUNKED)
    seen = door.seen[0]
    seen.request.when_gone = lambda reason: refuse(seen)
    wire.send(b"g\r\n")

    assert len(replies(wire.received)) == 1
    assert len(door.logged) == 1

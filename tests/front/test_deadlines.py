"""regguard.front: how long a client may take, on a clock that only the test moves."""

from __future__ import annotations

import pytest

from tests.front.test_refusals import check_refusal, refuse
from tests.front.wire import Door, Wire, replies

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def check_ends(door: Door, wire: Wire, seconds: int, state: str) -> None:
    """The connection stands until ``seconds`` (a tick more or less) and is then over."""
    before = wire.state
    door.wait(seconds - 1)
    assert wire.state == before
    door.wait(2)
    assert wire.state == state


def test_g03_a_client_that_says_nothing_is_closed_after_10_seconds(door: Door) -> None:
    """No answer: there was no question."""
    wire = door.connect()

    check_ends(door, wire, 10, "closed")
    assert not wire.received
    assert not door.logged


@pytest.mark.parametrize("trickles", [False, True])
def test_h01_a_head_has_20_seconds_however_it_trickles(door: Door, trickles: bool) -> None:
    """The deadline is absolute; then 408."""
    wire = door.connect()
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X" * 1000
    for second in range(20):
        assert not wire.received, second
        if trickles or not second:
            wire.send(head[second : second + 1] if second else head[:1])
        door.wait(1)

    check_refusal(door, wire, 408)


def test_h01_a_second_head_has_20_seconds_from_its_first_octet(door: Door) -> None:
    """Not the idle limit, and not what the first head left over."""
    wire = door.connect()
    wire.send(GET % b"now")
    door.wait(50)
    for octet in GET[:19]:
        wire.send(bytes([octet]))
        door.wait(1)
    assert wire.state == "open"
    wire.received.clear()
    door.logged.clear()
    door.seen.clear()
    door.wait(2)

    check_refusal(door, wire, 408)


def test_h01_empty_lines_keep_no_connection(door: Door) -> None:
    """The one that is forgiven starts the clock of the head."""
    wire = door.connect()
    for _ in range(3):
        wire.send(b"\r\n")
        door.wait(15)
    assert wire.state != "open"


def test_h05_an_idle_connection_is_kept_for_60_seconds(door: Door) -> None:
    """Then it is closed without a word."""
    wire = door.connect()
    wire.send(GET % b"now")
    octets = len(wire.received)

    check_ends(door, wire, 60, "closed")
    assert len(wire.received) == octets


def test_each_answer_starts_the_idle_time_anew(door: Door) -> None:
    """A busy connection lives on."""
    wire = door.connect()
    for _ in range(5):
        wire.send(GET % b"now")
        door.wait(59)
    assert wire.state == "open"


def test_a_resource_may_take_its_time(door: Door) -> None:
    """While it is not the client's turn nothing of the client's is due."""
    wire = door.connect()
    wire.send(GET % b"later")
    body = door.connect()
    body.send(PUT % (b"later", 5))
    door.wait(10_000)

    for seen in door.seen:
        seen.answer("at last")
    assert replies(wire.received)[0].body == replies(body.received)[0].body == b"at last"


def test_h02_a_client_may_be_silent_in_its_body_for_60_seconds(door: Door) -> None:
    """Any octet counts; then 408, and the resource hears of it."""
    wire = door.connect()
    wire.send(PUT % (b"take", 100))
    for _ in range(5):
        door.wait(59)
        wire.send(b"x")
    seen = door.seen[0]
    assert not seen.gone
    door.wait(60)

    assert len(seen.gone) == 1
    assert not seen.ended
    (reply,) = replies(wire.received)
    assert (reply.status, reply["Connection"]) == (408, [b"close"])
    assert wire.state == "half-closed"
    check_ends(door, wire, 5, "closed")


def test_h02_silence_after_the_answer_began_cuts_the_connection(door: Door) -> None:
    """An answer can't be taken back."""
    wire = door.connect()
    wire.send(PUT % (b"take", 100))
    seen = door.seen[0]
    seen.request.begin(200, b"OK", [b"Content-Length: 10"], 10, b"some")

    check_ends(door, wire, 60, "aborted")
    assert len(seen.gone) == 1


def test_a_paused_client_is_not_silent(door: Door) -> None:
    """It would send if we read; when we read again its time begins again."""
    wire = door.connect()
    wire.send(PUT % (b"take", 100))
    producer = door.seen[0].request.body_producer
    producer.pauseProducing()
    door.wait(10_000)
    assert wire.state == "open"
    producer.resumeProducing()

    check_ends(door, wire, 60, "half-closed")
    assert len(door.seen[0].gone) == 1


def test_e19_a_refused_client_lingers_for_5_seconds(door: Door) -> None:
    """However much it sends."""
    door.script.paths[b"/refuse"] = refuse
    wire = door.connect()
    wire.send(PUT % (b"refuse", 10**9))
    for _ in range(4):
        wire.send(b"x")
        door.wait(1)

    check_ends(door, wire, 1, "closed")


def test_e19_a_small_rest_must_come_within_60_seconds(door: Door) -> None:
    """In all: a drop now and then does not keep the connection."""
    door.script.paths[b"/refuse"] = refuse
    wire = door.connect()
    wire.send(PUT % (b"refuse", 1000))
    for _ in range(6):
        wire.send(b"x")
        door.wait(10)
    door.wait(2)

    assert wire.state == "aborted"
    assert len(door.logged) == 1


def test_a_client_that_does_not_take_its_last_answer_is_cut_after_60_seconds(door: Door) -> None:
    """The connection was to be closed, but not before the answer left."""
    wire = door.connect()
    wire.client_reads = False
    wire.send(b"GET /now HTTP/1.0\r\n\r\n")

    check_ends(door, wire, 60, "aborted")


def test_a33_a_client_that_does_not_take_its_answers_is_cut_after_60_seconds(door: Door) -> None:
    """Kept alive or not, it holds memory that others need."""
    wire = door.connect()
    wire.client_reads = False
    wire.send((GET % b"now") * 1000)

    check_ends(door, wire, 60, "aborted")
    assert not wire.received


def test_h03_a_client_that_does_not_take_a_stream_is_cut_after_60_seconds(door: Door) -> None:
    """And so is its connection to the registry."""
    wire = door.connect()
    wire.send(GET % b"later")
    seen = door.seen[0]
    wire.client_reads = False
    seen.request.begin(200, b"OK", [b"Content-Length: 1000"], 1000, b"some")

    check_ends(door, wire, 60, "aborted")
    assert len(seen.gone) == 1


def test_h03_a_slow_reader_is_not_cut(door: Door) -> None:
    """As long as it takes what is queued within the minute."""
    wire = door.connect()
    wire.send(GET % b"later")
    seen = door.seen[0]
    seen.request.begin(200, b"OK", [b"Content-Length: 500"], 500)
    for _ in range(5):
        wire.client_reads = False
        seen.request.write(b"x" * 100)
        door.wait(55)
        wire.read()
    door.wait(1000)  # the registry's turn
    seen.request.finish()

    assert replies(wire.received)[0].body == b"x" * 500


def test_a_stalled_reader_that_recovers_lives_on(door: Door) -> None:
    """The minute is over when the queue is empty; the next begins with the next octet."""
    wire = door.connect()
    wire.client_reads = False
    wire.send((GET % b"now") * 3)
    door.wait(30)
    wire.read()
    assert len(replies(wire.received)) == 3
    door.wait(59)
    wire.send(GET % b"now")
    assert len(replies(wire.received)) == 4
    assert wire.state == "open"

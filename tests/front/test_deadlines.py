"""regguard.front: how long a client may take, on a clock that only the test moves."""

from __future__ import annotations

import pytest
from twisted.logger import capturedLogs

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


def check_too_slow(door: Door, wire: Wire) -> None:
    """408 for the client, and the resource has heard of it."""
    (seen,) = door.seen
    assert seen.gone == ["client sends its body too slowly"]
    assert not seen.ended
    (reply,) = replies(wire.received)
    assert (reply.status, reply["Connection"]) == (408, [b"close"])
    assert wire.state == "half-closed"
    door.wait(5)
    assert wire.state == "closed"


@pytest.mark.parametrize("start", [b"", b"x"])
def test_h02_a_body_has_20_seconds_to_begin(door: Door, start: bytes) -> None:
    """Then 408, and the resource hears of it; an octet is no beginning."""
    wire = door.connect()
    wire.send(PUT % (b"take", 100) + start)
    door.wait(19)
    assert not door.seen[0].gone
    door.wait(2)

    check_too_slow(door, wire)


def test_h02_a_client_may_be_silent_in_its_body_for_60_seconds(door: Door) -> None:
    """When it has sent what takes so long at the slowest rate; more buys no longer silence."""
    wire = door.connect()
    wire.send(PUT % (b"take", 10**9))
    for _ in range(5):
        wire.send(bytes(30_000))
        door.wait(59)
    wire.send(bytes(10_000_000))
    assert not door.seen[0].gone
    door.wait(59)
    assert not door.seen[0].gone
    door.wait(2)

    check_too_slow(door, wire)


@pytest.mark.parametrize(("rate", "seconds"), [(1, 22), (250, 42), (400, 102)])
def test_h02_a_body_slower_than_500_octets_a_second_is_refused(
    door: Door, rate: int, seconds: int
) -> None:
    """However steady: the 20 seconds of the beginning run out."""
    wire = door.connect()
    wire.send(PUT % (b"take", 10**9))
    for second in range(seconds):
        assert not door.seen[0].gone or second > seconds - 4
        wire.send(bytes(rate))
        door.wait(1)

    check_too_slow(door, wire)


@pytest.mark.parametrize(("rate", "hours"), [(500, 1), (64 * 1024, 2)])
def test_h02_a_body_of_500_octets_a_second_survives(door: Door, rate: int, hours: int) -> None:
    """For hours."""
    wire = door.connect()
    length = rate * 3600 * hours
    wire.send(PUT % (b"take", length))
    seen = door.seen[0]
    for _ in range(3600 * hours):
        wire.send(bytes(rate))
        door.wait(1)
        seen.body.clear()

    assert not seen.gone
    assert seen.ended


def test_h02_what_the_registry_holds_back_is_not_the_clients_fault(door: Door) -> None:
    """Only the time counts in which we would read."""
    wire = door.connect()
    wire.send(PUT % (b"take", 1000))
    producer = door.seen[0].request.body_producer
    for _ in range(10):
        producer.pauseProducing()
        door.wait(1000)
        producer.resumeProducing()
        door.wait(15)
        wire.send(bytes(100))

    assert door.seen[0].ended


def test_h02_what_was_on_its_way_when_the_registry_paused_starts_no_clock(door: Door) -> None:
    """TLS in memory delivers some records after a pause; then only the registry is waited for."""
    wire = door.connect()
    wire.send(PUT % (b"take", 1000))
    door.seen[0].request.body_producer.pauseProducing()
    door.channel(wire).dataReceived(bytes(100))
    door.wait(1000)

    assert not door.seen[0].gone


def test_h02_silence_after_the_answer_began_cuts_the_connection(door: Door) -> None:
    """An answer can't be taken back."""
    wire = door.connect()
    wire.send(PUT % (b"take", 100))
    seen = door.seen[0]
    seen.request.begin(200, b"OK", [b"Content-Length: 10"], 10, b"some")

    check_ends(door, wire, 20, "aborted")
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


def test_h03_a_reader_that_takes_a_little_now_and_then_is_not_cut(door: Door) -> None:
    """What counts is that something moves, not that all has left."""
    wire = door.connect()
    wire.send(GET % b"later")
    seen = door.seen[0]
    wire.client_reads = False
    seen.request.begin(200, b"OK", [b"Content-Length: 1000"], 1000, bytes(1000))
    for _ in range(20):
        door.wait(54)
        wire.queue = wire.queue[1:]
    assert wire.state == "open"
    door.wait(66)

    assert wire.state == "aborted"


def test_h03_more_to_take_is_no_progress(door: Door) -> None:
    """A queue that grows is not one that moves."""
    wire = door.connect()
    wire.send(GET % b"later")
    seen = door.seen[0]
    wire.client_reads = False
    seen.request.begin(200, b"OK", [b"Content-Length: 1000"], 1000, b"x")
    for _ in range(6):
        door.wait(10)
        seen.request.write(b"x")
    door.wait(1)

    assert wire.state == "aborted"


def test_h03_a_last_answer_that_moves_is_not_cut(door: Door) -> None:
    """To close takes as long as the client needs to read."""
    wire = door.connect()
    wire.client_reads = False
    wire.send(b"GET /now HTTP/1.0\r\n\r\n")
    for _ in range(10):
        door.wait(50)
        wire.queue = wire.queue[1:]
    assert wire.state == "open"
    wire.read()

    assert wire.state == "closed"


def test_a_request_that_waits_behind_a_slow_reader_is_not_late(door: Door) -> None:
    """It is we who do not read it."""
    wire = door.connect()
    wire.client_reads = False
    wire.send(GET % b"now", (GET % b"now")[:10])
    for _ in range(10):
        door.wait(50)
        wire.queue = wire.queue[1:]
    wire.read()
    wire.received.clear()
    door.wait(15)
    wire.send((GET % b"now")[10:])

    assert replies(wire.received)[0].status == 200


def test_i27_a_fault_at_one_deadline_does_not_end_the_watch(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is cut; the others keep their deadlines, and those that come."""
    broken, other = door.connect(), door.connect()

    def fail() -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(door.channel(broken), "deadline_passed", fail)
    with capturedLogs() as logs:
        door.wait(12)
    assert [event["log_failure"].getErrorMessage() for event in logs] == ["a fault"]
    assert (broken.state, other.state) == ("aborted", "closed")
    late = door.connect()
    door.wait(12)

    assert late.state == "closed"


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

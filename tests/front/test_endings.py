"""regguard.front.channel: clients that leave, resources that fail, and the door that closes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.interfaces import IPushProducer
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer

from tests.front.test_refusals import refuse
from tests.front.wire import Door, Seen, Wire, later, replies, take

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


# -- the client leaves -----------------------------------------------------------------------


def begun(seen: Seen) -> None:
    seen.request.begin(200, b"OK", [b"Content-Length: 10"], 10, b"some")


@pytest.mark.parametrize("leave", [Wire.vanish, Wire.finish_sending])
@pytest.mark.parametrize(
    ("octets", "requests", "logged"),
    [
        (b"", 0, 0),
        (b"GET / HT", 0, 0),
        (GET % b"now", 1, 1),
        (GET % b"now" + b"GET", 1, 1),
        (PUT % (b"later", 5), 1, 1),
        (PUT % (b"take", 5) + b"he", 1, 1),
        (PUT % (b"refuse", 5) + b"he", 1, 1),
        (PUT % (b"refuse", 10**9) + b"he", 1, 1),
        (b"bad\r\n\r\n", 0, 1),
    ],
)
def test_a_client_that_leaves_leaves_nothing_behind(
    door: Door, octets: bytes, requests: int, logged: int, leave: Callable[[Wire], None]
) -> None:
    """In each state, by a reset or by closing its side; what was owed is logged once."""
    door.script.paths[b"/refuse"] = refuse
    wire = door.connect()
    wire.send(octets)
    leave(wire)

    assert not wire.connected
    assert (len(door.seen), len(door.logged)) == (requests, logged)
    assert not door.site.channels


@pytest.mark.parametrize("behaviour", [b"later", b"begun", b"paused"])
@pytest.mark.parametrize("has_body", [False, True])
def test_i10_i11_a_reset_is_told_once(door: Door, behaviour: bytes, has_body: bool) -> None:
    """Before the answer, in the middle of it, with the body outstanding or not."""
    door.script.paths[b"/begun"] = begun
    door.script.paths[b"/paused"] = lambda seen: seen.request.body_producer.pauseProducing()
    wire = door.connect()
    wire.send(PUT % (behaviour, 10) if has_body else GET % behaviour)
    wire.vanish()

    seen = door.seen[0]
    assert seen.gone == ["client went away"]
    assert door.logged == [seen.request]
    assert not seen.request.live
    seen.answer("too late")
    seen.request.abort()
    assert len(door.logged) == 1


def test_i10_a_client_that_ends_in_its_body_is_told(door: Door) -> None:
    """It may still be reading: 400; the resource must not take the body for whole."""
    wire = door.connect()
    wire.send(PUT % (b"take", 10) + b"abc")
    wire.finish_sending()

    seen = door.seen[0]
    assert (len(seen.gone), seen.ended) == (1, 0)
    assert replies(wire.received)[0].status == 400
    assert wire.state == "closed"


def test_i10_a_client_that_ends_in_a_body_that_nobody_reads_is_noticed(door: Door) -> None:
    """As soon as it is read again."""
    wire = door.connect()
    wire.send(PUT % (b"take", 10**6) + b"abc")
    producer = door.seen[0].request.body_producer
    producer.pauseProducing()
    wire.finish_sending()
    assert not door.seen[0].gone
    producer.resumeProducing()
    wire.turn()

    assert len(door.seen[0].gone) == 1


@pytest.mark.parametrize("pipelined", [b"", GET % b"now"])
def test_h09_a_client_that_closes_its_side_gets_its_answers(door: Door, pipelined: bytes) -> None:
    """All of them, whole; then the connection is closed."""
    wire = door.connect()
    wire.send(GET % b"later" + pipelined)
    wire.finish_sending()
    assert wire.state == "open"
    seen = door.seen[0]
    seen.request.begin(200, b"OK", [b"Content-Length: 5"], 5, b"ab")
    door.wait(100)
    seen.request.write(b"cde")
    seen.request.finish()
    wire.turn()

    first, *others = replies(wire.received)
    assert first.body == b"abcde"
    assert len(others) == bool(pipelined)
    assert not seen.gone
    assert wire.state == "closed"


def test_h09_half_of_a_next_request_is_none(door: Door) -> None:
    """The client said that no more will come."""
    wire = door.connect()
    wire.send(GET % b"later" + b"GET /now HT")
    wire.finish_sending()
    door.seen[0].answer("first")
    wire.turn()

    assert [reply.body for reply in replies(wire.received)] == [b"first"]
    assert wire.state == "closed"


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("behaviour", [b"take", b"later", b"now"])
def test_i10_a_body_that_breaks_off_behind_another_request_is_not_waited_for(
    door: Door, behaviour: bytes, framing: bytes
) -> None:
    """Whether it is taken, asked for later, or to be skipped: nothing more will come."""
    wire = door.connect()
    wire.send(GET % b"later" + b"PUT /%s HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n3" % (behaviour, framing))
    wire.finish_sending()
    door.seen[0].answer("first")
    wire.turn()
    if behaviour == b"later":
        door.seen[1].request.receive_body(door.seen[1])
        wire.turn()

    first, second = replies(wire.received)
    assert first.body == b"first"
    assert second.status == (200 if behaviour == b"now" else 400)
    assert not door.seen[1].ended
    assert wire.state == "closed"


def test_h09_a_client_may_close_its_side_before_its_body_is_asked_for(door: Door) -> None:
    """Body and close_notify come in one turn; what came whole is whole."""
    wire = door.connect()
    channel = door.channel(wire)
    channel.dataReceived(PUT % (b"later", 5) + b"whole")
    # TLSServer delivers both, though the first one paused it.
    wire.reading = False
    channel.readConnectionLost()
    seen = door.seen[0]
    assert not seen.gone
    seen.request.receive_body(seen)
    seen.answer()
    wire.turn()

    assert [reply.body for reply in replies(wire.received)] == [b"/later whole"]
    assert wire.state == "closed"


def test_h09_what_waits_behind_a_slow_reader_is_served_after_the_end(door: Door) -> None:
    """The next request came whole, in one turn with the end, while nothing could be sent."""
    wire = door.connect()
    wire.client_reads = False
    channel = door.channel(wire)
    channel.dataReceived(GET % b"now" + GET % b"now")
    wire.reading = False
    channel.readConnectionLost()
    wire.read()

    assert len(replies(wire.received)) == 2
    assert wire.state == "closed"


# -- aborts ------------------------------------------------------------------------------------


def test_e_an_abort_cuts_the_connection(door: Door) -> None:
    """What was sent must not look whole: no terminator, no clean close, not one more octet."""
    wire = door.connect()
    wire.send(GET % b"later" + GET % b"now")
    seen = door.seen[0]
    seen.request.begin(200, b"OK", [b"X: y"], None, b"some")
    seen.request.abort()
    seen.request.write(b"more")
    seen.request.finish()
    seen.request.abort()
    assert wire.received.endswith(b"\r\n4\r\nsome\r\n")
    wire.turn()

    assert wire.state == "aborted"
    assert wire.received.endswith(b"\r\n4\r\nsome\r\n")
    assert len(door.seen) == 1


def test_an_abort_while_the_body_flows_stops_it(door: Door) -> None:
    """The sink gets nothing more."""
    wire = door.connect()
    wire.send(PUT % (b"take", 10**6) + b"abc")
    door.seen[0].request.abort()
    wire.outbox += b"x" * 100_000
    wire.turn()

    assert bytes(door.seen[0].body) == b"abc"


# -- resources that fail -----------------------------------------------------------------------


def boom(seen: Seen) -> None:
    raise ZeroDivisionError


def begin_and_boom(seen: Seen) -> None:
    begun(seen)
    raise ZeroDivisionError


def answer_and_boom(seen: Seen) -> None:
    seen.answer("fine")
    raise ZeroDivisionError


def take_and_boom(seen: Seen) -> None:
    seen.request.receive_body(seen)
    raise ZeroDivisionError


@pytest.mark.parametrize("body", [0, 3, 10**6])
@pytest.mark.parametrize("failure", [boom, take_and_boom])
def test_i27_a_resource_that_raises_is_a_500(
    door: Door, failure: Callable[[Seen], None], body: int
) -> None:
    """The client hears of it without details, the operator with them."""
    door.script.paths[b"/boom"] = failure
    wire = door.connect()
    with capturedLogs() as events:
        wire.send((PUT % (b"boom", body)) + b"abc"[:body])

    (reply,) = replies(wire.received)
    assert (reply.status, b"Zero" in reply.body) == (500, False)
    assert wire.state == ("half-closed" if body > 3 else "open")
    (failed,) = [event for event in events if event["log_level"] is LogLevel.critical]
    assert failed["log_failure"].check(ZeroDivisionError)
    assert door.logged == [door.seen[0].request]
    assert door.seen[0].gone == ["internal error"]


def test_i27_a_resource_that_raises_in_its_answer_cuts_the_connection(door: Door) -> None:
    """Half an answer can't be ended honestly."""
    door.script.paths[b"/boom"] = begin_and_boom
    wire = door.connect()
    with capturedLogs():
        wire.send(GET % b"boom")

    assert wire.state == "aborted"


def test_i27_a_resource_that_raises_after_its_answer_costs_nobody_anything(door: Door) -> None:
    """The answer stands, the connection goes on."""
    door.script.paths[b"/boom"] = answer_and_boom
    wire = door.connect()
    with capturedLogs() as events:
        wire.send(GET % b"boom" + GET % b"now")

    assert len(events) == 1
    assert [reply.body for reply in replies(wire.received)] == [b"fine", b"/now "]


def test_i27_a_listener_that_raises_does_not_keep_a_connection(door: Door) -> None:
    """Neither the site's set nor its drain may depend on it."""
    wire = door.connect()
    wire.send(GET % b"later")

    def listener(reason: str) -> None:
        raise ZeroDivisionError

    door.seen[0].request.when_gone = listener
    with capturedLogs() as events:
        wire.vanish()

    assert [event["log_failure"].type for event in events] == [ZeroDivisionError]
    assert not door.site.channels
    assert len(door.logged) == 1


def test_f05_a_log_that_raises_costs_no_answer(door: Door) -> None:
    """Requests go on, and somebody hears of it."""
    log = door.site.log

    def broken(request: object) -> None:
        raise OSError("disk full")

    door.site.log = broken
    wire = door.connect()
    with capturedLogs() as events:
        wire.send(GET % b"now" + GET % b"now")
    door.site.log = log

    assert len(replies(wire.received)) == 2
    assert [event["log_failure"].type for event in events] == [OSError, OSError]
    door.seen.clear()


def test_i27_a_sink_that_raises_ends_its_connection(door: Door) -> None:
    """As Twisted does with a protocol that raises; the resource hears that it is over."""

    class Bad(Seen):
        def body_data(self, data: bytes) -> None:
            raise ZeroDivisionError

    door.script.paths[b"/bad"] = lambda seen: seen.request.receive_body(Bad(seen.request))
    wire = door.connect()
    wire.send(PUT % (b"bad", 10))
    wire.send(b"abc")

    assert [fault.type for fault in wire.faults] == [ZeroDivisionError]
    wire.faults.clear()
    assert len(door.seen[0].gone) == 1
    assert not wire.connected


# -- back-pressure of responses ------------------------------------------------------------------


@implementer(IPushProducer)
class Source:
    """A registry that sends."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


def test_h03_a_client_that_does_not_read_pauses_the_source(door: Door) -> None:
    """As soon as anything is queued, and until nothing is."""
    wire = door.connect()
    wire.send(GET % b"later")
    seen, source = door.seen[0], Source()
    seen.request.register_producer(source)
    seen.request.begin(200, b"OK", [b"Content-Length: 300"], 300, b"a" * 100)
    assert source.calls == []
    wire.client_reads = False
    seen.request.write(b"b" * 100)
    assert source.calls == ["pause"]
    wire.read()
    assert source.calls == ["pause", "resume"]
    seen.request.write(b"c" * 100)
    seen.request.unregister_producer()
    seen.request.finish()

    assert source.calls == ["pause", "resume"]
    assert len(replies(wire.received)[0].body) == 300


def test_a_source_that_begins_behind_a_full_queue_waits(door: Door) -> None:
    """What one response left in the queue holds back the next one's source, too."""
    wire = door.connect()
    wire.send(GET % b"later")
    seen, source = door.seen[0], Source()
    wire.client_reads = False
    seen.request.begin(200, b"OK", [b"Content-Length: 2"], 2, b"a")
    seen.request.register_producer(source)
    assert source.calls == ["pause"]
    wire.read()
    assert source.calls == ["pause", "resume"]
    seen.request.unregister_producer()
    seen.request.write(b"b")
    seen.request.finish()
    assert replies(wire.received)[0].body == b"ab"


def test_the_next_request_waits_until_the_answer_left(door: Door) -> None:
    """Then it is served without any further octet from the client."""
    wire = door.connect()
    wire.client_reads = False
    wire.send(GET % b"now" + GET % b"now")
    assert len(door.seen) == 1
    wire.read()

    assert len(replies(wire.received)) == 2
    wire.send(GET % b"now")
    assert len(replies(wire.received)) == 3


def test_a_source_is_stopped_with_its_connection(door: Door) -> None:
    """Twisted's contract for producers."""
    wire = door.connect()
    wire.send(GET % b"later")
    source = Source()
    door.seen[0].request.register_producer(source)
    wire.vanish()

    assert source.calls == ["stop"]


@pytest.mark.parametrize("head", [b"GET /now HTTP/1.0\r\n\r\n", PUT % (b"now", 10**6)])
def test_a_last_answer_that_waits_is_still_the_last(door: Door, head: bytes) -> None:
    """Closing waits for the queue and is not forgotten when it is empty."""
    wire = door.connect()
    wire.client_reads = False
    wire.send(head)
    door.wait(3)
    wire.read()
    assert len(replies(wire.received)) == 1
    door.wait(4)

    assert wire.state == "closed"


# -- the door closes -----------------------------------------------------------------------------


def test_i14_draining_ends_when_the_last_request_has(door: Door) -> None:
    """Idle connections go at once; the others' next answer ends with Connection: close."""
    fresh, idle, busy, sending = (door.connect() for _ in range(4))
    idle.send(GET % b"now")
    busy.send(GET % b"later" + GET % b"now")
    sending.send(PUT % (b"echo", 5) + b"he")
    drained: list[None] = []
    door.site.drain().addCallback(drained.append)
    for wire in door.wires:
        wire.turn()
    assert [wire.state for wire in door.wires] == ["open", "closed", "open", "open"]

    sending.send(b"llo")
    (reply,) = replies(sending.received)
    assert (reply.body, reply["Connection"]) == (b"/echo hello", [b"close"])
    assert not drained
    door.seen[1].answer("last")
    busy.turn()
    (reply,) = replies(busy.received)
    assert (reply.body, reply["Connection"]) == (b"last", [b"close"])
    assert not drained
    fresh.send(GET % b"now")
    fresh.turn()
    (reply,) = replies(fresh.received)
    assert (reply.status, reply["Connection"]) == (200, [b"close"])
    assert drained == [None]


def test_i14_who_was_accepted_and_does_not_ask_holds_up_the_draining_for_seconds(
    door: Door,
) -> None:
    """As long as it might have been silent anyway."""
    door.connect()
    drained: list[None] = []
    door.site.drain().addCallback(drained.append)
    door.wait(9)
    assert not drained
    door.wait(2)

    assert drained == [None]


def test_i14_a_response_that_began_before_the_draining_ends_its_connection(door: Door) -> None:
    """It is whole, and nothing follows it."""
    wire = door.connect()
    wire.send(GET % b"later")
    seen = door.seen[0]
    seen.request.begin(200, b"OK", [b"Content-Length: 4"], 4, b"ab")
    drained: list[None] = []
    door.site.drain().addCallback(drained.append)
    seen.request.write(b"cd")
    seen.request.finish()
    wire.turn()

    assert replies(wire.received)[0].body == b"abcd"
    assert drained == [None]


def test_i14_a_rest_that_is_being_skipped_does_not_hold_up_the_draining(door: Door) -> None:
    """Its connection would be idle next."""
    door.script.paths[b"/refuse"] = refuse
    wire = door.connect()
    wire.send(PUT % (b"refuse", 100))
    drained: list[None] = []
    door.site.drain().addCallback(drained.append)
    assert not drained
    wire.send(b"x" * 100)

    assert drained == [None]
    assert wire.state == "closed"


def test_i14_a_half_sent_head_is_served_or_times_out(door: Door) -> None:
    """The client could not know."""
    served, slow = door.connect(), door.connect()
    served.send(b"GET /no")
    slow.send(b"GET /no")
    drained: list[None] = []
    door.site.drain().addCallback(drained.append)
    served.send(b"w HTTP/1.1\r\nHost: a\r\n\r\n")
    (reply,) = replies(served.received)
    assert (reply.status, reply["Connection"]) == (200, [b"close"])
    assert not drained
    door.wait(30)

    assert replies(slow.received)[0].status == 408
    assert drained == [None]


def test_i14_with_nobody_there_draining_is_over_at_once(door: Door) -> None:
    """And a client that slips in gets one answer."""
    drained: list[None] = []
    door.site.drain().addCallback(drained.append)
    assert drained == [None]
    wire = door.connect()
    wire.send(GET % b"now")

    assert replies(wire.received)[0]["Connection"] == [b"close"]
    assert wire.state == "closed"


def test_i14_stop_cuts_what_is_left(door: Door) -> None:
    """The limit of the draining, or a second signal."""
    wire = door.connect()
    wire.send(GET % b"later")
    drained: list[None] = []
    door.site.drain().addCallback(drained.append)
    door.site.stop()
    wire.turn()

    assert wire.state == "aborted"
    assert drained == [None]
    assert len(door.seen[0].gone) == 1
    assert not door.clock.getDelayedCalls()


def test_a_channel_tells_its_state(door: Door) -> None:
    """For whoever debugs; without a word of the request's secrets."""
    wire = door.connect()
    assert "HEAD" in repr(door.channel(wire))
    wire.send(b"GET /later HTTP/1.1\r\nHost: a\r\nAuthorization: Basic canary\r\n\r\n")
    assert "ANSWER" in repr(door.channel(wire))
    assert "canary" not in repr(door.channel(wire)) + repr(door.seen[0].request)


# -- whoever waits for the end ---------------------------------------------------------------


def watched(act: Callable[[Seen], None], overs: list[bool]) -> Callable[[Seen], None]:
    """``act``, and for each call of ``when_over`` whether the request was still live."""

    def render(seen: Seen) -> None:
        seen.request.when_over = lambda: overs.append(seen.request.live)
        act(seen)

    return render


@pytest.mark.parametrize("leave", [Wire.vanish, Wire.finish_sending])
@pytest.mark.parametrize(
    ("act", "octets"),
    [
        (Seen.answer, GET % b"x"),
        (later, GET % b"x"),
        (begun, GET % b"x"),
        (take, PUT % (b"x", 5) + b"he"),
        (take, PUT % (b"x", 5) + b"hello"),
        (refuse, PUT % (b"x", 10**9) + b"he"),
        (lambda seen: seen.request.abort(), GET % b"x"),
    ],
)
def test_the_end_of_a_request_is_told_once(
    door: Door, act: Callable[[Seen], None], octets: bytes, leave: Callable[[Wire], None]
) -> None:
    """Answered, refused, aborted, left alone: however it ended, and when it has."""
    overs: list[bool] = []
    door.script.paths[b"/x"] = watched(act, overs)
    wire = door.connect()
    wire.send(octets)
    answered = act in (Seen.answer, refuse) or wire.state == "aborted"
    assert overs == [False] * answered
    leave(wire)
    if wire.connected:  # it closed its side behind a whole request, and still reads
        assert overs == []
        door.seen[0].request.abort()
        wire.turn()

    assert overs == [False]


def test_the_end_is_told_once_where_whoever_hears_of_the_client_aborts(door: Door) -> None:
    """And logged once."""
    overs: list[bool] = []

    def act(seen: Seen) -> None:
        seen.request.when_gone = lambda reason: seen.request.abort()

    door.script.paths[b"/x"] = watched(act, overs)
    wire = door.connect()
    wire.send(GET % b"x")
    wire.vanish()

    assert overs == [False]
    assert len(door.logged) == 1


def test_the_end_is_told_when_the_answer_is_given_and_not_before(door: Door) -> None:
    """Its last octet counts; that the client has read it does not."""
    overs: list[bool] = []
    door.script.paths[b"/x"] = watched(begun, overs)
    wire = door.connect()
    wire.client_reads = False
    wire.send(GET % b"x")
    request = door.seen[0].request
    request.write(b"whole.")
    assert overs == []
    request.finish()
    assert overs == [False]
    request.finish()
    wire.read()
    wire.vanish()

    assert overs == [False]


def test_the_end_is_told_before_the_next_request_begins(door: Door) -> None:
    """Who holds a lock for one must not hold up the next on the same connection."""
    events: list[str] = []

    def render(seen: Seen) -> None:
        events.append("begin")
        seen.request.when_over = lambda: events.append("end")
        seen.answer()

    door.script.paths[b"/x"] = render
    door.connect().send(GET % b"x" * 3)

    assert events == ["begin", "end"] * 3


def test_the_end_is_told_after_the_client_was_said_to_be_gone(door: Door) -> None:
    """What was under way for it has been ended by then; a body's deadline is one such end."""
    events: list[str] = []

    def render(seen: Seen) -> None:
        seen.request.when_gone = events.append
        seen.request.when_over = lambda: events.append("over")
        seen.request.receive_body(seen)

    door.script.paths[b"/x"] = render
    wire = door.connect()
    wire.send(PUT % (b"x", 5) + b"he")
    door.wait(70)

    assert events == ["client sends its body too slowly", "over"]
    assert replies(wire.received, "PUT")[0].status == 408


def test_f05_an_end_that_raises_costs_nobody_anything(door: Door) -> None:
    """It is logged; the answer is out, the next request is served."""

    def fail() -> None:
        raise RuntimeError("bug")

    def render(seen: Seen) -> None:
        seen.request.when_over = fail
        seen.answer()

    door.script.paths[b"/x"] = render
    wire = door.connect()
    with capturedLogs() as events:
        wire.send(GET % b"x" * 2)

    assert [event["log_level"] for event in events] == [LogLevel.critical] * 2
    assert [reply.status for reply in replies(wire.received)] == [200, 200]

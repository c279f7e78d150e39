"""regguard.front.channel: requests in, responses out, one after the other."""

from __future__ import annotations

import pytest
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from zope.interface.verify import verifyObject

from regguard.front import Request
from regguard.front.request import BodySink
from tests.front.wire import SEGMENT, Door, Seen, replies

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
CHUNKED = (
    b"PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n"
)


def test_a_channel_keeps_the_contracts_it_names(door: Door) -> None:
    """Twisted asks for both by interface."""
    channel = door.channel(door.connect())

    verifyObject(IHalfCloseableProtocol, channel)
    verifyObject(IPushProducer, channel)


def test_an_answer_is_whole_and_the_connection_goes_on(door: Door) -> None:
    """HTTP/1.1 keeps a connection unless somebody objects."""
    wire = door.connect()
    wire.send(GET % b"now", GET % b"now")

    first, second = replies(wire.received)
    assert (first.status, first.body) == (200, b"/now ")
    assert first["Content-Length"] == [b"5"]
    assert first["Date"] == [b"Sun, 06 Nov 1994 08:49:37 GMT"]
    assert not first["Connection"]
    assert second == first
    assert wire.state == "open"


def test_the_log_gets_the_facts(door: Door) -> None:
    """Who asked, what was answered, and how many octets went either way."""
    wire = door.connect()
    request = PUT % (b"echo", 3, b"abc")
    wire.send(request)

    (logged,) = door.logged
    assert logged is door.seen[0].request
    assert (logged.client, logged.status) == ("192.0.2.7", 200)
    assert (logged.head_bytes_in, logged.body_bytes_in) == (len(request) - 3, 3)
    assert logged.body_bytes_out == len(b"/echo abc")
    assert logged.head_bytes_out + logged.body_bytes_out == len(wire.received)


def test_a32_answers_keep_the_order_of_the_requests(door: Door) -> None:
    """CVE-2023-46137, CVE-2024-41671: a quick second answer must not overtake a slow first."""
    wire = door.connect()
    wire.send(GET % b"later" + GET % b"now" + GET % b"later" + GET % b"now")

    assert len(door.seen) == 1
    assert not wire.received
    door.seen[0].answer("first")
    assert [reply.body for reply in replies(wire.received)] == [b"first", b"/now "]
    door.seen[2].answer("third")
    wire.turn()
    assert [reply.body for reply in replies(wire.received)] == [
        b"first",
        b"/now ",
        b"third",
        b"/now ",
    ]


def test_a32_requests_behind_a_body_keep_their_place(door: Door) -> None:
    """What stands behind the end of a body is the next request, in whatever segment."""
    wire = door.connect()
    wire.send(PUT % (b"echo", 5, b"he"), b"llo" + CHUNKED + GET % b"now")

    assert [reply.body for reply in replies(wire.received)] == [
        b"/echo hello",
        b"/echo hello world",
        b"/now ",
    ]


def test_a33_pipelined_octets_stop_the_reading(door: Door) -> None:
    """At most what was read in one turn waits in memory."""
    wire = door.connect()
    wire.send(GET % b"later" + (GET % b"now") * 10_000)

    assert not wire.reading
    assert len(wire.outbox) >= len(GET % b"now") * 10_000 - 2 * SEGMENT
    door.seen[0].answer("slow")
    wire.turn()
    assert len(replies(wire.received)) == 10_001
    assert wire.reading


def test_a33_answers_that_nobody_reads_stop_the_reading(door: Door) -> None:
    """Requests are a few octets and answers many: without this a client fills our memory."""
    wire = door.connect()
    wire.client_reads = False
    wire.send((GET % b"now") * 10_000)

    assert not wire.reading
    assert len(door.seen) < 10
    assert len(wire.queue) < 64 * 1024
    wire.read()
    assert len(replies(wire.received)) == 10_000


@pytest.mark.parametrize(
    ("request_head", "kept", "told"),
    [
        (b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n", True, []),
        (b"GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False, [b"close"]),
        (b"GET /now HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", False, [b"close"]),
        (b"GET /now HTTP/1.0\r\n\r\n", False, [b"close"]),
        (b"GET /now HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True, [b"keep-alive"]),
    ],
)
def test_persistence_is_what_the_client_asks_for(
    door: Door, request_head: bytes, kept: bool, told: list[bytes]
) -> None:
    """RFC 9112 section 9.3, and the answer says it."""
    wire = door.connect()
    wire.send(request_head + GET % b"now")

    first, *others = replies(wire.received)
    assert first["Connection"] == told
    assert len(others) == kept
    assert wire.state == ("open" if kept else "closed")


def test_head_gets_the_fields_without_the_body(door: Door) -> None:
    """The same Content-Length, and the next request is not disturbed."""
    wire = door.connect()
    wire.send(b"HEAD /now HTTP/1.1\r\nHost: a\r\n\r\n" + GET % b"now")

    head, get = replies(wire.received, "HEAD", "GET")
    assert (head.body, get.body) == (b"", b"/now ")
    assert head.fields == get.fields
    assert door.logged[0].body_bytes_out == 0


def stream(seen: Seen, length: int | None) -> None:
    """Begin a response of three pieces."""
    seen.request.begin(206, b"Some", [b"X: y", *framing(length)], length, b"one")


def framing(length: int | None) -> list[bytes]:
    return [] if length is None else [b"Content-Length: %d" % length]


@pytest.mark.parametrize("length", [11, None])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_streamed_response_is_framed_for_its_client(
    door: Door, version: bytes, length: int | None
) -> None:
    """By length, by chunks, and for HTTP/1.0 by the close."""
    door.script.paths[b"/stream"] = lambda seen: stream(seen, length)
    wire = door.connect()
    wire.send(
        b"GET /stream HTTP/%s\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" % version + GET % b"now"
    )
    for piece in (b" two", b" thr"):
        door.seen[0].request.write(piece)
    door.seen[0].request.finish()
    wire.turn()

    first, *others = replies(wire.received)
    assert (first.status, first["X"], first.body) == (206, [b"y"], b"one two thr")
    assert first["Transfer-Encoding"] == (
        [b"chunked"] if length is None and version == b"1.1" else []
    )
    by_close = length is None and version == b"1.0"
    assert len(others) == (0 if by_close else 1)
    assert wire.state == ("closed" if by_close else "open")
    if not others:
        assert first["Connection"] == [b"close"]


def test_an_empty_streamed_response_is_whole(door: Door) -> None:
    """No empty chunk may end it early, and one must end it."""
    door.script.paths[b"/stream"] = lambda seen: seen.request.begin(200, None, [b"X: y"], None)
    wire = door.connect()
    wire.send(GET % b"stream")
    door.seen[0].request.write(b"")
    door.seen[0].request.write(b"late")
    door.seen[0].request.finish()

    assert replies(wire.received)[0].body == b"late"


def test_a_large_first_piece_is_sent_whole(door: Door) -> None:
    """Above the size that is joined with the head."""
    data = b"x" * 100_000
    door.script.paths[b"/stream"] = lambda seen: seen.request.begin(
        200, b"OK", [b"Content-Length: 100000"], 100_000, data
    )
    wire = door.connect()
    wire.send(GET % b"stream")
    door.seen[0].request.finish()

    assert replies(wire.received)[0].body == data


def test_a22_a_body_of_get_is_a_body(door: Door) -> None:
    """CL.0: the request that hides in it is never seen."""
    hidden = GET % b"hidden"
    wire = door.connect()
    wire.send(b"GET /now HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden)
    wire.send(GET % b"now")

    assert [reply.body for reply in replies(wire.received)] == [b"/now ", b"/now "]
    assert len(door.seen) == 2


# -- the body -----------------------------------------------------------------------------


def test_a_body_stays_with_the_client_until_it_is_wanted(door: Door) -> None:
    """One read of it may wait here; the rest fills the client's own buffers."""
    wire = door.connect()
    wire.send(PUT % (b"later", 1_000_000, b""))
    wire.send(b"x" * 500_000)

    assert len(wire.outbox) >= 500_000 - 64 * 1024
    seen = door.seen[0]
    assert (wire.reading, seen.request.waits_for_body) == (False, False)
    seen.request.receive_body(seen)
    wire.turn()
    assert bytes(seen.body) == b"x" * 500_000
    assert (wire.reading, seen.request.waits_for_body) == (True, True)
    wire.send(b"x" * 500_000)
    assert (len(seen.body), seen.ended) == (1_000_000, 1)
    assert (wire.reading, seen.request.waits_for_body) == (True, False)
    seen.answer("done")
    assert replies(wire.received)[0].body == b"done"


def test_a_body_that_came_with_its_head_is_delivered(door: Door) -> None:
    """Also when it is asked for much later."""
    wire = door.connect()
    wire.send(PUT % (b"later", 3, b"abc") + GET % b"now")
    seen = door.seen[0]
    seen.on_end = Seen.answer
    seen.request.receive_body(seen)

    assert [reply.body for reply in replies(wire.received)] == [b"/later abc", b"/now "]


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 0\r\n"])
def test_a_request_without_body_ends_at_once(door: Door, framing: bytes) -> None:
    """Who asks for the body hears of its end."""
    wire = door.connect()
    wire.send(b"PUT /echo HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n")

    assert door.seen[0].ended == 1
    assert replies(wire.received)[0].body == b"/echo "


def test_the_taker_of_a_body_can_pause_the_client(door: Door) -> None:
    """Back-pressure: while the registry is slow, nothing is read."""
    wire = door.connect()
    wire.send(PUT % (b"take", 300_000, b"start"))
    seen = door.seen[0]
    producer = seen.request.body_producer

    producer.pauseProducing()
    wire.send(b"x" * 200_000)
    assert (len(seen.body), wire.reading) == (5, False)
    producer.pauseProducing()
    producer.resumeProducing()
    producer.resumeProducing()
    wire.turn()
    assert len(seen.body) == 200_005
    wire.send(b"x" * 99_995)
    assert seen.ended == 1
    producer.stopProducing()
    seen.answer("done")
    assert replies(wire.received)[0].body == b"done"


def test_the_taker_of_a_body_can_pause_in_what_came_with_the_head(door: Door) -> None:
    """The registry takes nothing more; then there is nothing to read, and nobody is late."""

    def hold(seen: Seen) -> None:
        seen.request.receive_body(Holding(seen))

    class Holding:
        def __init__(self, seen: Seen) -> None:
            self._seen = seen

        def body_data(self, data: bytes) -> None:
            self._seen.body_data(data)
            self._seen.request.body_producer.pauseProducing()

        def body_end(self) -> None:
            self._seen.body_end()

    door.script.paths[b"/hold"] = hold
    wire = door.connect()
    wire.send(PUT % (b"hold", 10, b"start"))
    seen = door.seen[0]
    assert not wire.reading
    wire.send(b"-rest")
    door.wait(1000)
    assert (bytes(seen.body), seen.gone) == (b"start", [])
    seen.request.body_producer.resumeProducing()
    wire.turn()

    assert (bytes(seen.body), seen.ended) == (b"start-rest", 1)


def test_a_late_pause_does_not_stop_the_next_request(door: Door) -> None:
    """The registry's transport may pause its producer when the body is long over."""
    wire = door.connect()
    wire.send(PUT % (b"echo", 3, b"abc"))
    door.seen[0].request.body_producer.pauseProducing()
    wire.send(GET % b"now")

    assert [reply.body for reply in replies(wire.received)] == [b"/echo abc", b"/now "]
    door.seen[0].request.body_producer.pauseProducing()
    door.wait(61)
    assert wire.state == "closed"


def test_a_late_answer_before_the_last_octets_of_a_body_keeps_what_follows(door: Door) -> None:
    """A sink may answer while it is handed the last piece; the next request is behind it."""

    class Hasty(Seen):
        def body_data(self, data: bytes) -> None:
            super().body_data(data)
            self.answer()

    def take_hastily(seen: Seen) -> None:
        seen.request.receive_body(Hasty(seen.request))

    door.script.paths[b"/hasty"] = take_hastily
    wire = door.connect()
    wire.send(PUT % (b"hasty", 3, b""))
    wire.send(b"abc" + GET % b"now")

    assert [reply.body for reply in replies(wire.received)] == [b"/hasty abc", b"/now "]


# -- 100 Continue -------------------------------------------------------------------------

EXPECT = b"PUT /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a23_a_100_is_sent_only_when_the_resource_says_so(door: Door) -> None:
    """Not when the head came, and once."""
    wire = door.connect()
    wire.send(EXPECT % b"later")
    assert not wire.received

    seen = door.seen[0]
    seen.on_end = Seen.answer
    seen.request.send_continue()
    seen.request.send_continue()
    seen.request.receive_body(seen)
    assert wire.received == CONTINUE
    wire.send(b"hello")
    (reply,) = replies(wire.received)
    assert (reply.interim, reply.body) == ([100], b"/later hello")
    assert wire.state == "open"


def test_a23_a_refused_client_gets_no_100(door: Door) -> None:
    """Its next octets could be the body or not: the connection ends."""
    wire = door.connect()
    wire.send(EXPECT % b"now")

    (reply,) = replies(wire.received)
    assert (reply.status, reply.interim, reply["Connection"]) == (200, [], [b"close"])
    assert wire.state == "half-closed"


def test_a23_who_sends_without_waiting_gets_no_100(door: Door) -> None:
    """RFC 9110 section 10.1.1: a server may leave it out when it has received some content."""
    wire = door.connect()
    wire.send(EXPECT % b"echo" + b"hello")

    (reply,) = replies(wire.received)
    assert (reply.interim, reply.body) == ([], b"/echo hello")


@pytest.mark.parametrize(
    "head",
    [
        b"PUT /echo HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        b"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_a23_who_did_not_ask_gets_no_100(door: Door, head: bytes) -> None:
    """Nor does an HTTP/1.0 client, whatever it sent."""
    wire = door.connect()
    wire.send(head)
    assert not wire.received
    wire.send(b"hello")
    assert replies(wire.received)[0].interim == []


def test_a23_a_100_never_stands_inside_a_response(door: Door) -> None:
    """Once the final response began it would be part of its body."""
    wire = door.connect()
    wire.send(EXPECT % b"later")
    seen = door.seen[0]
    seen.request.begin(200, b"OK", [b"Content-Length: 4"], 4, b"ab")
    seen.request.send_continue()
    seen.request.write(b"cd")
    seen.request.finish()

    assert replies(wire.received)[0].body == b"abcd"


# -- a request that is over ----------------------------------------------------------------


def test_what_is_done_to_a_request_that_is_over_touches_no_other(door: Door) -> None:
    """A late answer to one request must never become the answer to the next."""
    wire = door.connect()
    wire.send(PUT % (b"later", 3, b"abc"))
    old = door.seen[0]
    old.answer("first")
    wire.send(EXPECT % b"later")
    new = door.seen[1]

    old.answer("for somebody else")
    old.request.begin(200, b"OK", [b"Content-Length: 1"], 1, b"x")
    old.request.write(b"for somebody else")
    old.request.finish()
    old.request.send_continue()
    old.request.receive_body(old)
    old.request.register_producer(object())
    old.request.unregister_producer()
    old.request.abort()
    assert not old.ended
    assert new.request.live
    new.answer("second")

    assert [reply.body for reply in replies(wire.received)] == [b"first", b"second"]


def test_c_a_body_asked_for_too_late_does_not_look_whole(door: Door) -> None:
    """The client is gone; to call its body ended would be a lie to the registry."""
    wire = door.connect()
    wire.send(PUT % (b"later", 5, b"he"))
    wire.vanish()
    seen = door.seen[0]
    seen.request.receive_body(seen)

    assert seen.gone == ["client went away"]
    assert not seen.ended


# -- every cut ------------------------------------------------------------------------------

STREAM = (
    b"\r\n"
    + GET % b"now"
    + b"HEAD /now HTTP/1.1\r\nHost: a\r\n\r\n"
    + PUT % (b"echo", 3, b"abc")
    + b"\r\n"
    + CHUNKED
    + PUT % (b"now", 4, b"lost")
    + b"GET /now HTTP/1.0\r\n\r\n"
)


def test_a35_every_cut_gives_the_same_exchange() -> None:
    """In two pieces at each offset, and one octet at a time."""

    def exchange(*pieces: bytes) -> tuple[bytes, str, list[bytes]]:
        door = Door()
        wire = door.connect()
        wire.send(*pieces)
        outcome = (bytes(wire.received), wire.state, [bytes(seen.body) for seen in door.seen])
        door.check_and_close()
        return outcome

    whole = exchange(STREAM)
    assert len(replies(whole[0], "GET", "HEAD", "PUT", "PUT", "PUT", "GET")) == 6
    for cut in range(len(STREAM)):
        assert exchange(STREAM[:cut], STREAM[cut:]) == whole
    assert exchange(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == whole


def test_the_request_class_takes_any_sink() -> None:
    """BodySink is a structural type; the tests' sink is one."""
    sink: type[BodySink] = Seen
    assert hasattr(sink, "body_data")
    assert hasattr(Request, "receive_body")

"""A short run of ``make fuzz`` with a fixed seed, and what the judge has to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regguard.front import channel
from regguard.http1 import LAST_CHUNK, ChunkedBody, parse_request_head
from regguard.relay import exchange
from regguard.relay.upstream import UpstreamConnection
from tests.fuzz.plan import make_plan
from tests.fuzz.reading import Unreadable, read_chunks, read_request, read_upstream_head
from tests.fuzz.running import Tally, one_batch, spelled

SEED = 5
STREAMS = 4000


def test_bent_streams_break_nothing() -> None:
    """None of the things in ``judge`` fails, and the streams get far enough to matter."""
    tally = Tally()
    for first in range(0, STREAMS, 1000):
        tally.add(one_batch(SEED, first, 1000))

    assert "\n".join(map(str, tally.findings)) == ""
    counts = tally.counts
    assert counts["streams"] == STREAMS
    assert counts["streams that relayed"] > STREAMS / 3
    assert counts["streams with a refusal"] > STREAMS / 3
    assert counts["cut"] > STREAMS / 100
    assert {200, 201, 202, 400, 401, 403, 404, 405, 408, 413, 417, 431, 501, 505} <= set(
        tally.statuses
    )


def test_a_stream_is_made_of_its_seed_and_number_alone() -> None:
    """So a finding can be seen again; and what is printed of it makes it again."""
    names: dict[str, Any] = {"Plan": type(make_plan(1, 1))}
    for number in range(300):
        plan = make_plan(SEED, number)
        again = eval(spelled(plan), names)

        assert make_plan(SEED, number) == plan
        assert (again.pieces, again.ending, again.timing) == (
            plan.pieces,
            plan.ending,
            plan.timing,
        )


# -- faults that were made on purpose --------------------------------------------------------------


def _forgive_lengths(patch: pytest.MonkeyPatch) -> None:
    """The last of two lengths counts, where the first one does for others."""

    def parse(data: bytes) -> Any:
        start, *lines = data.split(b"\r\n")
        lengths = [line for line in lines if line.lower().startswith(b"content-length:")]
        for line in lengths[:-1]:
            lines.remove(line)
        return parse_request_head(b"\r\n".join((start, *lines)))

    patch.setattr(channel, "parse_request_head", parse)


def _unfold(patch: pytest.MonkeyPatch) -> None:
    """A folded line begins a field that nobody sent."""

    def parse(data: bytes) -> Any:
        return parse_request_head(data.replace(b"\r\n ", b"\r\nX-").replace(b"\r\n\t", b"\r\nX-"))

    patch.setattr(channel, "parse_request_head", parse)


def _pass_extensions(patch: pytest.MonkeyPatch) -> None:
    """A chunk's extension goes on."""

    def chunk(data: bytes) -> bytes:
        return b"%x;a=b\r\n%s\r\n" % (len(data), data)

    patch.setattr(exchange, "chunk", chunk)


def _end_cleanly(patch: pytest.MonkeyPatch) -> None:
    """A cut request ends by a FIN."""

    def abort(self: UpstreamConnection) -> None:
        self.exchange = None
        if not self._gone:
            self._gone = True
            self.upstream.connection_lost(self)
            self.transport.loseConnection()

    patch.setattr(UpstreamConnection, "abort", abort)


def _finish_a_cut_body(patch: pytest.MonkeyPatch) -> None:
    """A body that will never be whole gets its last chunk."""
    gone = exchange.Exchange.client_gone

    def client_gone(self: exchange.Exchange, reason: str) -> None:
        if self._connection is not None and self._chunked:
            self._connection.write(LAST_CHUNK)
        gone(self, reason)

    patch.setattr(exchange.Exchange, "client_gone", client_gone)


def _take_the_next_request_for_body(patch: pytest.MonkeyPatch) -> None:
    """What was pipelined behind a body goes on with it."""
    feed = ChunkedBody.feed

    def leak(self: ChunkedBody, data: bytes) -> tuple[bytes, bytes]:
        body, rest = feed(self, data)
        return body + rest, b""

    patch.setattr(ChunkedBody, "feed", leak)


def _forget_an_answer(patch: pytest.MonkeyPatch) -> None:
    """A pipelined request is dropped when the one before it is over."""
    following = channel.Channel._next

    def forget(self: channel.Channel) -> None:
        self._buffer = b""
        following(self)

    patch.setattr(channel.Channel, "_next", forget)


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        (_forgive_lengths, "h11 refuses what was taken"),
        (_unfold, "h11 reads other fields"),
        (_pass_extensions, "upstream"),
        (_end_cleanly, "a cut request ended cleanly"),
        (_finish_a_cut_body, "the registry got what was not sent"),
        (_take_the_next_request_for_body, "the registry got what was not sent"),
        (_forget_an_answer, "a request got lost"),
    ],
)
def test_a_mistake_is_found(
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[[pytest.MonkeyPatch], None],
    kind: str,
) -> None:
    """A judge that finds nothing in a broken guard would prove nothing in a good one."""
    mistake(monkeypatch)
    monkeypatch.setattr("tests.fuzz.running.SHRINKINGS", 0)

    found = {finding.kind for finding in one_batch(SEED, 0, 400).findings}

    assert kind in found


# -- the readers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        b"GET /v2/ HTTP/1.1\nHost: a\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: b \r\n\r\n",
        b"GET /v2/ HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"PUT /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"PUT /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_the_registry_reads_one_form_only(head: bytes) -> None:
    """Also where h11 would take it."""
    with pytest.raises(Unreadable):
        read_upstream_head(head)


@pytest.mark.parametrize(
    "body",
    [b"05\r\nhello\r\n", b"5;a\r\nhello\r\n", b"5 \r\nhello\r\n", b"5\r\nhello!\r\n", b"A\r\n"],
)
def test_the_registry_reads_chunks_of_one_form_only(body: bytes) -> None:
    """No extension, no idle zero, no capital, no octet too many."""
    with pytest.raises(Unreadable):
        read_chunks(body)


def test_a_framing_field_in_the_trailers_does_not_end_the_reading() -> None:
    """h11 judges it where the guard drops it; all else of the message is read by h11."""
    stream = (
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nContent-Length: x\r\n\r\nGET"
    )

    reading = read_request(stream)

    assert reading is not None
    assert (reading.body, reading.whole, reading.rest) == (b"abc", True, b"GET")

"""regguard.http1 against h11: what the guard takes, another strict parser reads the same way.

A difference between the guard's reading and the registry's is request smuggling.  So the guard
may refuse what h11 takes; where it takes what h11 refuses, the reason stands here.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.http1.messages import (
    Message,
    Refused,
    h11_read_request,
    h11_read_response,
    mutated,
    read_request,
    read_response,
    requests,
    responses,
)

CASES = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# h11 judges Content-Length and Transfer-Encoding wherever they stand; in a trailer the guard
# drops them like every other one (A21), so their values decide nothing.
_FRAMING_IN_TRAILER = re.compile(rb"(?i)\n(?:content-length|transfer-encoding)[ \t]*:")


def agree(ours: Message | None, theirs: Message | None) -> bool:
    """Assert the same reading; tells whether there may be a further message."""
    if ours is None:
        return False
    assert theirs is not None
    assert ours == theirs
    return ours.complete


def has_framing_trailer(ours: Message, stream: bytes) -> bool:
    """Whether what h11 minds can be a framing field in the trailers of this message."""
    after_head = stream.partition(b"\r\n\r\n")[2]
    message = after_head[: len(after_head) - len(ours.rest)]
    is_chunked = (b"transfer-encoding", b"chunked") in ours.fields
    return is_chunked and _FRAMING_IN_TRAILER.search(message) is not None


@CASES
@given(mutated(requests()))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
@example(
    b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET"
)
@example(b"PUT /x HTTP/1.0\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: b\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY:  \t \r\nZ: \ta b\t \r\n\r\n")
@example(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\nGET / HTTP/1.1\r\n")
def test_requests_that_are_taken_are_read_as_h11_reads_them(stream: bytes) -> None:
    """Method, target, version, fields, body and the end of the message are the same."""
    while True:
        try:
            ours = read_request(stream)
        except Refused:
            return
        try:
            theirs = h11_read_request(stream)
        except Refused:
            if ours is None or has_framing_trailer(ours, stream):
                return
            raise
        if not agree(ours, theirs):
            return
        assert ours is not None
        stream = ours.rest


@CASES
@given(mutated(responses()), st.sampled_from([b"GET", b"HEAD", b"PUT"]))
@example(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", b"GET")
@example(b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", b"GET")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"HEAD")
@example(b"HTTP/1.0 200 OK\r\n\r\nuntil the close", b"GET")
@example(b"HTTP/1.1 200\r\n\r\nuntil the close", b"GET")
@example(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"GET")
def test_responses_that_are_taken_are_read_as_h11_reads_them(stream: bytes, method: bytes) -> None:
    """Status, reason, fields, body and the end of the message are the same."""
    while True:
        try:
            ours = read_response(stream, method)
        except Refused:
            return
        if ours is not None and ours.start[0] == b"101":
            return  # h11 refuses it unless it asked for an upgrade; the relay always does
        try:
            theirs = h11_read_response(stream, method)
        except Refused:
            if ours is None or has_framing_trailer(ours, stream):
                return
            raise
        if not agree(ours, theirs):
            return
        assert ours is not None
        stream = ours.rest


@pytest.mark.parametrize(
    "trailer", [b"Content-Length: x", b"Transfer-Encoding: x", b"Content-Length: 5"]
)
def test_a21_framing_fields_in_trailers_are_dropped_unread(trailer: bytes) -> None:
    """The one thing that h11 refuses and the guard does not: it decides nothing."""
    stream = (
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n\r\nGET"
    )

    ours = read_request(stream)

    assert ours is not None
    assert (ours.body, ours.rest, ours.complete) == (b"abc", b"GET", True)
    assert [name for name, _ in ours.fields] == [b"host", b"transfer-encoding"]

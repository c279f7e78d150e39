"""regguard.http1.head, responses: what a registry may answer."""

from __future__ import annotations

import pytest

from regguard.http1 import (
    MAX_FIELDS,
    Body,
    ChunkedBody,
    LengthBody,
    MalformedResponse,
    NoBody,
    ResponseHead,
    UntilCloseBody,
    parse_response_head,
    response_body,
)

OK = b"HTTP/1.1 200 OK\r\n"


def parsed(*lines: bytes, start: bytes = OK) -> ResponseHead:
    """The head made of a good status line and these field lines."""
    return parse_response_head(start + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


def refused(*lines: bytes, start: bytes = OK) -> str:
    """The reason of the refusal of such a head."""
    with pytest.raises(MalformedResponse) as caught:
        parsed(*lines, start=start)
    return caught.value.reason


def test_what_a_registry_answers_is_understood() -> None:
    """Status, phrase, fields in their order, framing."""
    head = parsed(
        b"Content-Length: 12",
        b"Docker-Content-Digest: sha256:00",
        b"Link: <a>",
        b"Link: <b>",
        b"Connection: keep-alive, X-Own",
        start=b"HTTP/1.1 206 Partial Content\r\n",
    )

    assert (head.status, head.reason, head.content_length) == (206, b"Partial Content", 12)
    assert [f[2] for f in head.fields if f[1] == b"link"] == [b"<a>", b"<b>"]
    assert head.connection_options == {b"keep-alive", b"x-own"}
    assert (head.chunked, head.close) == (False, False)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"HTTP/1.1 200", b""),
        (b"HTTP/1.1 200 ", b""),
        (b"HTTP/1.1 200 OK", b"OK"),
        (b"HTTP/1.0 200 all is well", b"all is well"),
        (b"HTTP/1.1 200 \xe9t\xe9", b"\xe9t\xe9"),
        (b"HTTP/1.1 200 a\tb", b"a\tb"),
    ],
)
def test_reason_phrases_are_optional_text(line: bytes, reason: bytes) -> None:
    """RFC 9112 section 4."""
    assert parsed(start=line + b"\r\n").reason == reason


@pytest.mark.parametrize(
    "line",
    [
        *(b"HTTP/1.1 -1 OK", b"HTTP/1.1 +200 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 99 OK"),
        *(b"HTTP/1.1 099 OK", b"HTTP/1.1 1000 OK", b"HTTP/1.1 2_0 OK", b"HTTP/1.1 600 OK"),
        *(b"HTTP/1.1 999 OK", b"HTTP/1.1 000 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK"),
        *(b"HTTP/1.1 200OK", b"HTTP/1.1 200\tOK", b"HTTP/1.1 20", b"HTTP/1.1", b"HTTP/1.1 "),
        *(b"HTTP/1.2 200 OK", b"HTTP/2.0 200 OK", b"HTTP/2 200 OK", b"HTTP/0.9 200 OK"),
        *(b"http/1.1 200 OK", b"ICY 200 OK", b"\r\nHTTP/1.1 200 OK", b" HTTP/1.1 200 OK"),
        *(b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nK", b"HTTP/1.1 200 O\x7fK"),
        *(b"HTTP/1.1 200 \x1b[2J", b"HTTP/1.1 \xb2\xb2\xb2 OK", b"", b"GET / HTTP/1.1"),
        *(b"\x15\x03\x01\x00\x02", b"<html>", b"HTTP/1.1 200\r"),
    ],
)
def test_a36_i04_status_lines_that_are_not_exactly_http_1_are_refused(line: bytes) -> None:
    """int() of some language would take several of them."""
    assert refused(start=line + b"\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5, 5"],
        [b"Content-Length: +5"],
        [b"Content-Length: 05"],
        [b"Content-Length: 0x5"],
        [b"Content-Length:"],
        [b"Content-Length: \xa05"],
        [b"Content-Length: %d" % 2**63],
        [b"Content-Length: " + b"9" * 5000],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding:"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"X: a\r\n b"],
        [b"Transfer-Encoding:\r\n chunked"],
        [b"X: a\0b"],
        [b"X: a\rb"],
        [b"X: a\nY: b"],
        [b"X : a"],
        [b"no colon"],
        [b": a"],
        [b"X: \x01"],
        [b"X: \x7f"],
    ],
)
def test_a36_fields_that_two_parsers_could_read_in_two_ways_are_refused(lines: list[bytes]) -> None:
    """The client behind us is the second parser."""
    assert refused(*lines)


def test_a36_an_encoding_in_http_1_0_is_refused() -> None:
    """RFC 9112 section 6.1: the framing of such a message is faulty."""
    assert refused(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK\r\n")


def test_a36_the_number_of_fields_is_bounded() -> None:
    """As for requests."""
    assert len(parsed(*[b"X: 1"] * MAX_FIELDS).fields) == MAX_FIELDS
    assert "too many" in refused(*[b"X: 1"] * 10_000)


@pytest.mark.parametrize(
    ("start", "fields", "close"),
    [
        (OK, [], False),
        (OK, [b"Connection: close"], True),
        (OK, [b"Connection: x", b"Connection: Close"], True),
        (b"HTTP/1.0 200 OK\r\n", [], True),
        (b"HTTP/1.0 200 OK\r\n", [b"Connection: keep-alive"], False),
        (b"HTTP/1.0 200 OK\r\n", [b"Connection: x"], True),
    ],
)
def test_persistence(start: bytes, fields: list[bytes], close: bool) -> None:
    """RFC 9112 section 9.3."""
    assert parsed(*fields, start=start).close is close


@pytest.mark.parametrize(
    ("method", "status", "fields", "kind"),
    [
        (b"GET", 200, [b"Content-Length: 5"], LengthBody),
        (b"GET", 200, [b"Content-Length: 0"], NoBody),
        (b"GET", 200, [b"Transfer-Encoding: chunked"], ChunkedBody),
        (b"GET", 200, [], UntilCloseBody),
        (b"HEAD", 200, [b"Content-Length: 5"], NoBody),
        (b"HEAD", 200, [b"Transfer-Encoding: chunked"], NoBody),
        (b"HEAD", 200, [], NoBody),
        (b"GET", 204, [b"Content-Length: 5"], NoBody),
        (b"GET", 204, [], NoBody),
        (b"GET", 304, [b"Content-Length: 5"], NoBody),
        (b"GET", 304, [b"Transfer-Encoding: chunked"], NoBody),
        (b"GET", 100, [], NoBody),
        (b"GET", 103, [b"Content-Length: 5"], NoBody),
        (b"DELETE", 202, [b"Content-Length: 5"], LengthBody),
    ],
)
def test_a37_where_a_response_ends(
    method: bytes, status: int, fields: list[bytes], kind: type[Body]
) -> None:
    """RFC 9112 section 6.3, rules 1 to 8."""
    head = parsed(*fields, start=b"HTTP/1.1 %d x\r\n" % status)

    body = response_body(head, method)

    assert isinstance(body, kind)
    if kind is NoBody:
        assert body.complete
        assert body.feed(b"hidden") == (b"", b"hidden")


def test_a_response_without_length_ends_with_the_connection() -> None:
    """Everything is body, and the close is its clean end."""
    body = response_body(parsed(), b"GET")

    assert body.feed(b"abc") == (b"abc", b"")
    assert not body.complete
    assert body.ends_with_connection


def test_f01_a_refusal_never_quotes_the_response() -> None:
    """Its reason goes to the client."""
    for line in (b"canary", b"X: canary\0", b"Content-Length: canary"):
        assert "canary" not in refused(line)

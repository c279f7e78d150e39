"""regguard.http1.body: where a body ends, at whatever octets it is cut."""

from __future__ import annotations

import time
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regguard.http1 import ChunkedBody, LengthBody, MalformedRequest, MalformedResponse, NoBody
from regguard.http1.body import MAX_CHUNK_LINE, MAX_TRAILERS
from tests.http1.messages import chunked, feed_all, mutated, pieces


def outcome(parts: list[bytes]) -> tuple[bytes, bytes, bool] | None:
    """Body, what stands behind it and whether it is whole; None where it is refused."""
    body = ChunkedBody()
    try:
        out, rest = feed_all(body, parts)
    except MalformedRequest:
        return None
    return out, rest, body.complete


SAMPLES = [
    b"0\r\n\r\nGET / HTTP/1.1\r\n",
    b"5\r\nhello\r\n1\r\n \r\n6\r\nworld!\r\n0\r\n\r\n",
    b'A;name=value;q="a;\\"b"\r\n0123456789\r\n00\r\n\r\n',
    b"3\r\nabc\r\n0;last\r\nX: y\r\nContent-Length: 5\r\n\r\nrest",
    b"2\r\n\r\n\r\n0\r\n\r\n",
    b"000000000000002\r\nab\r\n0\r\n\r\n\r\n",
]
BROKEN = [
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\r\nhello\rX0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"g\r\n",
    b"5;\r\nhello\r\n0\r\n\r\n",
    b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
    b"3\r\nabc\r\n0\r\nX: \x01\r\n\r\n",
    b"3\n\r\nabc\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("stream", SAMPLES)
def test_a35_every_cut_gives_the_same_body(stream: bytes) -> None:
    """At each pair of offsets, and one octet at a time."""
    whole = outcome([stream])

    assert whole is not None
    assert whole[2]
    for cuts in combinations(range(len(stream) + 1), 2):
        assert outcome(pieces(stream, list(cuts))) == whole
    assert outcome(pieces(stream, list(range(len(stream))))) == whole


@pytest.mark.parametrize("stream", BROKEN)
def test_a35_every_cut_gives_the_same_refusal(stream: bytes) -> None:
    """At each pair of offsets, and one octet at a time."""
    assert outcome([stream]) is None
    for cuts in combinations(range(len(stream) + 1), 2):
        assert outcome(pieces(stream, list(cuts))) is None
    assert outcome(pieces(stream, list(range(len(stream))))) is None


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(chunked()), st.lists(st.integers(0, 200), max_size=8))
def test_a35_cuts_never_change_the_outcome(stream: bytes, cuts: list[int]) -> None:
    """Body, rest and end are those of the uncut stream, and so is a refusal."""
    assert outcome(pieces(stream, cuts)) == outcome([stream])


@pytest.mark.parametrize(
    "size",
    [
        *(b"0x5", b"+5", b"-5", b" 5", b"5 ", b"\t5", b"5\t", b"5_0", b"", b"g", b"5h", b"\xb2"),
        *(b"0" * 16 + b"5", b"5" * 16, b"5" * 900, b"5.0", b"\x0b5", b"5,5", b"0x", b"5\r", b"5\n"),
    ],
)
def test_a18_chunk_sizes_that_are_no_hex_number_are_refused(size: bytes) -> None:
    """int(x, 16) would take several of them."""
    assert outcome([size + b"\r\nhello\r\n0\r\n\r\n"]) is None


@pytest.mark.parametrize("size", [b"5", b"05", b"000000000000005"])
def test_a18_sizes_may_have_some_zeros(size: bytes) -> None:
    """Up to 15 digits."""
    assert outcome([size + b"\r\nhello\r\n0\r\n\r\n"]) == (b"hello", b"", True)


def test_i25_sizes_reach_beyond_32_bits() -> None:
    """A chunk may be as large as any layer."""
    body = ChunkedBody()
    assert body.feed(b"%x\r\n" % (2**32 + 1)) == (b"", b"")
    assert body.feed(b"abc") == (b"abc", b"")
    assert not body.complete


@pytest.mark.parametrize(
    "extension",
    [b";a", b";a=b", b";a=b;c", b';a="b c;d"', b';a="\\""', b';a=""', b";a" * 500],
)
def test_a19_extensions_are_passed_over(extension: bytes) -> None:
    """They are no part of the body."""
    assert outcome([b"5" + extension + b"\r\nhello\r\n0\r\n\r\n"]) == (b"hello", b"", True)


@pytest.mark.parametrize(
    "extension",
    [
        *(b";", b";;a", b";a;", b";a=", b"; a", b" ;a", b";a =b", b";a= b", b";a b", b";=b"),
        *(b";a\0", b";a\nb", b";a\rb", b';a="', b';a="b', b';a="\\"', b';a="b"c', b";a\xff"),
        *(b';a="\xff"', b";a=b\x7f", b";" + b"a" * 16 * 1024, b';a="\0"', b" ", b",a"),
    ],
)
def test_a19_extensions_that_parsers_disagree_about_are_refused(extension: bytes) -> None:
    """LF, CR and NUL above all, a bare semicolon, and too long ones."""
    assert outcome([b"5" + extension + b"\r\nhello\r\n0\r\n\r\n"]) is None


@pytest.mark.parametrize(
    "stream",
    [b"5\r\nhello0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello spills\r\n0\r\n\r\n"],
)
def test_a20_chunks_that_do_not_end_where_they_said_are_refused(stream: bytes) -> None:
    """Too long, or no CRLF behind the data."""
    assert outcome([stream]) is None


@pytest.mark.parametrize(
    "stream", [b"", b"5", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n", b"0", b"0\r\n", b"0\r\n\r"]
)
def test_a20_without_the_last_chunk_a_body_is_not_complete(stream: bytes) -> None:
    """Whoever closes now has cut it."""
    body = ChunkedBody()
    body.feed(stream)

    assert not body.complete
    assert not body.ends_with_connection


@pytest.mark.parametrize(
    "trailer",
    [b"Content-Length: 5", b"Host: x", b"Authorization: Basic eDp5", b"X-Forwarded-User: root",
     b"Transfer-Encoding: chunked", b"X:", b"X: \xe9"],
)  # fmt: skip
def test_a21_trailers_are_dropped(trailer: bytes) -> None:
    """They are no part of the body and of nothing else."""
    assert outcome([b"1\r\na\r\n0\r\n" + trailer + b"\r\n\r\nrest"]) == (b"a", b"rest", True)


@pytest.mark.parametrize(
    "trailer",
    [b"no colon", b": x", b"X : y", b" X: y", b"X: a\0", b"X: a\nY: b", b"X: a\rb", b"X: \x7f",
     b"X: y\r\n z", b"X: " + b"y" * MAX_TRAILERS, b"X: y\r\n" * 2000],
)  # fmt: skip
def test_a21_malformed_and_long_trailers_are_refused(trailer: bytes) -> None:
    """More than 8 KiB of them, too."""
    assert outcome([b"1\r\na\r\n0\r\n" + trailer + b"\r\n\r\n"]) is None


@pytest.mark.parametrize(
    ("line", "limit"),
    [(b"1;", MAX_CHUNK_LINE), (b"0\r\nX:", MAX_TRAILERS - 2)],
)
def test_h13_the_limit_of_a_line_is_the_same_at_every_cut(line: bytes, limit: int) -> None:
    """A line of exactly the limit passes even when its CR comes alone; one more never does."""
    prefix = line.rpartition(b"\n")[2]
    longest = line + b"a" * (limit - len(prefix))
    for length, taken in ((longest, True), (longest + b"a", False)):
        stream = length + b"\r\n" + (b"x\r\n0\r\n\r\n" if line == b"1;" else b"\r\n")
        results = {outcome(pieces(stream, [cut])) is not None for cut in range(len(stream) + 1)}
        assert results == {taken}


@pytest.mark.parametrize("line", [b"1;" + b"a" * 64, b"0\r\nX: " + b"a" * 64])
def test_h13_a_line_without_end_is_refused_at_its_limit(line: bytes) -> None:
    """One octet at a time it is not collected for ever."""
    octets = [line[i : i + 1] for i in range(len(line))] + [b"a"] * MAX_TRAILERS

    assert outcome(octets) is None


@pytest.mark.parametrize(
    "stream",
    [
        b'1;a="' + b"\\" * 32768,
        b'1;a="' + b"\\" * 32769 + b"\r\n",
        b'1;a="' + b'\\"' * 16384 + b"\r\n",
        b"1" + b';a=""' * 6000 + b";\r\n",
        b"1" + b";a" * 16384 + b" \r\n",
        b"1;" + b"a" * 32768 + b"\0\r\n",
        b"0" * 32768 + b"\r\n",
        b"0\r\n" + b"a" * 32768 + b"\r\n",
        b"0\r\nX:" + b" " * 32768 + b"\0\r\n",
    ],
)
def test_h13_no_line_takes_more_than_linear_work(stream: bytes) -> None:
    """The ceiling is a guard against exponential backtracking, no measurement."""
    before = time.perf_counter()
    assert outcome([stream]) is None
    assert time.perf_counter() - before < 2


def test_whose_fault_a_broken_chunk_is() -> None:
    """The client's in a request, the registry's in a response."""
    with pytest.raises(MalformedRequest):
        ChunkedBody().feed(b"x\r\n")
    with pytest.raises(MalformedResponse):
        ChunkedBody(MalformedResponse).feed(b"x\r\n")


@given(st.binary(max_size=50), st.integers(1, 40), st.lists(st.integers(0, 50), max_size=5))
def test_a35_a_length_is_kept_to_the_octet(data: bytes, length: int, cuts: list[int]) -> None:
    """What is beyond stands behind the end, at every cut."""
    body = LengthBody(length)
    out, rest = feed_all(body, pieces(data, cuts))

    assert (out, rest) == (data[:length], data[length:])
    assert body.complete is (len(data) >= length)
    assert body.remaining == max(0, length - len(data))


def test_a22_a_body_of_known_length_hides_nothing() -> None:
    """What it holds is body, what follows is not."""
    hidden = b"GET /v2/secret/ HTTP/1.1\r\n\r\n"

    assert LengthBody(len(hidden)).feed(hidden + b"GET") == (hidden, b"GET")
    assert NoBody().feed(hidden) == (b"", hidden)


def test_a_body_of_known_length_is_passed_on_without_a_copy() -> None:
    """Bulk goes through untouched."""
    data = b"x" * 1000
    assert LengthBody(5000).feed(data)[0] is data

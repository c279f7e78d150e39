"""regguard.http1.head, requests: what a registry client may send, and what nobody may."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regguard.http1 import (
    HEAD_END,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_TARGET,
    ChunkedBody,
    LengthBody,
    MalformedRequest,
    NoBody,
    RequestHead,
    check_partial_request,
    parse_request_head,
    request_body,
)
from tests.http1.messages import TOKEN, VISIBLE, mutated, requests

LINE = b"PUT /v2/ HTTP/1.1\r\n"
HOST = b"Host: a\r\n"


def parsed(*lines: bytes, start: bytes = LINE, host: bytes = HOST) -> RequestHead:
    """The head made of a good start line and Host and these field lines."""
    return parse_request_head(start + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


def refusal(*lines: bytes, start: bytes = LINE, host: bytes = HOST) -> int:
    """The status of the refusal of such a head."""
    with pytest.raises(MalformedRequest) as caught:
        parsed(*lines, start=start, host=host)
    return caught.value.status


def refused_whole(data: bytes) -> int:
    """The status of the refusal of exactly these octets."""
    with pytest.raises(MalformedRequest) as caught:
        parse_request_head(data)
    return caught.value.status


def test_what_docker_sends_is_understood() -> None:
    """Every part of a head that the guard relies on is there."""
    head = parse_request_head(
        b"PATCH /v2/team/app/blobs/uploads/6f0a?_state=x HTTP/1.1\r\n"
        b"Host: registry.example:5043\r\n"
        b"User-Agent: docker/24.0.5\r\n"
        b"Transfer-Encoding: chunked\r\n"
        b"Authorization: Basic dTpw\r\n"
        b"Referer: https://example/\r\n"
        b"Accept-Encoding: gzip\r\n"
        b"Connection: close, X-Own\r\n\r\n"
    )

    assert (head.method, head.minor_version) == (b"PATCH", 1)
    assert head.target == b"/v2/team/app/blobs/uploads/6f0a?_state=x"
    assert head.host == b"registry.example:5043"
    assert head.user_agent == b"docker/24.0.5"
    assert head.authorization == b"Basic dTpw"
    assert head.referer == b"https://example/"
    assert head.connection_options == {b"close", b"x-own"}
    assert head.fields[-2] == (b"Accept-Encoding", b"accept-encoding", b"gzip")
    assert (head.chunked, head.content_length, head.has_body, head.close) == (
        True,
        None,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("start", "fields", "close"),
    [
        (b"GET / HTTP/1.1\r\n", [], False),
        (b"GET / HTTP/1.1\r\n", [b"Connection: close"], True),
        (b"GET / HTTP/1.1\r\n", [b"Connection: foo,close"], True),
        (b"GET / HTTP/1.1\r\n", [b"Connection: keep-alive, CLOSE"], True),
        (b"GET / HTTP/1.1\r\n", [b"Connection: foo", b"connection: Close"], True),
        (b"GET / HTTP/1.1\r\n", [b"Connection: keep-alive"], False),
        (b"GET / HTTP/1.0\r\n", [], True),
        (b"GET / HTTP/1.0\r\n", [b"Connection: foo"], True),
        (b"GET / HTTP/1.0\r\n", [b"Connection: Keep-Alive"], False),
        (b"GET / HTTP/1.0\r\n", [b"Connection: keep-alive, close"], True),
    ],
)
def test_every_connection_field_counts_for_persistence(
    start: bytes, fields: list[bytes], close: bool
) -> None:
    """RFC 9112 section 9.3, over all Connection fields and not only the first."""
    assert parsed(*fields, start=start).close is close


def test_a01_a02_length_and_chunked_together_are_refused() -> None:
    """In both orders."""
    assert refusal(b"Content-Length: 5", b"Transfer-Encoding: chunked") == 400
    assert refusal(b"Transfer-Encoding: chunked", b"Content-Length: 5") == 400
    assert refusal(b"Content-Length: 0", b"Transfer-Encoding: chunked") == 400


@pytest.mark.parametrize("second", [b"5", b"6", b"0"])
def test_a03_two_lengths_are_refused(second: bytes) -> None:
    """Even where they agree."""
    assert refusal(b"Content-Length: 5", b"Content-Length: " + second) == 400
    assert refusal(b"Content-Length: 5, " + second) == 400


@pytest.mark.parametrize(
    "length",
    [
        *(b"+5", b"-5", b"-0", b"0x5", b"0o5", b"1_0", b'"5"', b"5; 1e3", b"1e3", b"", b"5 5"),
        *(b"\x0b5", b"5\x0b", b"\xef\xbc\x95", b"\x855", b"5\x85", b"\xa05", b"5\xa0", b"5,"),
        *(b"5.0", b"5\t5", b"\x0c5", b"five"),
    ],
)
def test_a04_lengths_that_are_no_decimal_are_refused(length: bytes) -> None:
    """What int() of some language would take is no Content-Length."""
    assert refusal(b"Content-Length: " + length) == 400


@pytest.mark.parametrize("length", [b"010", b"00", b"0000000000000000000005"])
def test_a05_lengths_with_leading_zeros_are_refused(length: bytes) -> None:
    """Some parsers would read them as octal."""
    assert refusal(b"Content-Length: " + length) == 400


@pytest.mark.parametrize("length", [b"%d" % 2**63, b"%d" % 2**64, b"1" + b"0" * 18, b"9" * 5000])
def test_a06_lengths_beyond_63_bits_are_refused(length: bytes) -> None:
    """Parsers behind us could overflow."""
    assert refusal(b"Content-Length: " + length) == 400


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32 + 1, 10**18 - 1])
def test_i25_lengths_up_to_an_exabyte_are_taken(length: int) -> None:
    """With blanks around them, too."""
    head = parsed(b"Content-Length: \t%d \t" % length)

    assert head.content_length == length
    assert head.has_body is bool(length)
    body = request_body(head)
    assert isinstance(body, LengthBody if length else NoBody)


@pytest.mark.parametrize(
    "encoding",
    [
        *(b"xchunked", b"identity", b"gzip, chunked", b"chunked, identity", b"chunked, chunked"),
        *(b",chunked", b"chunked,", b"chunked;a=b", b'"chunked"', b"", b"\x0bchunked"),
        *(b"\x0cchunked", b"\xa0chunked", b"chunked\x00", b"chunked\xa0", b"chunke", b"chun ked"),
    ],
)
def test_a08_encodings_other_than_chunked_are_refused(encoding: bytes) -> None:
    """With a length beside them, too."""
    assert refusal(b"Transfer-Encoding: " + encoding) in (400, 501)
    assert refusal(b"Transfer-Encoding: " + encoding, b"Content-Length: 3") in (400, 501)


@pytest.mark.parametrize("encoding", [b"chunked", b"Chunked", b"CHUNKED", b" \tchunked "])
def test_a08_chunked_is_taken_in_any_case(encoding: bytes) -> None:
    """Coding names are case-insensitive (RFC 9112 section 7)."""
    head = parsed(b"Transfer-Encoding:" + encoding)

    assert head.chunked
    assert isinstance(request_body(head), ChunkedBody)


def test_a09_two_encodings_are_refused() -> None:
    """Even where they agree."""
    assert refusal(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") == 400
    assert refusal(b"Transfer-Encoding: chunked", b"transfer-encoding: identity") in (400, 501)


def test_a10_an_encoding_in_http_1_0_is_refused() -> None:
    """A 1.0 recipient behind us would not understand it."""
    assert refusal(b"Transfer-Encoding: chunked", start=b"PUT / HTTP/1.0\r\n") == 400


@pytest.mark.parametrize(
    "folded",
    [
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"X:\r\n b",
        b"Transfer-Encoding:\r\n chunked",
        b"Content-Length:\r\n 5",
        b"Authorization: Basic\r\n dTpw",
        b"X: a\r\n ",
    ],
)
def test_a11_folded_lines_are_refused(folded: bytes) -> None:
    """obs-fold (RFC 9112 section 5.2) means different things to different parsers."""
    assert refusal(folded) == 400


@pytest.mark.parametrize(
    "line",
    [
        b"Transfer-Encoding : chunked",
        b"Content-Length : 5",
        b"Content-Length\t: 5",
        b"Transfer Encoding: chunked",
        b" X: a",
        b"\tX: a",
    ],
)
def test_a12_blanks_around_field_names_are_refused(line: bytes) -> None:
    """RFC 9112 section 5.1."""
    assert refusal(line) == 400
    assert refusal(HOST[:-2], start=LINE + line + b"\r\n", host=b"") == 400


def test_a12_an_underscored_name_frames_nothing() -> None:
    """It stays what it is: a field that nobody knows."""
    head = parsed(b"Transfer_Encoding: chunked", b"Content_Length: 5")

    assert not head.has_body
    assert head.fields[1][1] == b"transfer_encoding"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: a\n\n\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n\r\n\r\n",
    ],
)
def test_a13_bare_line_feeds_are_refused(data: bytes) -> None:
    """A lone LF ends no line here."""
    assert refused_whole(data) == 400


def test_a14_a_field_behind_a_bare_line_feed_is_refused() -> None:
    """Twisted before 26.10 folded it, others take it for framing."""
    assert refusal(b"X: a\nContent-Length: 44") == 400


@pytest.mark.parametrize("ending", [b"\r", b"\r\r\n", b"\r \n", b"\n\r"])
def test_a15_bare_carriage_returns_are_refused(ending: bytes) -> None:
    """In the start line, inside a value and at its end."""
    assert refused_whole(b"GET / HTTP/1.1" + ending + HOST + b"\r\n") == 400
    assert refused_whole(b"GET / HTTP/1.1\r\nHost: a" + ending + b"X: b\r\n\r\n") == 400
    assert refusal(b"X: a\rb") == 400


def test_a16_values_hold_visible_octets_blanks_and_obs_text_only() -> None:
    """RFC 9110 section 5.5, octet for octet."""
    taken = set()
    for octet in range(256):
        try:
            head = parsed(b"X: a" + bytes([octet]) + b"b")
        except MalformedRequest as error:
            assert error.status == 400
        else:
            assert head.fields[-1] == (b"X", b"x", b"a" + bytes([octet]) + b"b")
            taken.add(octet)

    assert taken == {9, *range(0x20, 0x7F), *range(0x80, 0x100)}


def test_a17_names_are_tokens() -> None:
    """RFC 9110 section 5.6.2, octet for octet."""
    taken = set()
    for octet in range(256):
        try:
            head = parsed(b"X" + bytes([octet]) + b"b: 1")
        except MalformedRequest as error:
            assert error.status == 400
        else:
            if octet != ord(":"):  # that one is the name X with the value "b: 1"
                assert head.fields[-1][0] == b"X" + bytes([octet]) + b"b"
                taken.add(octet)

    assert taken == set(TOKEN)


@pytest.mark.parametrize("line", [b"no colon", b": x", b"b ad: 1", b"X[]: 1", b"\xe9: 1", b":"])
def test_a17_lines_that_are_no_field_are_refused(line: bytes) -> None:
    """Wherever they stand."""
    assert refusal(line) == 400
    assert refusal(line, b"X: 1") == 400


@pytest.mark.parametrize(
    "line",
    [
        *(b"GET  /v2/ HTTP/1.1", b"GET /v2/  HTTP/1.1", b"GET\t/v2/ HTTP/1.1"),
        *(b"GET /v2/\tHTTP/1.1", b" GET /v2/ HTTP/1.1", b"GET /v2/ HTTP/1.1 ", b"GET /v2/"),
        *(b"GET /v2/ http/1.1", b"GET /v2/ HTTP/1.2", b"GET /v2/ HTTP/1.10", b"GET /v2/ HTTP/01.1"),
        *(b"GET /v2/ HTTP/2.0", b"GET /v2/ HTTP/0.9", b"GET /v2/ HTTP/3", b"GET /v2/ HTTP/1"),
        *(b"GET /v2/ HTTP/11", b"GET /v2/ RTSP/1.0", b"SOURCE / ICE/1.0", b"GET", b"GET /v2/ "),
        *(b"\r\nGET /v2/ HTTP/1.1", b"GET /v2/ x HTTP/1.1", b"GET /v2/ HTTP/1.1 HTTP/1.1"),
        *(b"GET /v2/ HTTPS/1.1", b"GET /v2/ HTTP/1.1\r", b"HTTP/1.1 200 OK"),
    ],
)
def test_a24_request_lines_that_are_not_exactly_http_1_are_refused(line: bytes) -> None:
    """One space, and HTTP/1.0 or HTTP/1.1; the same verdict before the fields are there."""
    status = refusal(start=line + b"\r\n")
    assert status in (400, 505)
    with pytest.raises(MalformedRequest) as caught:
        check_partial_request(line + b"\r\n")
    assert caught.value.status == status


@pytest.mark.parametrize(
    "host",
    [
        *(b"a, b", b"u@a", b"u:p@a", b"a/b", b"", b" ", b"a:99999", b"a:65536", b"[::1", b"::1"),
        *(b"a\xe9", b"a:", b"a:b", b"a:-1", b"a:1:1", b"a b", b"a?b", b"a#b", b"-a", b"a-", b".a"),
        *(b"[::1]a", b"[::1]:x", b"[]", b"a%2f", b"a\\b", b"a" * 256, b"http://a", b"\xef\xbd\x81"),
    ],
)
def test_a25_hosts_that_are_none_are_refused(host: bytes) -> None:
    """The host goes into Location and X-Forwarded-Host: only what is one, and exactly one."""
    assert refusal(host=b"Host: " + host + b"\r\n") == 400


def test_a25_a_request_has_one_host() -> None:
    """Missing or twice is refused; only HTTP/1.0 may leave it out."""
    assert refusal(host=b"") == 400
    assert refusal(host=HOST + HOST) == 400
    assert refusal(host=HOST + b"host: b\r\n") == 400
    assert refusal(host=HOST + HOST, start=b"GET / HTTP/1.0\r\n") == 400
    assert parsed(host=b"", start=b"GET / HTTP/1.0\r\n").host == b""


@pytest.mark.parametrize(
    "host",
    [
        *(b"a", b"registry.example", b"registry.example.", b"a:0", b"a:65535", b"127.0.0.1:5043"),
        *(
            b"[::1]",
            b"[2001:db8::1]:443",
            b"my_registry:5000",
            b"xn--rksmrgs-5wao1o.se",
            b"a" * 255,
        ),
    ],
)
def test_a25_hosts_that_registries_have_are_taken(host: bytes) -> None:
    """Names, addresses, ports, and the underscores of docker compose."""
    assert parsed(host=b"Host:  " + host + b" \r\n").host == host


def test_targets_hold_visible_octets_only() -> None:
    """RFC 9112 section 3.2 and nothing beyond ASCII; a fragment is no part of a target."""
    taken = set()
    for octet in range(256):
        try:
            head = parsed(start=b"GET /" + bytes([octet]) + b"b HTTP/1.1\r\n")
        except MalformedRequest as error:
            assert error.status == 400
        else:
            assert head.target == b"/" + bytes([octet]) + b"b"
            taken.add(octet)

    # What a visible octet means in a path is for regguard.access to say ("#" among them).
    assert taken == set(VISIBLE)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"GET", b"http://other/v2/"),
        (b"GET", b"http://u:p@h/"),
        (b"OPTIONS", b"*"),
        (b"CONNECT", b"a:443"),
        (b"TRACE", b"/v2/"),
    ],
)
def test_a26_a27_a28_a29_other_forms_and_methods_reach_the_policy_as_they_are(
    method: bytes, target: bytes
) -> None:
    """They are good HTTP; refusing them is a matter of regguard.access."""
    head = parsed(start=b"%s %s HTTP/1.1\r\n" % (method, target))

    assert (head.method, head.target, head.has_body) == (method, target, False)


@pytest.mark.parametrize(
    "method", [b"get", b"Get", b"PUTx", b"G\xe9T", b"", b"G T", b"A" * 100_000]
)
def test_d16_methods_that_nobody_registered_are_refused(method: bytes) -> None:
    """Case matters (RFC 9110 section 9.1)."""
    assert refusal(start=method + b" / HTTP/1.1\r\n") == 400


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"something/1"])
def test_a30_an_upgrade_is_only_a_field(protocol: bytes) -> None:
    """The body keeps its framing; llhttp would take what follows for another protocol."""
    head = parsed(
        b"Upgrade: " + protocol,
        b"Connection: Upgrade, HTTP2-Settings",
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        b"Content-Length: 3",
    )

    assert head.content_length == 3
    assert not head.close
    assert head.connection_options == {b"upgrade", b"http2-settings"}


def test_a31_an_http_2_preface_is_refused() -> None:
    """Whole or cut behind its first line."""
    assert refused_whole(b"PRI * HTTP/2.0\r\n\r\n") in (400, 505)
    with pytest.raises(MalformedRequest):
        check_partial_request(b"PRI * HTTP/2.0\r\n")


@pytest.mark.parametrize("name", [b"Authorization", b"Expect"])
def test_e04_fields_that_decide_stand_once(name: bytes) -> None:
    """Two would be read first-wins here and last-wins there."""
    line = name + b": 100-continue"
    assert refusal(line, line.lower(), b"Content-Length: 1") == 400


@pytest.mark.parametrize("value", [b"Basic YTpi, Basic YTpj", b"basic YTpi,", b"BASIC ,"])
def test_e04_a_joined_credential_is_refused(value: bytes) -> None:
    """A proxy in front may have joined two fields with a comma; which one counts?"""
    assert refusal(b"Authorization: " + value) == 400


def test_e03_a_digest_credential_has_commas() -> None:
    """It is no Basic and for the guard to refuse, with a challenge."""
    head = parsed(b'Authorization: Digest username="a", realm="b"')
    assert head.authorization == b'Digest username="a", realm="b"'


def test_e04_joined_credentials_are_refused() -> None:
    """Somebody on the way made one field of two; Digest has commas of its own."""
    assert refusal(b"Authorization: Basic YTpi, Basic YTpj") == 400
    assert refusal(b"Authorization: basic YTpi,YTpj") == 400
    assert parsed(b"Authorization: Digest a=b, c=d").authorization == b"Digest a=b, c=d"


@pytest.mark.parametrize("expect", [b"200-ok", b"y 100-continue", b"100-continue, x", b"", b"100"])
def test_a23_unknown_expectations_are_refused(expect: bytes) -> None:
    """RFC 9110 section 10.1.1: 417."""
    assert refusal(b"Expect: " + expect, b"Content-Length: 1") == 417


@pytest.mark.parametrize(
    ("start", "fields", "expects"),
    [
        (LINE, [b"Expect: 100-Continue", b"Content-Length: 1"], True),
        (LINE, [b"Expect: 100-continue", b"Transfer-Encoding: chunked"], True),
        (LINE, [b"Expect: 100-continue", b"Content-Length: 0"], False),
        (LINE, [b"Expect: 100-continue"], False),
        (b"PUT / HTTP/1.0\r\n", [b"Expect: 100-continue", b"Content-Length: 1"], False),
    ],
)
def test_a23_only_a_1_1_request_with_a_body_gets_a_100(
    start: bytes, fields: list[bytes], expects: bool
) -> None:
    """RFC 9110 section 10.1.1."""
    assert parsed(*fields, start=start).expects_continue is expects


def test_h04_sizes_are_bounded() -> None:
    """A target of 16 KiB is the longest; 100 fields with Host are the most."""
    assert parsed(start=b"GET /%s HTTP/1.1\r\n" % (b"x" * (MAX_TARGET - 1))).target
    assert refusal(start=b"GET /%s HTTP/1.1\r\n" % (b"x" * MAX_TARGET)) == 414
    assert len(parsed(*[b"X: 1"] * (MAX_FIELDS - 1)).fields) == MAX_FIELDS
    assert refusal(*[b"X: 1"] * MAX_FIELDS) == 431


def test_f01_a_refusal_never_quotes_the_request() -> None:
    """Its reason goes to the client and the log; a password in a broken line must not."""
    for line in (b"Authorization Basic canary", b"Authorization: canary\0", b"Host: canary@a"):
        with pytest.raises(MalformedRequest) as caught:
            parsed(line)
        assert "canary" not in caught.value.reason
        assert caught.value.reason.isascii()


# -- heads that are not whole yet -------------------------------------------------------------


def check_prefixes(head: bytes) -> None:
    """Judge every prefix that holds no empty line, as the channel does."""
    seen = 0
    for end in range(1, head.index(HEAD_END) + len(HEAD_END)):
        check_partial_request(head[:end], max(0, seen - len(HEAD_END) + 1))
        seen = end


@settings(max_examples=300, deadline=None)
@given(mutated(requests()))
def test_a35_no_prefix_of_a_good_head_is_refused(stream: bytes) -> None:
    """What is taken whole is taken in pieces."""
    end = stream.find(HEAD_END)
    if end < 0:
        return
    try:
        parse_request_head(stream[: end + len(HEAD_END)])
    except MalformedRequest:
        return
    check_prefixes(stream)


@settings(max_examples=300, deadline=None)
@given(mutated(requests()), st.integers(1, 30))
def test_a35_what_is_refused_in_pieces_is_refused_whole(stream: bytes, size: int) -> None:
    """Wherever the cuts are."""
    end = stream.find(HEAD_END)
    if end < 0:
        return
    head = stream[: end + len(HEAD_END)]
    if head.startswith(b"\r\n"):
        return  # the channel's: it forgives one empty line
    try:
        for seen in range(0, end + 3, size):
            check_partial_request(head[: min(seen + size, end + 3)], seen)
    except MalformedRequest:
        assert refused_whole(head) >= 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
        (b"get / HTTP/1.1\r\n", 400),
        (b" GET", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX", 400),
        (b"GET /\0", 400),
        (b"GET / HTTP/1.1\r\nX: \0", 400),
        (b"GET / HTTP/2.0\r\nHost", 505),
        (b"EHLO example\r\n", 400),
    ],
)
def test_g04_a13_what_can_not_become_a_head_is_refused_at_once(data: bytes, status: int) -> None:
    """TLS on the plain port, an SSH banner, a line that only LF ends: no wait for a deadline."""
    with pytest.raises(MalformedRequest) as caught:
        check_partial_request(data)
    assert caught.value.status == status


def test_a13_a_line_feed_at_the_seam_of_two_reads_counts_as_it_stands() -> None:
    """CR at the end of one read and LF at the start of the next are one line end."""
    check_partial_request(b"GET / HTTP/1.1\r\n", len(b"GET / HTTP/1.1\r"))
    with pytest.raises(MalformedRequest):
        check_partial_request(b"GET / HTTP/1.1\n", len(b"GET / HTTP/1.1"))


@pytest.mark.parametrize(
    ("start", "filler", "status"),
    [
        (b"", b"A", 414),
        (b"GET ", b"x", 414),
        (b"GET / HTTP/1.1\r\n", b"X", 431),
        (b"GET / HTTP/1.1\r\nX: ", b"y", 431),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: ", b"\r", 431),
    ],
)
@pytest.mark.parametrize("step", [1000, 4096, 70_000])
def test_h04_a_head_that_never_ends_is_refused_at_the_limit(
    start: bytes, filler: bytes, status: int, step: int
) -> None:
    """No octets beyond one read are collected past the limits."""
    limit = MAX_HEAD if status == 431 else MAX_TARGET + 64
    data, seen = start, 0
    while len(data) <= limit:
        check_partial_request(data or b"G", seen)
        seen = len(data)
        data += (filler * step)[:step]
    with pytest.raises(MalformedRequest) as caught:
        check_partial_request(data, seen)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "head",
    [
        LINE + b"Host: " + b"a." * (MAX_HEAD // 2) + b"!\r\n\r\n",
        LINE + b"Host: " + b"a" * MAX_HEAD + b"\r\n\r\n",
        LINE + b"Host: [" + b":" * MAX_HEAD + b"\r\n\r\n",
        LINE + HOST + b"Content-Length: " + b"1" * MAX_HEAD + b"\r\n\r\n",
        LINE + HOST + b"Connection: " + b"," * MAX_HEAD + b"\r\n\r\n",
        LINE + HOST + b"X:" + b" \t" * (MAX_HEAD // 2) + b"a\x01\r\n\r\n",
        b"A" * MAX_HEAD + b" / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET " + b"/" * MAX_HEAD + b" HTTP/1.1\n" + HOST + b"\r\n",
        LINE + HOST + b"X: a\r\n" * (MAX_HEAD // 6) + b"\r\n",
    ],
)
def test_h13_no_head_takes_more_than_linear_work(head: bytes) -> None:
    """The ceiling is a guard against exponential backtracking, no measurement."""
    before = time.perf_counter()
    for judge in (parse_request_head, check_partial_request):
        try:
            judge(head)
        except MalformedRequest as error:
            assert re.fullmatch(r"[ -~]+", error.reason)
    assert time.perf_counter() - before < 2

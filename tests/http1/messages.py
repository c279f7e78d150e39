"""Whole messages for the grammar's tests: made, read by regguard, and read by h11."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import h11
from hypothesis import strategies as st

from regguard.http1 import (
    HEAD_END,
    Body,
    MalformedRequest,
    MalformedResponse,
    parse_request_head,
    parse_response_head,
    request_body,
    response_body,
)

H11_LIMIT = 1 << 20
"""Octets h11 may collect of a head: it shall judge the grammar, not the size."""


@dataclass
class Message:
    """What a parser understood: the start line, the fields with lower-case names, the body."""

    start: tuple[bytes, ...]
    fields: list[tuple[bytes, bytes]]
    body: bytes
    rest: bytes
    complete: bool


class Refused(Exception):
    """A parser took the octets for no message."""


def read_request(stream: bytes) -> Message | None:
    """The first request of ``stream`` as regguard reads it; None where its head is not whole."""
    end = stream.find(HEAD_END)
    if end < 0:
        return None
    end += len(HEAD_END)
    try:
        head = parse_request_head(stream[:end])
        body = request_body(head)
        data, rest = body.feed(stream[end:])
    except MalformedRequest as error:
        raise Refused(error.reason) from None
    start = (head.method, head.target, b"1.%d" % head.minor_version)
    return Message(start, _fields(head.fields), data, rest, body.complete)


def read_response(stream: bytes, method: bytes) -> Message | None:
    """The first response of ``stream`` to ``method`` as regguard reads it."""
    end = stream.find(HEAD_END)
    if end < 0:
        return None
    end += len(HEAD_END)
    try:
        head = parse_response_head(stream[:end])
        body = response_body(head, method)
        data, rest = body.feed(stream[end:])
    except MalformedResponse as error:
        raise Refused(error.reason) from None
    complete = body.complete or body.ends_with_connection
    return Message((b"%d" % head.status, head.reason), _fields(head.fields), data, rest, complete)


def h11_read_request(stream: bytes) -> Message | None:
    """The first request of ``stream`` as h11 reads it."""
    oracle = h11.Connection(h11.SERVER, max_incomplete_event_size=H11_LIMIT)
    oracle.receive_data(stream)
    return _h11_message(oracle)


def h11_read_response(stream: bytes, method: bytes) -> Message | None:
    """The first response of ``stream`` to ``method`` as h11 reads it, the end included."""
    oracle = h11.Connection(h11.CLIENT, max_incomplete_event_size=H11_LIMIT)
    oracle.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    oracle.send(h11.EndOfMessage())
    oracle.receive_data(stream)
    oracle.receive_data(b"")
    return _h11_message(oracle)


def _h11_message(oracle: h11.Connection) -> Message | None:
    message = None
    body = bytearray()
    while True:
        try:
            event: Any = oracle.next_event()
        except h11.RemoteProtocolError as error:
            if message is not None and "closed connection" in str(error):
                break  # the end of the stream came before the end of the message
            raise Refused(str(error)) from None
        if isinstance(event, h11.Request):
            message = Message((event.method, event.target, event.http_version), [], b"", b"", False)
        elif isinstance(event, (h11.Response, h11.InformationalResponse)):
            message = Message((b"%d" % event.status_code, event.reason), [], b"", b"", False)
        if isinstance(event, (h11.Request, h11.Response, h11.InformationalResponse)):
            assert message is not None
            message.fields = [(bytes(n), bytes(v)) for n, v in event.headers]
            if isinstance(event, h11.InformationalResponse):
                message.complete = True
                break
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert message is not None
            message.complete = True
            break
        else:
            break
    if message is not None:
        message.body = bytes(body)
        if message.complete:
            message.rest = bytes(oracle.trailing_data[0])
    return message


def _fields(fields: list[tuple[bytes, bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # h11 hands on a transfer-encoding in lower case.
    return [(k, v.lower() if k == b"transfer-encoding" else v) for _, k, v in fields]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut at ``cuts``."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def feed_all(body: Body, parts: list[bytes]) -> tuple[bytes, bytes]:
    """Feed a body piece by piece; what came out, and what stands behind its end."""
    out, rest = bytearray(), bytearray()
    for part in parts:
        if body.complete:
            rest += part
        else:
            data, behind = body.feed(part)
            out += data
            rest += behind
    return bytes(out), bytes(rest)


# -- making messages -----------------------------------------------------------------------

_SELDOM = [False] * 40 + [True]
TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VISIBLE = bytes(range(0x21, 0x7F))


def octets(alphabet: bytes, least: int, most: int) -> st.SearchStrategy[bytes]:
    """Byte strings over an alphabet."""
    return st.lists(st.sampled_from(list(alphabet)), min_size=least, max_size=most).map(bytes)


def mostly(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Good, seldom odd: enough messages must be taken for the oracle to matter."""
    return st.sampled_from(_SELDOM).flatmap(lambda is_odd: odd if is_odd else good)


hosts = mostly(
    st.sampled_from([b"a", b"registry.example:5043", b"[::1]:5043", b"my_registry", b"1.2.3.4"]),
    st.sampled_from([b"", b"a,b", b"u@a", b"a/b", b"a:99999", b"[::1", b"a b", b"a\xff"]),
)
values = mostly(
    octets(b" \t" + VISIBLE, 0, 20),
    st.binary(max_size=10),
)
names = mostly(octets(TOKEN, 1, 12), st.binary(min_size=0, max_size=5))
blanks = mostly(st.sampled_from([b"", b" "]), octets(b" \t\x0b\r\n", 0, 3))
line_ends = mostly(st.just(b"\r\n"), st.sampled_from([b"\n", b"\r\r\n", b"\r"]))

odd_fields = st.sampled_from(
    [
        b"Host: b",
        b"Content-Length: 5",
        b"Content-Length: 05",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length:",
        b"Content-Length : 5",
        b"Content-Length: 99999999999999999999",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding : chunked",
        b"Transfer_Encoding: chunked",
        b"Connection: close",
        b"Connection: keep-alive, Upgrade",
        b"Upgrade: h2c",
        b"Expect: 100-continue",
        b"Expect: 200-ok",
        b" folded",
        b"\tfolded",
        b"no colon",
        b": no name",
    ]
)


@st.composite
def field_lines(draw: st.DrawFn) -> bytes:
    """Some field lines, most of them good."""
    lines = []
    for _ in range(draw(st.integers(0, 4))):
        good = draw(names) + b":" + draw(blanks) + draw(values) + draw(blanks)
        lines.append(draw(mostly(st.just(good), odd_fields)))
    return b"".join(line + draw(line_ends) for line in lines)


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A chunked body: mostly good sizes, sometimes extensions and trailers."""
    out = bytearray()
    for _ in range(draw(st.integers(0, 4))):
        data = draw(st.binary(min_size=1, max_size=40))
        extension = draw(
            mostly(
                st.sampled_from([b"", b"", b";a", b";a=b", b';a="b;c"', b';a="\\"\xc3";b']),
                octets(b'; \t="ab\r\n\\', 0, 6),
            )
        )
        size = draw(
            mostly(
                st.sampled_from([b"%x", b"%X", b"0%x", b"0000000000000%x"]),
                st.sampled_from([b"0x%x", b"+%x", b" %x", b"%x ", b"0000000000000000%x"]),
            )
        )
        out += size % len(data) + extension + b"\r\n" + data + draw(line_ends)
    out += draw(st.sampled_from([b"0", b"0", b"00", b"0;last", b"000000000000000"])) + b"\r\n"
    for _ in range(draw(st.integers(0, 2))):
        out += draw(names) + b":" + draw(values) + draw(line_ends)
    return bytes(out) + b"\r\n"


@st.composite
def framing_and_body(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A framing field and a body that it (mostly) describes."""
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    if kind == "none":
        return b"", b""
    if kind == "chunked":
        name = draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"]))
        return name + b"\r\n", draw(chunked())
    body = draw(st.binary(max_size=60))
    length = len(body) + draw(mostly(st.just(0), st.integers(0, 3)))
    return b"Content-Length: %d\r\n" % length, body


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, near to the grammar or in it."""
    method = draw(
        mostly(
            st.sampled_from([b"GET", b"HEAD", b"PUT", b"POST", b"PATCH", b"DELETE", b"OPTIONS"]),
            st.sampled_from([b"get", b"M-SEARCH", b"QUERY", b"CONNECT", b"PUTx", b"", b"PRI"]),
        )
    )
    target = draw(
        mostly(
            octets(VISIBLE, 0, 20).map(lambda rest: b"/" + rest),
            st.sampled_from([b"*", b"http://b/", b"a:1", b"", b"/ /", b"/\x80", b"/\x7f", b"//"]),
        )
    )
    version = draw(
        mostly(
            st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]),
            st.sampled_from([b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.10", b"HTTP/0.9"]),
        )
    )
    space = draw(mostly(st.just(b" "), st.sampled_from([b"  ", b"\t", b""])))
    framing, body = draw(framing_and_body())
    return b"".join(
        (
            draw(mostly(st.just(b""), st.sampled_from([b"\r\n", b" ", b"\n", b"\0"]))),
            method + b" " + target + space + version + draw(line_ends),
            b"Host: " + draw(hosts) + draw(line_ends),
            draw(field_lines()),
            framing,
            draw(field_lines()),
            b"\r\n",
            body,
        )
    )


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """One response, near to the grammar or in it."""
    version = draw(mostly(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]), st.just(b"HTTP/2.0")))
    status = draw(
        mostly(
            st.sampled_from([b"200", b"201", b"202", b"204", b"206", b"304", b"404", b"500"]),
            st.sampled_from([b"100", b"103", b"099", b"600", b"+20", b"-1", b"1000", b"20", b""]),
        )
    )
    reason = draw(mostly(octets(b"OK \t\xe9", 0, 5).map(lambda r: b" " + r), st.binary(max_size=3)))
    framing, body = draw(framing_and_body())
    return b"".join(
        (
            version + b" " + status + reason + draw(line_ends),
            draw(field_lines()),
            framing,
            draw(field_lines()),
            b"\r\n",
            body,
        )
    )


_ODD = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\x0b",
    b"\x80",
    b"\xa0",
    b"0",
]


@st.composite
def mutated(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A stream of one to three messages with up to three accidents."""
    stream = bytearray(b"".join(draw(st.lists(messages, min_size=1, max_size=3))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 1, 2]))):
        at = draw(st.integers(0, len(stream)))
        accident = draw(st.sampled_from(["delete", "replace", "insert", "line"]))
        if accident == "delete":
            del stream[at : at + draw(st.integers(1, 4))]
        elif accident == "replace":
            stream[at : at + 1] = draw(st.sampled_from(_ODD))
        elif accident == "insert":
            stream[at:at] = draw(st.sampled_from(_ODD))
        else:
            start = stream.rfind(b"\n", 0, at) + 1
            end = stream.find(b"\n", at) + 1
            if end:
                stream[end:end] = stream[start:end]
    return bytes(stream)

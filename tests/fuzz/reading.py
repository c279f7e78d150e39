"""How others read the octets: h11 what a client sends and gets, h11 and more what goes upstream.

Nothing here knows regguard's parser.  Towards the registry one form of every message is good: the
octets have to match it before h11 is asked, since h11 forgives folded lines, bare LF and blanks
behind a chunk's size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import h11

LIMIT = 1 << 20
"""Octets that h11 may collect of a head: it shall judge the grammar, not the size."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?"
_is_request_head = re.compile(
    rb"[A-Z]+ /[!-~]* HTTP/1\.1\r\n(?:%b: %b\r\n)+\r\n" % (_TOKEN, _VALUE)
).fullmatch
_is_response_head = re.compile(
    rb"HTTP/1\.1 [1-5][0-9]{2} [\t -~]*\r\n(?:%b: %b\r\n)*\r\n" % (_TOKEN, _VALUE)
).fullmatch
_chunk_size = re.compile(rb"([1-9a-f][0-9a-f]{0,7}|0)\r\n").match
_is_partial_size = re.compile(rb"(?:[1-9a-f][0-9a-f]{0,7}|0)?\r?").fullmatch
_framing = re.compile(rb"(?i)\n(?:content-length|transfer-encoding):").findall
# h11 judges framing fields in trailers, too; the guard drops all trailers unread (A21).
_framing_trailer = re.compile(rb"(?i)\n(content-length|transfer-encoding)(?=[ \t]*:)")


class Unreadable(Exception):
    """These octets are no message."""


@dataclass(frozen=True)
class Head:
    """A head as h11 understands it; names are in lower case."""

    method: bytes
    target: bytes
    version: bytes
    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    has_body: bool = False

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field."""
        return [value for key, value in self.fields if key == name]

    @property
    def options(self) -> set[bytes]:
        """What Connection lists."""
        listed = b",".join(self.all(b"connection")).lower().split(b",")
        return {option.strip(b" \t") for option in listed}


@dataclass(frozen=True)
class Reading:
    """A request as h11 understands it; ``rest`` stands behind a ``whole`` one."""

    head: Head
    body: bytes
    whole: bool
    rest: bytes


def _head(event: Any, has_body: bool) -> Head:
    if isinstance(event, h11.Request):
        words = event.method, event.target, event.http_version, 0
    else:
        words = b"", b"", event.http_version, event.status_code
    return Head(*words, tuple(event.headers), has_body)


def _next(connection: h11.Connection) -> Any:
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        raise Unreadable(str(error)) from None


@lru_cache(maxsize=4096)
def _read_head(octets: bytes) -> Head | None:
    """The request head that fills ``octets``; None if h11 sees another end of it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    connection.receive_data(octets)
    event = _next(connection)
    if not isinstance(event, h11.Request):
        return None
    if connection.trailing_data[0]:
        return None
    return _head(event, not isinstance(_next(connection), h11.EndOfMessage))


def read_request(stream: bytes) -> Reading | None:
    """The first request of ``stream``; None while its head is not whole.

    :raises Unreadable: when it has no acceptable head.
    """
    if stream.startswith(b"\r\n"):
        stream = stream[2:]  # RFC 9112 section 2.2: one is forgiven; h11 doesn't
    end = stream.find(b"\r\n\r\n") + 4
    head = _read_head(stream[:end]) if end > 3 else None
    if head is not None and not head.has_body:
        return Reading(head, b"", True, stream[end:])
    reading = _read_whole(stream)
    if reading is not None and not reading.whole and _framing_trailer.search(stream, end):
        # The same again, with a trailer in its place that h11 has no opinion about.
        other = _framing_trailer.sub(_other_name, stream[end:])
        again = _read_whole(stream[:end] + other)
        if again is not None and again.whole and len(again.body) == len(reading.body):
            rest = stream[len(stream) - len(again.rest) :]
            return Reading(reading.head, reading.body, True, rest)
    return reading


def _other_name(match: re.Match[bytes]) -> bytes:
    return b"\n" + b"x" * len(match[1])


def _read_whole(stream: bytes) -> Reading | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    connection.receive_data(stream)
    event = _next(connection)
    if not isinstance(event, h11.Request):
        return None
    head = _head(event, True)
    body = bytearray()
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return Reading(head, bytes(body), False, b"")
        if isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Reading(head, bytes(body), True, bytes(connection.trailing_data[0]))
        else:
            return Reading(head, bytes(body), False, b"")


@lru_cache(maxsize=4096)
def read_upstream_head(octets: bytes) -> Head:
    """A whole head on its way to the registry: in the one good form, and good to h11."""
    if _is_request_head(octets) is None:
        raise Unreadable("not in the one good form")
    head = _read_head(octets)
    if head is None:
        raise Unreadable("h11 sees another end of this head")
    if len(_framing(octets)) > 1:  # h11 makes one of two equal lengths
        raise Unreadable("framed twice")
    return head


def read_upstream_body(head: Head, octets: bytes) -> tuple[bytes, bool, bytes]:
    """The body octets behind a head, whether they are all, and what stands behind them."""
    if head.all(b"transfer-encoding"):
        return read_chunks(octets)
    length = int((head.all(b"content-length") or [b"0"])[0])
    return octets[:length], len(octets) >= length, octets[length:]


def read_chunks(octets: bytes) -> tuple[bytes, bool, bytes]:
    """A chunked body without extensions, trailers or idle zeros."""
    body = bytearray()
    at = 0
    while True:
        size = _chunk_size(octets, at)
        if size is None:
            if _is_partial_size(octets[at:]) is None:
                raise Unreadable("a chunk's size is not in the one good form")
            return bytes(body), False, b""
        at, length = size.end(), int(size[1], 16)
        body += octets[at : at + length]
        at += length
        if not b"\r\n".startswith(octets[at : at + 2]):
            raise Unreadable("a chunk ends otherwise than it said")
        if len(octets) < at + 2:
            return bytes(body), False, b""
        at += 2
        if not length:
            return bytes(body), True, octets[at:]


@dataclass(frozen=True)
class Answer:
    """A response that a client got; ``rest`` stands behind a ``whole`` one."""

    head: Head
    body: bytes
    whole: bool
    rest: bytes


@lru_cache(maxsize=4096)
def _read_answer_head(octets: bytes, method: bytes) -> Head:
    """A whole response head, by h11."""
    if _is_response_head(octets) is None:
        raise Unreadable("the head of the answer is not in the one good form")
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(octets)
    event = _next(connection)
    if not isinstance(event, (h11.Response, h11.InformationalResponse)):
        raise Unreadable("h11 sees no end of this head")
    if isinstance(event, h11.InformationalResponse):
        return _head(event, False)
    return _head(event, not isinstance(_next(connection), h11.EndOfMessage))


def read_answer(octets: bytes, method: bytes, ended: bool) -> Answer | None:
    """The first response in ``octets``, interim ones included; None before its head is whole.

    ``ended``: a FIN stands behind the octets.
    """
    end = octets.find(b"\r\n\r\n") + 4
    if end == 3:
        return None
    head = _read_answer_head(octets[:end], method)
    behind = octets[end:]
    if not head.has_body:
        return Answer(head, b"", True, behind)
    if head.all(b"transfer-encoding"):
        return Answer(head, *read_chunks(behind))
    if head.all(b"content-length"):
        [length] = map(int, head.all(b"content-length"))
        return Answer(head, behind[:length], len(behind) >= length, behind[length:])
    return Answer(head, behind, ended, b"")

"""Writing heads and chunks.

Callers hand in field lines that came out of ``head`` or that they made of checked parts;
``field`` is the one place that makes a line of foreign text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import quote

LAST_CHUNK = b"0\r\n\r\n"

_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
}
_UNSAFE = re.compile(rb"[^\t -~\x80-\xff]")
_VISIBLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


def request_head(method: bytes, target: bytes, fields: Iterable[bytes]) -> bytes:
    """A request head of ready field lines (each ``Name: value`` without line end)."""
    return b"\r\n".join((b"%s %s HTTP/1.1" % (method, target), *fields, b"\r\n"))


def response_head(status: int, reason: bytes | None, fields: Iterable[bytes]) -> bytes:
    """A response head of ready field lines; ``reason`` None: the registered phrase."""
    line = _STATUS_LINES[status] if reason is None else b"HTTP/1.1 %d %s" % (status, reason)
    return b"\r\n".join((line, *fields, b"\r\n"))


def field(name: bytes, value: bytes) -> bytes:
    """One field line of a value that did not come out of a parsed head.

    Raises ValueError for octets that no field value may hold (RFC 9110 section 5.5).
    """
    if _UNSAFE.search(value):
        raise ValueError(f"unsafe octets in a value for {name.decode('ascii')}")
    return b"%s: %s" % (name, value)


def text(value: str) -> bytes:
    """Text as a field value: visible ASCII as it is, the rest percent-encoded UTF-8."""
    return quote(value, safe=_VISIBLE).encode("ascii")


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk (RFC 9112 section 7.1); empty data would end the body: no chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""

"""Heads: the start line and the header section (RFC 9112 sections 2 to 5).

llhttp (through httptools) is the parser; it is fuzzed, strict and takes 2 microseconds for the
head of a registry request.  It is given exactly one head at a time, up to and with the empty
line, so it never sees a body and never runs on into the next request.  What llhttp lets through
and a guard must not stands in this file:

- the request line is compared byte for byte with what llhttp understood, so two spaces, leading
  empty lines, ``HTTP/0.9``, ``HTTP/2.0``, ``RTSP/1.0`` and friends fall out;
- exactly one valid ``Host`` (RFC 9112 section 3.2), at most one ``Authorization``;
- ``Content-Length`` in canonical decimal, ``Transfer-Encoding`` that is ``chunked`` and nothing
  else, only in HTTP/1.1, never both (RFC 9112 section 6.1 allows to repair; we refuse);
- ``Expect`` that is ``100-continue`` and nothing else (RFC 9110 section 10.1.1);
- bounded sizes.
"""

from __future__ import annotations

import re
from functools import lru_cache

import httptools

from regguard.http1.errors import MalformedRequest, MalformedResponse

HEAD_END = b"\r\n\r\n"

MAX_TARGET = 16 * 1024
"""Octets of a request target; RFC 9112 section 3 asks for 8000 at least.  Beyond: 414."""

MAX_HEAD = 32 * 1024
"""Octets of a whole head: a full target and as much again, nginx's 4 x 8 KiB.  Beyond: 431."""

MAX_FIELDS = 100
"""Field lines of a head; Apache's LimitRequestFields default.  Beyond: 431."""

Field = tuple[bytes, bytes, bytes]
"""A field line: the name as sent, the name in lower case, the value without outer blanks."""

# 18 digits stay below 2**63, the largest length that Go's and nginx's parsers hold; an exabyte
# is more than any layer.
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")

# RFC 3986 section 3.2.2 without userinfo, percent-encoding and IPvFuture: what registry hosts
# are.  An underscore is no host name, but it is what docker compose calls its services.
_HOST = re.compile(
    rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]{2,45}\])"
    rb"(?::([0-9]{1,5}))?"
)

_LONGEST_HOST = 255 + len(":65535")

_REASON = re.compile(rb"[\t -~\x80-\xff]*")
_BARE_LF = re.compile(rb"(?<!\r)\n")

_SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization", b"expect"))
"""Fields whose second occurrence makes a request ambiguous."""


class _Fields:
    """Collects what llhttp calls back with, for one head."""

    __slots__ = ("fields", "target")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.target = b""

    def on_url(self, piece: bytes) -> None:
        self.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class RequestHead:
    """A request head that was understood, once, for everybody behind the door.

    ``content_length`` is None where the head says none; ``chunked`` tells a chunked body.  Both
    are never set at once.  ``close`` tells that the client wants no second request on this
    connection (RFC 9112 section 9.3).  ``connection_options`` are the lower-case names in
    Connection: fields that end here.
    """

    __slots__ = (
        "authorization",
        "chunked",
        "close",
        "connection_options",
        "content_length",
        "expects_continue",
        "fields",
        "host",
        "method",
        "minor_version",
        "referer",
        "target",
        "user_agent",
    )

    def __init__(self, method: bytes, target: bytes, minor_version: int) -> None:
        self.method = method
        self.target = target
        self.minor_version = minor_version
        self.fields: list[Field] = []
        self.host = b""
        self.content_length: int | None = None
        self.chunked = False
        self.close = minor_version == 0
        self.connection_options: frozenset[bytes] = _NO_OPTIONS
        self.expects_continue = False
        self.authorization: bytes | None = None
        self.user_agent: bytes | None = None
        self.referer: bytes | None = None

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow the head."""
        return self.chunked or bool(self.content_length)


class ResponseHead:
    """A response head that was understood; fields as in ``RequestHead``."""

    __slots__ = (
        "chunked",
        "close",
        "connection_options",
        "content_length",
        "fields",
        "reason",
        "status",
    )

    def __init__(self, status: int, reason: bytes, close: bool) -> None:
        self.status = status
        self.reason = reason
        self.fields: list[Field] = []
        self.content_length: int | None = None
        self.chunked = False
        self.close = close
        self.connection_options: frozenset[bytes] = _NO_OPTIONS


_NO_OPTIONS: frozenset[bytes] = frozenset()


def parse_request_head(data: bytes) -> RequestHead:
    """Understand one request head; ``data`` ends with the empty line.

    Raises MalformedRequest with the status for the client.
    """
    collected = _Fields()
    parser = httptools.HttpRequestParser(collected)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # the head was complete; we stay with HTTP/1.1 (RFC 9110 section 7.8)
    except httptools.HttpParserError as error:
        raise MalformedRequest(_phrase(error)) from None

    method = parser.get_method()
    target = collected.target
    line_end = len(method) + len(target) + 2
    version = data[line_end : line_end + 10]
    if not data.startswith(method) or data[len(method) + 1 : line_end - 1] != target:
        raise MalformedRequest("malformed request line")
    if version == b"HTTP/1.1\r\n":
        head = RequestHead(method, target, 1)
    elif version == b"HTTP/1.0\r\n":
        head = RequestHead(method, target, 0)
    elif version.startswith(b"HTTP/"):
        raise MalformedRequest("the protocol is not HTTP/1.1", 505)
    else:
        raise MalformedRequest("malformed request line")
    if len(target) > MAX_TARGET:
        raise MalformedRequest("request target too long", 414)
    if len(collected.fields) > MAX_FIELDS:
        raise MalformedRequest("too many header fields", 431)
    _read_request_fields(head, collected.fields)
    return head


def is_host(value: bytes) -> bool:
    """Whether a value is a host, and maybe a port, as a ``Host`` field has them."""
    return len(value) <= _LONGEST_HOST and _is_host(value)


@lru_cache(256)  # clients call a registry by few names
def _is_host(value: bytes) -> bool:
    match = _HOST.fullmatch(value)
    return match is not None and (match[1] is None or int(match[1]) <= 65535)


def _read_request_fields(head: RequestHead, lines: list[tuple[bytes, bytes]]) -> None:
    fields = head.fields
    seen: dict[bytes, bytes] = {}
    for name, value in lines:
        key = name.lower()
        value = value.rstrip(b" \t")
        fields.append((name, key, value))
        if key not in seen:
            seen[key] = value
        elif key in _SINGLE:
            raise MalformedRequest("more than one " + key.decode("ascii") + " field")
        elif key == b"connection":
            seen[key] += b"," + value

    get = seen.get
    host = get(b"host")
    if host is not None:
        if not is_host(host):
            raise MalformedRequest("malformed host field")
        head.host = host
    elif head.minor_version == 1:
        raise MalformedRequest("no host field")
    authorization = head.authorization = get(b"authorization")
    if authorization and b"," in authorization and authorization[:6].lower() == b"basic ":
        # Basic has no comma: somebody joined two fields (Digest has commas; it is no Basic).
        raise MalformedRequest("more than one authorization field")
    head.user_agent = get(b"user-agent")
    head.referer = get(b"referer")
    if b"connection" in seen:
        options = _connection_options(seen[b"connection"])
        head.connection_options = options
        head.close = b"close" in options or (
            head.minor_version == 0 and b"keep-alive" not in options
        )
    if b"content-length" in seen:
        if b"transfer-encoding" in seen:
            raise MalformedRequest("both content-length and transfer-encoding")
        if _LENGTH.fullmatch(seen[b"content-length"]) is None:
            raise MalformedRequest("malformed content-length")
        head.content_length = int(seen[b"content-length"])
    elif b"transfer-encoding" in seen:
        if seen[b"transfer-encoding"].lower() != b"chunked":
            raise MalformedRequest("unknown transfer-encoding", 501)
        if head.minor_version == 0:
            raise MalformedRequest("transfer-encoding in HTTP/1.0")
        head.chunked = True
    if b"expect" in seen:
        if seen[b"expect"].lower() != b"100-continue":
            raise MalformedRequest("unknown expectation", 417)
        # RFC 9110 section 10.1.1: a 1.0 client or a bodiless request gets no 100.
        head.expects_continue = head.minor_version == 1 and head.has_body


def parse_response_head(data: bytes) -> ResponseHead:
    """Understand one response head; ``data`` ends with the empty line.

    Raises MalformedResponse.
    """
    status, reason, old = _status_of(data[: data.index(b"\r\n")])
    collected = _Fields()
    try:
        httptools.HttpResponseParser(collected).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise MalformedResponse(_phrase(error)) from None
    if len(collected.fields) > MAX_FIELDS:
        raise MalformedResponse("too many header fields")
    head = ResponseHead(status, reason, close=old)
    add = head.fields.append
    encoding = length = None
    for name, value in collected.fields:
        key = name.lower()
        value = value.rstrip(b" \t")
        add((name, key, value))
        if key not in _FRAMING:
            continue
        if key == b"content-length":
            if length is not None:
                raise MalformedResponse("more than one content-length field")
            length = value
        elif key == b"transfer-encoding":
            if encoding is not None:
                raise MalformedResponse("more than one transfer-encoding field")
            encoding = value
        else:
            head.connection_options |= _connection_options(value)
    if head.connection_options:
        options = head.connection_options
        head.close = b"close" in options or (old and b"keep-alive" not in options)
    if length is not None:
        if encoding is not None:
            raise MalformedResponse("both content-length and transfer-encoding")
        if _LENGTH.fullmatch(length) is None:
            raise MalformedResponse("malformed content-length")
        head.content_length = int(length)
    elif encoding is not None:
        if encoding.lower() != b"chunked" or old:
            raise MalformedResponse("unknown transfer-encoding")
        head.chunked = True
    return head


_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection"))


@lru_cache(64)  # a registry has few
def _status_of(line: bytes) -> tuple[int, bytes, bool]:
    """Status, reason, and whether it is HTTP/1.0's, of a status line; raises MalformedResponse."""
    version = line[:9]
    if (
        version not in (b"HTTP/1.1 ", b"HTTP/1.0 ")
        or not line[9:12].isdigit()
        or line[12:13] not in (b" ", b"")
        or _REASON.fullmatch(line, 13) is None
    ):
        raise MalformedResponse("malformed status line")
    status = int(line[9:12])
    if not 100 <= status <= 599:
        raise MalformedResponse("status out of range")
    return status, line[13:], version == b"HTTP/1.0 "


def check_partial_request(data: bytes, start: int = 0) -> None:
    """Refuse a head that can no longer become good, without waiting for its end.

    For bytes that hold no empty line yet; ``start`` is where the unseen part begins.  Without
    this a TLS ClientHello, an SSH banner or an LF-only request would keep its connection until
    the header deadline.  Raises MalformedRequest.
    """
    if not b"A" <= data[:1] <= b"Z":
        raise MalformedRequest("malformed request line")
    if b"\0" in data or _BARE_LF.search(data, max(0, start - 1)):
        raise MalformedRequest("malformed head")
    line_end = data.find(b"\r\n")
    if line_end >= 0:
        if line_end + 2 > start:
            parse_request_head(data[: line_end + 2] + b"Host: a\r\n\r\n")
        if len(data) > MAX_HEAD:
            raise MalformedRequest("header fields too long", 431)
    elif len(data) > MAX_TARGET + 64:  # the longest method, two spaces and the version
        raise MalformedRequest("request target too long", 414)


def _connection_options(value: bytes) -> frozenset[bytes]:
    known = _COMMON_OPTIONS.get(value)
    if known is not None:
        return known
    return frozenset(option.strip(b" \t").lower() for option in value.split(b","))


_COMMON_OPTIONS = {
    b"close": frozenset((b"close",)),
    b"keep-alive": frozenset((b"keep-alive",)),
    b"Keep-Alive": frozenset((b"keep-alive",)),
}


def _phrase(error: httptools.HttpParserError) -> str:
    """llhttp's own words; they are constant phrases and never quote the input."""
    return str(error)[:100].lower() or "malformed head"

"""Bodies: where a message ends (RFC 9112 sections 6.3 and 7.1).

Every body has the same small face:

``feed(data)``
    returns the body octets in ``data`` and what stands behind the end of the message;
``complete``
    whether the end was seen;
``ends_with_connection``
    whether the close of the connection is a clean end (a response without a length).

A length-delimited body passes its input on without a copy.
"""

from __future__ import annotations

import re

from regguard.http1.errors import MalformedRequest, MalformedResponse
from regguard.http1.head import RequestHead, ResponseHead

MAX_CHUNK_LINE = 1024
"""Octets of a chunk-size line with its extensions; Twisted's limit."""

MAX_TRAILERS = 8 * 1024
"""Octets of the whole trailer section; Apache's limit for one field line."""


class NoBody:
    """A message that ends with its head."""

    __slots__ = ()
    complete = True
    ends_with_connection = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Everything stands behind the end."""
        return b"", data


class LengthBody:
    """A body of ``remaining`` octets."""

    __slots__ = ("remaining",)
    ends_with_connection = False

    def __init__(self, length: int) -> None:
        self.remaining = length

    @property
    def complete(self) -> bool:
        """Whether all octets were seen."""
        return not self.remaining

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Split ``data`` at the end of the body."""
        left = self.remaining - len(data)
        if left >= 0:
            self.remaining = left
            return data, b""
        body = data[: self.remaining]
        rest = data[self.remaining :]
        self.remaining = 0
        return body, rest


class UntilCloseBody:
    """A response body that the close of the connection ends (RFC 9112 section 6.3, rule 8)."""

    __slots__ = ()
    complete = False
    ends_with_connection = True

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Everything is body."""
        return data, b""


# Up to 15 digits: below 2**60, and no row of zeros.  Extensions are accepted and forgotten
# (RFC 9112 section 7.1.1); they need a name and bring no "bad white space" around it, which
# parsers disagree about.
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"((?:;[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    rb"(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"(?:[\t !#-\[\]-~]|\\[\t -~])*\"))?)*)"
)
_PARTIAL_SIZE_LINE = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;[\t -~]*)?|")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")

_SIZE, _DATA, _DATA_END, _TRAILERS, _END = range(5)


class ChunkedBody:
    """A chunked body (RFC 9112 section 7.1), taken apart; trailers are checked and dropped.

    Trailers are dropped because a recipient must not merge what it does not know to be safe
    (RFC 9110 section 6.5.1) and registries define none.
    """

    __slots__ = ("_left", "_malformed", "_pending", "_state", "_trailers")
    ends_with_connection = False

    def __init__(
        self, malformed: type[MalformedRequest] | type[MalformedResponse] = MalformedRequest
    ) -> None:
        self._malformed = malformed
        self._state = _SIZE
        self._left = 0
        self._pending = b""
        self._trailers = 0

    @property
    def complete(self) -> bool:
        """Whether the last chunk and the end of the trailers were seen."""
        return self._state == _END

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take the next octets; raises the error class given to the constructor."""
        if self._pending:
            data = self._pending + data
            self._pending = b""
        pieces: list[bytes] = []
        position, end = 0, len(data)
        while position < end and self._state != _END:
            if self._state == _DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
            elif self._state == _DATA_END:
                ending = data[position : position + 2]
                if ending == b"\r\n":
                    position += 2
                    self._state = _SIZE
                elif ending == b"\r":
                    break
                else:
                    raise self._malformed("chunk longer than its size")
            else:
                line_end = data.find(b"\r\n", position)
                if line_end < 0:
                    self._check_partial(data[position:])
                    break
                self._line(data[position:line_end])
                position = line_end + 2
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._state == _END:
            return body, data[position:]
        self._pending = data[position:]
        return body, b""

    def _line(self, line: bytes) -> None:
        if self._state == _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None or len(line) > MAX_CHUNK_LINE:
                raise self._malformed("malformed chunk size")
            self._left = int(match[1], 16)
            self._state = _DATA if self._left else _TRAILERS
        elif not line:
            self._state = _END
        else:
            self._trailers += len(line) + 2
            if self._trailers > MAX_TRAILERS or _TRAILER.fullmatch(line) is None:
                raise self._malformed("malformed trailer")

    def _check_partial(self, line: bytes) -> None:
        line = line.removesuffix(b"\r")  # half of a line end is no part of the line
        if self._state == _SIZE:
            if len(line) > MAX_CHUNK_LINE or _PARTIAL_SIZE_LINE.fullmatch(line) is None:
                raise self._malformed("malformed chunk size")
        elif line and self._trailers + len(line) + 2 > MAX_TRAILERS:
            raise self._malformed("malformed trailer")


Body = NoBody | LengthBody | ChunkedBody | UntilCloseBody

NO_BODY = NoBody()


def request_body(head: RequestHead) -> Body:
    """The body that follows a request head (RFC 9112 section 6.3, rules 4 to 7)."""
    if head.chunked:
        return ChunkedBody(MalformedRequest)
    if head.content_length:
        return LengthBody(head.content_length)
    return NO_BODY


def response_body(head: ResponseHead, method: bytes) -> Body:
    """The body that follows a response head to ``method`` (RFC 9112 section 6.3)."""
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
        return NO_BODY
    if head.chunked:
        return ChunkedBody(MalformedResponse)
    if head.content_length is not None:
        return LengthBody(head.content_length) if head.content_length else NO_BODY
    return UntilCloseBody()

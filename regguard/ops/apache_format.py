"""Lines in the formats of Apache's ``mod_log_config`` and ``mod_logio``.

Whatever reads Apache's logs reads ours.  A request that the client left before its answer has
nginx's status 499; one without a parsable head has the request line ``-``.  The second field, which
was meant for identd (RFC 1413) and is ``-`` everywhere, holds the id of the incident when a
request was denied.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from regguard.ops.texts import MAX_TEXT, cut, without_secrets

APACHE_FORMATS = ("common", "combined", "combinedio")

_ESCAPED = re.compile(rb"[^ !#-\[\]-~]")
_ESCAPED_NAME = re.compile(rb"[^!#-\[\]-~]")
# As ap_escape_logitem of Apache's server/util.c.
_NAMED_ESCAPES = {
    b'"': b'\\"',
    b"\\": b"\\\\",
    b"\b": b"\\b",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
    b"\v": b"\\v",
}


class ApacheFormat:
    """One request to one line without its end; ``wall_clock`` gives seconds since the epoch."""

    def __init__(self, name: str, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._agents = name != "common"
        self._octets = name == "combinedio"
        self._second = -1
        self._stamp = b""

    def line(self, request: Any) -> bytes:
        """The line of a ``front.Request`` that came to an end."""
        head = request.head
        second = int(self._wall_clock())
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second)).encode(
                "ascii"
            )
        if head is None:
            first = b"-"
        else:
            first = b"%s %s HTTP/1.%d" % (head.method, _text(head.target), head.minor_version)
        name = b"-"
        if request.user_name is not None:
            name = _name(request.user_name)
        incident = request.incident
        line = b'%s %s %s [%s] "%s" %d %s' % (
            request.client.encode("ascii", "replace") or b"-",
            b"-" if incident is None else incident.encode("ascii"),
            name,
            self._stamp,
            first,
            request.status or 499,
            b"%d" % request.body_bytes_out if request.body_bytes_out else b"-",
        )
        if self._agents:
            referer = agent = None
            if head is not None:
                referer, agent = head.referer, head.user_agent
            line += b' "%s" "%s"' % (
                b"-" if referer is None else _text(referer),
                b"-" if agent is None else _text(agent),
            )
        if self._octets:
            line += b" %d %d" % (
                request.head_bytes_in + request.body_bytes_in,
                request.head_bytes_out + request.body_bytes_out,
            )
        return line


@lru_cache(1024)  # of users who were verified
def _name(user_name: str) -> bytes:
    octets = user_name.encode("utf-8", "backslashreplace")
    name = _ESCAPED_NAME.sub(_escape, octets[:MAX_TEXT])
    if len(name) > MAX_TEXT:
        name = cut(octets, partial(_ESCAPED_NAME.sub, _escape), MAX_TEXT)
    return name


def _text(value: bytes) -> bytes:
    """A client's text inside quotes: one bounded line without secrets, as Apache escapes it."""
    if len(value) > _SHORT or b"?" in value:  # a query may hold a secret
        return _escaped(value)
    return _remembered(value)


def _escaped(value: bytes) -> bytes:
    if b"?" in value or b"@" in value:
        value = without_secrets(value)
    escaped = _ESCAPED.sub(_escape, value[:MAX_TEXT])
    if len(escaped) > MAX_TEXT:
        return cut(value, partial(_ESCAPED.sub, _escape), MAX_TEXT)
    return escaped


# The same few programs ask for the same few images; what is longer is an upload's.
_SHORT = 256
_remembered = lru_cache(1024)(_escaped)


def _escape(match: re.Match[bytes]) -> bytes:
    octet = match[0]
    return _NAMED_ESCAPES.get(octet) or b"\\x%02x" % octet[0]

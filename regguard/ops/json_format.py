"""Lines of JSON: one object for each request, and one for each push (``--access-log-format json``).

A line is ASCII, so no reader and no terminal is led astray: control characters and everything else
beyond it are escaped as JSON has it.  Octets that are no UTF-8 become ``\\xff`` and the like.  What
is not there has no member.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any

from regguard.ops.pushes import digest_of
from regguard.ops.texts import MAX_TEXT, MAX_WORD, cut, without_secrets

MAX_RULE = 256
"""Characters of a denial's rule; the daemon log has it whole."""


class JsonFormat:
    """One request to one line without its end.

    ``clock`` is the IReactorTime that requests begin by, ``wall_clock`` gives seconds since the
    epoch.
    """

    def __init__(self, clock: Any, wall_clock: Callable[[], float]) -> None:
        self._seconds = clock.seconds
        self._wall_clock = wall_clock
        self._second = -1
        self._stamp = ""

    def line(self, request: Any) -> bytes:
        """The line of a ``front.Request`` that came to an end."""
        line = f'{{"event":"request","time":"{self._time()}","client":{_text(request.client)}'
        if request.user_name is not None:
            line += f',"user":{_text(request.user_name)}'
        head = request.head
        if head is not None:
            line += (
                f',"method":{_octets(head.method)},"target":{_octets(head.target)}'
                f',"http_version":"1.{head.minor_version}"'
            )
        access = request.access
        if access is not None:
            line += f',"action":"{access.action}"'
            if access.repository:
                line += f',"repository":{_text(access.repository)}'
            if access.reference:
                line += f',"reference":{_text(access.reference, MAX_WORD)}'
            digest = digest_of(request)
            if digest is not None:
                line += f',"digest":{_text(digest, MAX_WORD)}'
        line += (
            f',"status":{request.status or 499}'
            f',"bytes_in":{request.head_bytes_in + request.body_bytes_in}'
            f',"bytes_out":{request.head_bytes_out + request.body_bytes_out}'
        )
        if request.upstream_seconds is not None:
            line += f',"upstream_seconds":{_seconds(request.upstream_seconds)}'
        line += f',"total_seconds":{_seconds(self._seconds() - request.began)}'
        if request.incident is not None:
            line += f',"incident":{_text(request.incident)}'
        if request.refused_by is not None:
            line += f',"rule":{_text(request.refused_by, MAX_RULE)}'
        if head is not None:
            if head.user_agent is not None:
                line += f',"user_agent":{_octets(head.user_agent)}'
            if head.referer is not None:
                line += f',"referer":{_octets(head.referer)}'
        return (line + "}").encode("ascii")

    def push(self, record: Mapping[str, Any]) -> bytes:
        """The line of a push record."""
        members = (
            f',"{name}":{_text(value) if isinstance(value, str) else json.dumps(value)}'
            for name, value in record.items()
            if value is not None
        )
        line = f'{{"event":"push","time":"{self._time()}"{"".join(members)}}}'
        return line.encode("ascii")

    def _time(self) -> str:
        """Now, in UTC and to the millisecond (RFC 3339 section 5.6)."""
        now = self._wall_clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{int((now - second) * 1000):03d}Z"


def _text(value: str, limit: int = MAX_TEXT) -> str:
    """A JSON string of at most ``limit`` characters."""
    quoted = encode_basestring_ascii(value[:limit])
    return quoted if len(quoted) <= limit else cut(value, encode_basestring_ascii, limit)


def _octets(value: bytes) -> str:
    if b"?" in value or b"@" in value:
        value = without_secrets(value)
    return _text(value[:MAX_TEXT].decode("utf-8", "backslashreplace"))


def _seconds(value: float) -> str:
    # Never as 1e-09.
    return f"{value:.6f}"

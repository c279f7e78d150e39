"""The access log: one line for each request, in Apache's formats.

``common``, ``combined`` and ``combinedio`` are those of ``mod_log_config`` and ``mod_logio``, so
whatever reads Apache's logs reads ours.  A request that the client left before its answer has
nginx's status 499; one without a parsable head has the request line ``-``.  The second field, which
was meant for identd (RFC 1413) and is ``-`` everywhere, holds the id of the incident when a
request was denied.
"""

from __future__ import annotations

import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

FLUSH_DELAY = 0.25
"""Seconds a line may wait for company: one system call for many lines, and still a log that
one can watch."""

FLUSH_LINES = 500
"""Lines that wait at most."""

MAX_TEXT = 2048
"""Octets of one field that are logged; the rest is cut."""

FORMATS = ("common", "combined", "combinedio")

_NEWLINE = 0x0A
_ESCAPED = re.compile(rb"[^ !#-\[\]-~]")
_ESCAPED_NAME = re.compile(rb"[^!#-\[\]-~]")
_NAMED_ESCAPES = {
    b'"': b'\\"',
    b"\\": b"\\\\",
    b"\b": b"\\b",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
    b"\v": b"\\v",
}
# Whoever has the registry's signed upload state can go on with the upload.
_SECRET = re.compile(rb"([?&](?:_state|access_token)=)[^&]*")
_USERINFO = re.compile(rb"//[^/?# ]*@")

_LOG = Logger(namespace="regguard.ops")


class LogFile:
    """A file, or standard output for ``-``; appends whole lines, and never waits."""

    def __init__(self, path: str) -> None:
        self.path = path
        if path == "-":
            self._descriptor = sys.stdout.fileno()
        else:
            # Not blocking: to open a FIFO that nobody reads is an error then.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
            self._descriptor = os.open(path, flags, 0o640)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        # What a pipe takes without blocking when it says that it takes anything.
        self._piece = None if is_file else select.PIPE_BUF
        self._torn = False
        self._lost = 0
        #: Lines that were ever lost.
        self.lost = 0

    def write(self, lines: bytes) -> None:
        """Append; a full disk or a full or closed pipe costs lines, never requests."""
        rest = b"\n" + lines if self._torn else lines
        try:
            while rest and self._poll.poll(0):
                written = os.write(self._descriptor, rest[: self._piece])
                self._torn = rest[written - 1] != _NEWLINE
                rest = rest[written:]
        except OSError:
            pass
        if rest:
            lost = rest[-len(lines) :].count(b"\n")
            self._lost += lost
            self.lost += lost
        elif self._lost:
            _LOG.warn("{lost} lines of the access log were lost", lost=self._lost)
            self._lost = 0

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self.path != "-":
            os.close(self._descriptor)


def never_wait_for(descriptor: int) -> None:
    """Make writes fail where a reader has stopped, instead of the whole daemon (case F05).

    For standard output and error: Twisted's log writes there in the reactor's thread, and a
    refused log-in is enough to make it write.  A pipe is opened anew, because the flag belongs
    to everybody who shares its opening, a shell's other programs for instance; where that is not
    allowed, and for a socket (the journal's), the flag is set on what is there.  Files and
    terminals stay as they are.
    """
    with suppress(OSError):  # a daemon may have no standard error
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode):
            with suppress(OSError):
                anew = os.open(f"/dev/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
                os.dup2(anew, descriptor)
                os.close(anew)
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            os.set_blocking(descriptor, False)


class AccessLog:
    """Formats one line for each ended request and hands the lines on in batches.

    ``write`` takes whole lines; ``clock`` is an IReactorTime, ``wall_clock`` gives seconds since
    the epoch.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        clock: Any,
        wall_clock: Callable[[], float] = time.time,
        log_format: str = "combined",
    ) -> None:
        if log_format not in FORMATS:
            raise ValueError(f"unknown access log format {log_format!r}")
        self._write = write
        self._clock = clock
        self._wall_clock = wall_clock
        self._agents = log_format != "common"
        self._octets = log_format == "combinedio"
        self._lines: list[bytes] = []
        self._flushing: Any = None
        self._second = -1
        self._stamp = b""

    def log(self, request: Any) -> None:
        """Note a ``front.Request`` that came to an end."""
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
            name = _ESCAPED_NAME.sub(_escape, request.user_name.encode("utf-8")[:MAX_TEXT])
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
            line += b' "%s" "%s"' % (_text(referer), _text(agent))
        if self._octets:
            line += b" %d %d" % (
                request.head_bytes_in + request.body_bytes_in,
                request.head_bytes_out + request.body_bytes_out,
            )
        lines = self._lines
        lines.append(line)
        if len(lines) >= FLUSH_LINES:
            self.flush()
        elif self._flushing is None:
            self._flushing = self._clock.callLater(FLUSH_DELAY, self.flush)

    def flush(self) -> None:
        """Hand on what is there."""
        if self._flushing is not None:
            if self._flushing.active():
                self._flushing.cancel()
            self._flushing = None
        if self._lines:
            lines, self._lines = self._lines, []
            lines.append(b"")
            self._write(b"\n".join(lines))


def _text(value: bytes | None) -> bytes:
    """A client's text inside quotes: one bounded line without secrets, as Apache escapes it."""
    if not value:
        return b"-"
    if b"?" in value:
        value = _SECRET.sub(rb"\1...", value)
    if b"@" in value:
        value = _USERINFO.sub(b"//...@", value)
    return _ESCAPED.sub(_escape, value[:MAX_TEXT])


def _escape(match: re.Match[bytes]) -> bytes:
    octet = match[0]
    return _NAMED_ESCAPES.get(octet) or b"\\x%02x" % octet[0]

"""Where log lines go: a file, or standard output; never waited for."""

from __future__ import annotations

import os
import select
import stat
import sys
from contextlib import suppress

from twisted.logger import Logger

_NEWLINE = 0x0A

_LOG = Logger(namespace="regguard.ops")


class LogFile:
    """A file, or standard output for ``-``; appends whole lines, and never waits.

    Several processes may write to it at once.  Into a file a batch of lines goes by one call
    (``O_APPEND``); into anything else, a pipe or the journal's socket, in pieces that end with a
    line and that a pipe takes whole or not at all, if no line is longer than ``PIPE_BUF``
    (pipe(7)).

    :raises OSError: where it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._torn = False
        self._lost = 0
        #: Lines that were ever lost.
        self.lost = 0
        self._take(sys.stdout.fileno() if path == "-" else _opened(path))

    def _take(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)

    def write(self, lines: bytes) -> None:
        """Append; a full disk or a full or closed pipe costs lines, never requests."""
        ended = int(self._torn)
        if ended:
            lines = b"\n" + lines
        position = 0
        try:
            while position < len(lines) and self._poll.poll(0):
                written = os.write(self._descriptor, self._piece(lines, position))
                position += written
                self._torn = lines[position - 1] != _NEWLINE
        except OSError:
            pass
        if position < len(lines):
            # The end of a line that was torn before is none of these.
            lost = lines.count(b"\n", max(position, ended))
            self._lost += lost
            self.lost += lost
        elif self._lost:
            _LOG.warn("{lost} lines of the access log were lost", lost=self._lost)
            self._lost = 0

    def _piece(self, lines: bytes, position: int) -> bytes:
        if self._is_file:
            return lines[position:]
        limit = position + select.PIPE_BUF
        if len(lines) <= limit:
            return lines[position:]
        return lines[position : lines.rfind(b"\n", position, limit) + 1 or limit]

    def reopen(self) -> None:
        """Go on in the file that now has the path's name, after a rotation.

        Where that can't be opened, the one that is open stays and one line says so.
        """
        if self.path == "-":
            return
        try:
            descriptor = _opened(self.path)
        except OSError as error:
            _LOG.error(
                "--access-log {path}: cannot be opened anew ({reason}); the file that is open "
                "stays: check the path and its mode, then send SIGHUP again",
                path=self.path,
                reason=error.strerror,
            )
            return
        before = self._descriptor
        self._torn = self._torn and os.path.samestat(os.fstat(before), os.fstat(descriptor))
        self._take(descriptor)
        os.close(before)

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self.path != "-":
            os.close(self._descriptor)


def _opened(path: str) -> int:
    # Not blocking: to open a FIFO that nobody reads is an error then.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o640)


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

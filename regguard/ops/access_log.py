"""The access log: one line for each request, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from regguard.ops.apache_format import APACHE_FORMATS, ApacheFormat
from regguard.ops.json_format import JsonFormat

FLUSH_DELAY = 0.25
"""Seconds a line may wait for company: one system call for many lines, and still a log that
one can watch."""

FLUSH_LINES = 500
"""Lines that wait at most."""

FORMATS = (*APACHE_FORMATS, "json")


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
        self._json = JsonFormat(clock, wall_clock) if log_format == "json" else None
        self._line = (self._json or ApacheFormat(log_format, wall_clock)).line
        self._lines: list[bytes] = []
        self._flushing: Any = None

    def log(self, request: Any) -> None:
        """Note a ``front.Request`` that came to an end."""
        lines = self._lines
        lines.append(self._line(request))
        if self._flushing is None or len(lines) >= FLUSH_LINES:
            self._flush_in_time()

    def log_push(self, record: Mapping[str, Any]) -> None:
        """Note a push record; Apache's formats have no place for it."""
        if self._json is not None:
            self._lines.append(self._json.push(record))
            self._flush_in_time()

    def _flush_in_time(self) -> None:
        if len(self._lines) >= FLUSH_LINES:
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

"""The daemon's own words, as ``twist --log-format=text`` (or ``json``) writes them.

``twist`` makes its observer when the service has been started, out of
``fileLogObserverFactory`` among its options; :func:`settle` puts ours there instead.  So ``twist``
stays the one who begins logging, and ``--log-level``, ``--log-file`` and what was said before are
its affair.  To add an observer of our own to the publisher would leave its one beside it, and to
begin logging twice is a warning of Twisted's.

Text is one line for each event, and what is not printable in it is escaped; the lines of a
traceback follow.  When the stream is the journal's (``JOURNAL_STREAM``, systemd.exec(5)), each line
begins with its priority (``<4>``, sd-daemon(3)) and has no time, which the journal knows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import IO, Any

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsJSON,
    eventAsText,
)

_FACTORY = "fileLogObserverFactory"

# sd-daemon(3)
_PRIORITIES = {
    LogLevel.critical: "<2>",
    LogLevel.error: "<3>",
    LogLevel.warn: "<4>",
    LogLevel.info: "<6>",
    LogLevel.debug: "<7>",
}


def settle(options: MutableMapping[str, Any]) -> None:
    """Let ``twist``, whose options these are, write our lines in the format that it was told."""
    formats: dict[Any, Callable[[IO[Any]], ILogObserver]] = {"text": text_log, "json": json_log}
    observer = formats.get(options.get("logFormat"))
    if observer is not None and _FACTORY in options:
        options[_FACTORY] = observer


def text_log(stream: IO[Any]) -> FileLogObserver:
    """An observer that writes lines of text."""
    return FileLogObserver(stream, _for_journal if is_journal(stream) else _with_time)


def json_log(stream: IO[Any]) -> FileLogObserver:
    """An observer that writes JSON: records as RFC 7464 has them, or lines for the journal."""
    return FileLogObserver(stream, _json_for_journal if is_journal(stream) else _json)


def complain(text: str) -> None:
    """Say on standard error why there is no daemon, in one line."""
    priority = _PRIORITIES[LogLevel.error] if is_journal(sys.stderr) else ""
    sys.stderr.write(f"{priority}regguard: {text}\n")


def is_journal(stream: IO[Any]) -> bool:
    """Whether a stream is the one that the service manager has connected to the journal."""
    with suppress(OSError, ValueError):  # closed, or no file at all
        status = os.fstat(stream.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


def _with_time(event: LogEvent) -> str | None:
    text = "\n\t".join(_lines(event, with_time=True))
    return text + "\n" if text else None


def _for_journal(event: LogEvent) -> str | None:
    priority = _priority(event)
    return "".join(f"{priority}{line}\n" for line in _lines(event, with_time=False)) or None


def _json(event: LogEvent) -> str:
    return f"\x1e{eventAsJSON(event)}\n"


def _json_for_journal(event: LogEvent) -> str:
    return f"{_priority(event)}{eventAsJSON(event)}\n"


def _priority(event: LogEvent) -> str:
    return _PRIORITIES.get(event.get("log_level"), "<6>")


def _lines(event: LogEvent, with_time: bool) -> list[str]:
    """The event itself, and the lines of its traceback."""
    text = eventAsText(event, includeTraceback=False, includeTimestamp=with_time)
    lines = [text] if text else []
    if "log_failure" in event:
        try:
            lines += event["log_failure"].getTraceback().splitlines()
        except Exception as error:
            lines.append(f"(no traceback: {type(error).__name__})")
    return [line if line.isprintable() else _printable(line) for line in lines]


def _printable(line: str) -> str:
    # With a backslash of its own left as it is: paths in tracebacks hold some.
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in line
    )

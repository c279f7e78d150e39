"""What holds for the session as a whole, also when only a part of the tests was selected."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import execute
from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    eventAsJSON,
    eventAsText,
    globalLogPublisher,
)
from zope.interface import implementer

from regguard.files import FileWatcher
from tests.canary import SEARCH


@implementer(ILogObserver)
def _look_at(event: LogEvent) -> None:
    """As both log formats would write it, traceback included."""
    # Of a copy: eventAsJSON leaves something of its own in the event.
    octets = f"{eventAsText(event)}\n{eventAsJSON(dict(event))}".encode(errors="replace")
    SEARCH.look(f"log of {event.get('log_namespace')}", octets)


@pytest.fixture(scope="session", autouse=True)
def _no_password_was_seen() -> Iterator[None]:
    """F01: no log, process list, environment or registry has shown a password."""
    globalLogPublisher.addObserver(_look_at)
    yield
    globalLogPublisher.removeObserver(_look_at)
    if SEARCH.found:
        lines = [f"{where}: {around!r}" for where, around in SEARCH.found.items()]
        pytest.fail("\n".join(("passwords stand in", *lines)), pytrace=False)


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_stays() -> None:
    """Later collections look at this module's objects only: some tests make two each."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watcher(clock: Clock) -> FileWatcher:
    """A running watcher that reads files in this thread."""
    watcher = FileWatcher(clock, execute)
    watcher.startService()
    return watcher


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a file and return its path."""

    def write(content: str | bytes, name: str = "file") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return str(path)

    return write

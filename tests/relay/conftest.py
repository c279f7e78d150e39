"""Every world ends empty, and no failure is forgotten in a Deferred or only logged."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.relay.world import World


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """The failures that were logged; a test that expects some empties the list."""
    gc.collect()
    events: list[Any] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            events.append(event["log_failure"])

    globalLogPublisher.addObserver(observe)
    yield events
    gc.collect()
    globalLogPublisher.removeObserver(observe)
    assert events == []


@pytest.fixture
def world(logged: list[Any]) -> Iterator[World]:
    """A world that is closed in the end, and must have nothing left then."""
    world = World()
    yield world
    world.close()


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """The texts of everything that is logged."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)

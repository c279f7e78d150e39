"""Doubles for the auth room: threads that run when told, files that are a line to write."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from regguard.auth.threads import VerificationThreads
from regguard.files import FileWatcher
from tests.auth.house import House, Write


class ManualPool:
    """A thread pool whose jobs run, in this thread, when a test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[bool, Any], object], Callable[..., Any], Any]] = []
        self.state = "new"

    def start(self) -> None:
        self.state = "started"

    def stop(self) -> None:
        self.state = "stopped"

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], object], func: Callable[..., Any], *args: Any
    ) -> None:
        self.jobs.append((onResult, func, args))

    def run_one(self) -> None:
        on_result, function, arguments = self.jobs.pop(0)
        try:
            outcome = function(*arguments)
        except BaseException:
            on_result(False, Failure())
        else:
            on_result(True, outcome)

    def run_all(self) -> None:
        while self.jobs:
            self.run_one()


class DirectReactor:
    """callFromThread without a thread to come from."""

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)


class Threads:
    """Started verification threads and the pool behind them."""

    def __init__(self, size: int = 2) -> None:
        self.pool = ManualPool()
        self.service = VerificationThreads(DirectReactor(), size, self.pool)  # type: ignore[arg-type]
        self.service.startService()


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def basic() -> Callable[[str, str], bytes]:
    """Make an Authorization header's value."""
    return lambda name, password: b"Basic " + b64encode(f"{name}:{password}".encode())


@pytest.fixture
def outcome() -> Callable[[Any], Any]:
    """What a Deferred fired with: its value, or its exception; None when it did not fire."""

    def outcome(deferred: Deferred[Any]) -> Any:
        assert isinstance(deferred, Deferred)
        seen: list[Any] = []
        deferred.addCallbacks(seen.append, lambda failure: seen.append(failure.value))
        return seen[0] if seen else None

    return outcome


@pytest.fixture
def house(write: Write, threads: Any, watcher: FileWatcher, clock: Clock) -> House:
    """Two users in a file, one of them in a group, and no throttle."""
    return House(write, threads, watcher, clock)

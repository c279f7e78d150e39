"""Requests of one who may push, over raw connections, to guards whose surroundings fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Protocol

from tests.e2e.programs import Guard
from tests.e2e.wire import Client, Message

AT_ONCE = 1.0

UPLOAD = "/v2/team/app/blobs/uploads/12345678-1234-1234-1234-123456789012"
BLOB = "/v2/team/app/blobs/sha256:" + 64 * "a"

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Connect(Protocol):
    """The fixture ``connect``: a raw connection of one who may push, closed when the test ends."""

    def __call__(
        self, guard: Guard, port: int | None = None, window: int | None = None
    ) -> Client: ...


def ask(client: Client, method: str, target: str, *lines: str, body: bytes = b"") -> Message:
    """One request with a whole body."""
    if body or method in ("PUT", "PATCH", "POST"):
        lines = (*lines, f"Content-Length: {len(body)}")
    return client.ask(method, client.head(method, target, *lines) + body)


def error_code(answer: Message) -> str:
    """The code in an answer of regguard's own."""
    (error,) = json.loads(answer.body)["errors"]
    return str(error["code"])


def wait_until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Return as soon as ``true()`` is."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.002)

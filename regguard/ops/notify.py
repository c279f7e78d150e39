"""What systemd is told: sd_notify(3), and the watchdog of sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress


class Notify:
    """Sends states to systemd's socket; says nothing where there is none, and never waits.

    ``address`` is as in ``NOTIFY_SOCKET``: a path, or an abstract name behind ``@``.
    ``watchdog`` is the time in seconds within which systemd wants to hear of us, or None.
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        self._address = None
        if address is not None and address[:1] in ("/", "@"):
            self._address = "\0" + address[1:] if address[0] == "@" else address
        self.watchdog = watchdog if self._address is not None else None

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> Notify:
        """What systemd says in the environment, and take it out: children are not meant."""
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds = environment.pop("WATCHDOG_USEC", "")
        for_pid = environment.pop("WATCHDOG_PID", "")
        is_ours = for_pid in ("", str(os.getpid()))
        watchdog = None
        if is_ours and microseconds.isdecimal() and int(microseconds):
            watchdog = int(microseconds) / 1_000_000
        return cls(address, watchdog)

    def ready(self, status: str) -> None:
        """Serving; after ``reloading``: with what was reloaded."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Reading files anew, until ``ready``."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Draining, until the process ends."""
        self._send("STOPPING=1\nSTATUS=draining")

    def alive(self) -> None:
        """Still there, for the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if self._address is None:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        # Nobody there, or nobody who reads: that must not cost anybody a request.
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as channel:
            channel.sendto(state.encode(), self._address)

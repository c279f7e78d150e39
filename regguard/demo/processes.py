"""A program that the demo started."""

from __future__ import annotations

import collections
import signal
import subprocess
import threading
from pathlib import Path

# A guard that drains and a registry that syncs are done in a second.
STOP_SECONDS = 10.0
# Enough for a traceback's end, few enough for one screen.
LINES_KEPT = 15


class Program:
    """A running program, the last lines that it wrote, and how it is stopped.

    It lives in a session of its own, so that Ctrl-C reaches the demo alone, which then stops
    its programs in order.  ``echo`` says whether its further lines are shown.
    """

    def __init__(self, name: str, argv: list[str], folder: Path) -> None:
        self.name = name
        self.echo = False
        self._lines: collections.deque[str] = collections.deque(maxlen=LINES_KEPT)
        self._process = subprocess.Popen(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.rstrip("\n"))
            if self.echo:
                print(line, end="", flush=True)

    def ended(self) -> str | None:
        """How it ended ("exit status 1", "signal SIGKILL"), or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"exit status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def last_lines(self) -> str:
        """What it wrote last, indented under a heading."""
        if self.ended() is not None:
            self._reader.join(STOP_SECONDS)
        lines = list(self._lines) or ["(nothing)"]
        return "\n".join([f"The last lines of the {self.name}:", *("  " + line for line in lines)])

    def stop(self) -> None:
        """Ask it to end, and end it when it does not; its output is closed afterwards."""
        self.echo = False
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

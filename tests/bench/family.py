"""What a program and all its children use, as /proc tells: one process, or parent and workers."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# Seconds between two looks at the CPU time, and for how long at most: 64 hashes of bcrypt-12 that
# nobody waits for any more keep two cores busy for 12.
_LOOK, _PATIENCE = 0.1, 60.0


def _members(pid: int) -> Iterator[Path]:
    process = Path(f"/proc/{pid}")
    yield process
    with contextlib.suppress(OSError):  # it ended meanwhile
        for thread in (process / "task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _members(int(child))


def cpu_seconds(pid: int) -> float:
    """User and system time, that of children which are gone included."""
    ticks = 0
    for process in _members(pid):
        with contextlib.suppress(OSError):
            # The second field, the name, may have spaces; see proc(5) for the others.
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def memory(pid: int) -> int:
    """PSS in octets: what they share with each other counts once."""
    kilobytes = 0
    for process in _members(pid):
        with contextlib.suppress(OSError):
            rollup = (process / "smaps_rollup").read_text()
            kilobytes += int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1])  # type: ignore[index]
    return kilobytes * 1024


def settle(pid: int) -> None:
    """Wait until it does nothing any more: what it still did would fall on the next one."""
    end = time.monotonic() + _PATIENCE
    before = cpu_seconds(pid)
    while time.monotonic() < end:
        time.sleep(_LOOK)
        now = cpu_seconds(pid)
        # A tick in a tenth of a second is a timer, and no work.
        if now - before < 1.5 / _TICKS:
            return
        before = now

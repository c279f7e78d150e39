"""What operators look at, and act on.

``access_log``
    one line for each request.
``lifetime``
    from the start of a process to its end: signals, and the exit status.
``notify``
    what systemd is told.
``workers``
    several processes that serve, and their parent.
``control``
    the line between a parent and its worker.
"""

from __future__ import annotations

from regguard.ops.access_log import FORMATS, AccessLog, LogFile, never_wait_for

__all__ = ["FORMATS", "AccessLog", "LogFile", "never_wait_for"]

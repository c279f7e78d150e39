"""What operators look at."""

from __future__ import annotations

from regguard.ops.access_log import FORMATS, AccessLog, LogFile, never_wait_for

__all__ = ["FORMATS", "AccessLog", "LogFile", "never_wait_for"]

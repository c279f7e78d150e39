"""What operators look at."""

from __future__ import annotations

from regguard.ops.access_log import FORMATS, AccessLog
from regguard.ops.log_file import LogFile, never_wait_for
from regguard.ops.pushes import PushLedger, push_event

__all__ = ["FORMATS", "AccessLog", "LogFile", "PushLedger", "never_wait_for", "push_event"]

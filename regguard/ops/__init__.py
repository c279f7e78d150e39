"""What operators look at.

``access_log``
    one line for each request.
``metrics``
    what is counted, and how the numbers of several processes become one.
``exposition``
    these numbers as Prometheus reads them, by prometheus-client.
``admin``
    the pages on which they, health and readiness stand.

The last two are imported where there is an admin endpoint only.
"""

from __future__ import annotations

from regguard.ops.access_log import FORMATS, AccessLog, LogFile, never_wait_for
from regguard.ops.metrics import Tally

__all__ = ["FORMATS", "AccessLog", "LogFile", "Tally", "never_wait_for"]

"""What operators look at, and act on.

``access_log``, ``apache_format``, ``json_format``, ``texts``
    one line for each request.
``log_file``
    where the lines go.
``daemon_log``
    the daemon's own words, for people and for the journal.
``pushes``
    what one push was, out of its requests.
``metrics``
    what is counted, and how the numbers of several processes become one.
``exposition``
    these numbers as Prometheus reads them, by prometheus-client.
``admin``
    the pages on which they, health and readiness stand.
``lifetime``
    from the start of a process to its end: signals, and the exit status.
``notify``
    what systemd is told.
``workers``
    several processes that serve, and their parent.
``control``
    the line between a parent and its worker.

``exposition`` and ``admin`` are imported where there is an admin endpoint only.
"""

from __future__ import annotations

from regguard.ops.access_log import FORMATS, AccessLog
from regguard.ops.log_file import LogFile, never_wait_for
from regguard.ops.metrics import Tally
from regguard.ops.pushes import PushLedger, push_event

__all__ = ["FORMATS", "AccessLog", "LogFile", "PushLedger", "Tally", "never_wait_for", "push_event"]

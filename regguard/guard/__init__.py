"""The guard: authenticate, authorize, relay; and what regguard itself has to say.

``resource``
    the order of acts for every request, and what becomes of a denial.
``catalog``
    the list of repositories, as far as the caller may pull them.
``tags``
    tags that are immutable: what the registry has must not change.
``missing``
    repositories that a caller must not know of answer as if there were none.
"""

from __future__ import annotations

from regguard.guard.resource import HOLD, RETRY_AFTER, GuardResource

__all__ = ["HOLD", "RETRY_AFTER", "GuardResource"]

"""What: a request's method and target become an :class:`Access`, and a policy decides on it.

=============== ===========================================================================
``target.py``   method + raw target -> ``Access``, or a ``Refusal`` with its status
``matching.py`` patterns of repositories and tags; which is the first that fits
``policy.py``   ``Who`` (who may do a thing), ``Policy``: user + access -> ``Grant | Denial``
=============== ===========================================================================

Pure: bytes in, verdict out. No Twisted, no I/O, no knowledge of HTTP beyond method and target.
What goes upstream is always ``Grant.target``, rebuilt here; the client's raw target never does.
"""

from regguard.access.policy import Denial, Freeze, Grant, Policy, Rule, Unchanged, Who
from regguard.access.target import Access, Action, Refusal, parse_access

__all__ = [
    "Access",
    "Action",
    "Denial",
    "Freeze",
    "Grant",
    "Policy",
    "Refusal",
    "Rule",
    "Unchanged",
    "Who",
    "parse_access",
]

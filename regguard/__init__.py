"""regguard: a guard in front of a container image registry.

The house, in the order in which a request walks through it.  Imports run strictly from a room
to the rooms named on its right; there are no cycles.

=================  =================================================================  ======
``twisted/plugins/regguard_plugin.py`` names the ``twist regguard`` service and the ``--auth
htpasswd:FILE`` checker, and nothing else.
"""

from __future__ import annotations

__version__ = "0.1.0"

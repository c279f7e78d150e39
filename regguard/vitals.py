"""What a running guard says of itself: its numbers, and whether it is ready.

Plain words and numbers that JSON knows, so that one process can speak for several.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence

import twisted
from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from regguard import __version__
from regguard.auth.authenticator import Authenticator
from regguard.files import FileWatcher
from regguard.front import Site
from regguard.front.admission import Admission
from regguard.ops.exposition import process_metrics
from regguard.ops.metrics import Snapshot, Tally, alone, by_label
from regguard.relay import Reachability, Relay


class Vitals:
    """Asks the parts of a guard how they are; one for each process that serves.

    ``expiries`` gives the seconds since the epoch when a certificate expires, by its path;
    ``lines_lost`` how many lines of the access log were lost.  ``draining`` is to be set when no
    new connections are taken.
    """

    def __init__(
        self,
        clock: IReactorTime,
        tally: Tally,
        sites: Sequence[Site],
        admission: Admission,
        authenticator: Authenticator,
        relay: Relay,
        watcher: FileWatcher,
        expiries: Callable[[], Mapping[str, float]],
        lines_lost: Callable[[], int],
    ) -> None:
        self.draining = False
        self._tally = tally
        self._sites = sites
        self._admission = admission
        self._authenticator = authenticator
        self._relay = relay
        self._watcher = watcher
        self._expiries = expiries
        self._lines_lost = lines_lost
        self._reachability = Reachability(relay.upstreams.members, clock)
        openssl = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace").split()[1]
        self._build = [__version__, platform.python_version(), twisted.__version__, openssl]

    def snapshot(self) -> Snapshot:
        """All metrics of this process."""
        channels = (channel for site in self._sites for channel in site.channels)
        under_way = [channel.request for channel in channels if channel.request is not None]
        upstreams = self._relay.upstreams.members
        return {
            **self._tally.snapshot(under_way),
            "regguard_authentications_total": by_label(self._authenticator.results),
            "regguard_connections": alone(self._admission.count),
            "regguard_connections_limit": alone(self._admission.total),
            "regguard_upstream_failures_total": by_label(self._relay.failures),
            "regguard_upstream_up": by_label({str(up.address): int(up.is_up) for up in upstreams}),
            "regguard_certificate_expiry_timestamp_seconds": by_label(self._expiries()),
            "regguard_files_refused": alone(len(self._watcher.faults())),
            "regguard_access_log_lost_lines_total": alone(self._lines_lost()),
            "regguard_workers": alone(1),
            "regguard_build_info": [[self._build, 1]],
            **process_metrics(),
        }

    def complaints(self) -> Deferred[list[str]]:
        """Why no request should come here, a line for each reason."""
        if self.draining:
            return succeed(["draining: what is under way may finish, and nothing new begins"])
        # Not a changed file that is refused: the version before it is in force, and a typo that
        # reaches all machines at once must not take all of them out of service.
        return self._reachability.complaints()

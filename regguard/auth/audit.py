"""Refused log-ins, for whoever watches the log.

The first one of a user, network and reason is an event of its own; its repeats within the minute
are summed up in one more at the minute's end. A flood of ever new names gets as many events as
:data:`DISTINCT`, and one that counts the rest, so an attacker cannot fill the disk or hide
somebody else's line among a million.

A request without credentials is no refused log-in: every docker client begins with one.
"""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from regguard.auth.interfaces import Throttled

# Seconds for which repeats are summed up.
INTERVAL = 60.0

# Users, networks and reasons that get events of their own within one interval. At two lines each
# that is no more than 20 kB of log a minute, and more than an administrator would read.
DISTINCT = 100

# Characters of a user name that are logged; the longest a directory has are 64 (RFC 4519's uid).
NAME_LENGTH = 64


class Audit(Service):
    """Writes refused log-ins to the log; to be started and stopped as a service."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._repeats: dict[tuple[str, str, str], int] = {}
        self._others = 0
        self._summing: IDelayedCall | None = None

    def refused(self, user: str, network: str, reason: str) -> None:
        """A log-in was refused; ``user`` is whom it claimed to be, as it came."""
        key = (_printable(user), network, reason)
        if key in self._repeats:
            self._repeats[key] += 1
        elif len(self._repeats) < DISTINCT:
            self._repeats[key] = 0
            self._log.info(
                "refused {user} from {network}: {reason}",
                user=key[0],
                network=network,
                reason=reason,
            )
        else:
            self._others += 1
        if self._summing is None and self.running:
            self._summing = self._clock.callLater(INTERVAL, self._sum_up)

    def throttled(self, user: str, network: str, refusal: Throttled) -> None:
        """A log-in was refused without a look; the first one of its kind is a warning."""
        if refusal.begins:
            self._log.warn(
                "{reason}: {user} from {network} is refused without a look for {seconds} s",
                reason=refusal.reason,
                user=_printable(user),
                network=network,
                seconds=refusal.retry_after,
            )
        self.refused(user, network, refusal.reason)

    def stopService(self) -> None:
        """Sum up what is there."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._summing is not None:
            self._summing.cancel()
            self._sum_up()

    def _sum_up(self) -> None:
        self._summing = None
        repeats, self._repeats = self._repeats, {}
        others, self._others = self._others, 0
        for (user, network, reason), count in repeats.items():
            if count:
                self._log.info(
                    "refused {user} from {network} {count} more times within a minute: {reason}",
                    user=user,
                    network=network,
                    reason=reason,
                    count=count,
                )
        if others:
            self._log.info("refused {count} other log-ins within a minute", count=others)


def _printable(user: str) -> str:
    """A name that somebody claimed, as one bounded word of a line; "-" for none."""
    shown = "".join(
        character if character.isprintable() and character not in " \\" else _escape(character)
        for character in user[:NAME_LENGTH]
    )
    return (shown or "-") + ("..." if len(user) > NAME_LENGTH else "")


def _escape(character: str) -> str:
    # ascii() would leave a blank as it is.
    return f"\\x{ord(character):02x}" if character < "\x80" else ascii(character)[1:-1]

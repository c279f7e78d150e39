"""The borders of this room: the avatar, what a checker may offer, and how a login can end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.cred.error import UnauthorizedLogin
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from regguard.auth.files import FileWatcher
    from regguard.auth.threads import VerificationThreads


class IUser(Interface):
    """The avatar: somebody whose credential was verified."""

    name: str = Attribute("The user's name, without control characters.")
    groups: frozenset[str] = Attribute("The groups that the user is in.")


class IVersionedChecker(Interface):
    """A credentials checker that knows at once when a verified password ceases to be valid."""

    def version_of(username: bytes) -> object | None:
        """Return what a verification of this user would rest on now.

        Equal answers mean: what was verified then is still valid. ``None`` means that there is no
        such user, or nothing to rest on. Called for every request, so it must cost no more than
        a look-up.
        """


class IHostedChecker(Interface):
    """A credentials checker that can use the daemon's threads and file watcher.

    Until it is attached (a strcred checker is made before there is a reactor, and other programs
    never attach it) it works by itself, in the calling thread.
    """

    def attach(threads: VerificationThreads, watcher: FileWatcher) -> None:
        """Hash in these threads from now on, and have files watched by this watcher."""


class Unauthenticated(UnauthorizedLogin):
    """No credentials, malformed ones, or wrong ones: 401.

    ``reason`` is for the log and names no secret; ``name`` is the user name that was claimed, as
    far as one could be read.
    """

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.name = name


class Undecided(Exception):
    """Whether the credential is good cannot be found out now: 503 with Retry-After.

    ``retry_after`` is in seconds.
    """

    # Docker's login gives up after 15 s, and podman reads this header: soon, but not at once.
    retry_after = 5


class Overloaded(Undecided):
    """Too many verifications are waiting already."""


class CheckerFailed(Undecided):
    """A checker broke down (it is logged), and no other one admits the user."""

"""The borders of this room: the avatar, what a checker may offer, and how a login can end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.cred.error import UnauthorizedLogin
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.application.service import IService

    from regguard.auth.threads import VerificationThreads
    from regguard.files import FileWatcher


class IUser(Interface):
    """The avatar: somebody whose credential was verified."""

    name: str = Attribute("The user's name, without control characters.")
    groups: frozenset[str] = Attribute("The groups that the user is in.")


class AvatarId(bytes):
    """A user name as twisted.cred passes it on, with the groups that the user is in.

    A group's name is what a rule calls it: ``group:NAME``, or a distinguished name in the spelling
    of :func:`regguard.dn.canonical`.
    """

    groups: frozenset[str]

    def __new__(cls, name: str, groups: Iterable[str]) -> AvatarId:
        self = super().__new__(cls, name.encode("utf-8"))
        self.groups = frozenset(groups)
        return self


class IGroupSource(Interface):
    """A credentials checker that may fire with an :class:`AvatarId`; it has no methods.

    Its groups count beside those of the groups file, for as long as the credential does, and
    rules may name groups that stand in no file.
    """


class IServedChecker(Interface):
    """A credentials checker with a service of its own: threads, or connections.

    Its ``str()`` says what it asks, for the log.
    """

    warnings: tuple[str, ...] = Attribute("What the operator should know, a line each.")

    def serve(reactor: Any) -> IService:
        """Work by this reactor from now on; the daemon starts and stops what is returned."""


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


class IStoredHashChecker(Interface):
    """A credentials checker on stored password hashes, some of which may be weak."""

    def refuse_weak() -> None:
        """Refuse weak hashes, now and at each reload (``--minimum-hash bcrypt``).

        :raises FileError: when there is one; the message names file, line, user and cure.
        """

    def warning() -> str | None:
        """Say in one line who has a weak hash now; None when nobody has."""


class Unauthenticated(UnauthorizedLogin):
    """No credentials, malformed ones, or wrong ones: 401.

    ``reason`` is for the log and names no secret; ``name`` is the user name that was claimed, as
    far as one could be read.
    """

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.name = name


class Throttled(Exception):
    """Too many wrong secrets: 429 with Retry-After, and no look at this one.

    ``reason`` is for client and log; ``retry_after`` is in seconds; ``begins`` says whether this
    is the first refusal of its kind.
    """

    def __init__(self, reason: str, retry_after: int, begins: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.begins = begins


class Undecided(Exception):
    """Whether the credential is good cannot be found out now: 503 with Retry-After.

    ``retry_after`` is in seconds.
    """

    # Docker's login gives up after 15 s, and podman reads this header: soon, but not at once.
    retry_after = 5


class Overloaded(Undecided):
    """Too many verifications are waiting already."""


class Unavailable(Undecided):
    """A checker cannot say now, and has logged why; the next one is asked."""


class CheckerFailed(Undecided):
    """A checker broke down (it is logged), and no other one admits the user."""

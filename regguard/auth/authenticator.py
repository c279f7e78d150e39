"""From an Authorization header to a :class:`User`.

A verified credential is found in the cache, without a Deferred. Any other one goes through the
portals: twisted.cred's Portal keeps one checker per interface, so each checker has a portal of its
own, and they are asked in order until one admits the user.

A checker that says ``UnauthorizedLogin`` passes the question on. One that fails in any other way is
logged as a fault, and the question is passed on as well: no checker can veto what another one
vouches for, so nothing is lost by asking, and a local administrator gets in while the directory is
down. But if nobody vouches then, the answer is not "wrong password" (docker would tell the user so,
and people change passwords for less) but "cannot say".
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from regguard.auth.basic import decode_basic
from regguard.auth.interfaces import (
    CheckerFailed,
    IUser,
    IVersionedChecker,
    Unauthenticated,
    Undecided,
)
from regguard.auth.realm import Realm, User
from regguard.auth.verified import CAPACITY, VerifiedCredentials


class _Door:
    """One checker behind its portal."""

    __slots__ = ("checker", "portal", "versioned")

    def __init__(self, realm: Realm, checker: ICredentialsChecker) -> None:
        if IUsernamePassword not in checker.credentialInterfaces:
            raise ValueError(f"{checker!r} does not check user names and passwords")
        self.checker = checker
        self.portal = Portal(realm, [checker])
        self.versioned: IVersionedChecker | None = IVersionedChecker(checker, None)

    def version_of(self, username: bytes) -> object | None:
        return None if self.versioned is None else self.versioned.version_of(username)


class _Flight:
    """One verification, and everybody who waits for its outcome."""

    __slots__ = ("_waiters", "work")

    @property
    def awaited(self) -> bool:
        """Whether anybody still waits."""
        return bool(self._waiters)

    def __init__(self) -> None:
        self._waiters: list[Deferred[User]] = []
        self.work: Deferred[None] | None = None

    def join(self) -> Deferred[User]:
        waiter: Deferred[User] = Deferred(self._leave)
        self._waiters.append(waiter)
        return waiter

    def _leave(self, waiter: Deferred[User]) -> None:
        self._waiters.remove(waiter)
        if not self._waiters and self.work is not None:
            self.work.cancel()

    def land(self, outcome: User | Exception) -> None:
        # One by one: what the first one sets off may cancel the next.
        while self._waiters:
            waiter = self._waiters.pop(0)
            if isinstance(outcome, Exception):
                waiter.errback(outcome)
            else:
                waiter.callback(outcome)


class Authenticator:
    """Finds out who is asking.

    :param checkers: asked in this order; each has to check ``IUsernamePassword``.
    :raises ValueError: when there is no checker, or one of another kind.
    """

    _log = Logger()

    def __init__(
        self,
        realm: Realm,
        checkers: Sequence[ICredentialsChecker],
        clock: IReactorTime,
        *,
        capacity: int = CAPACITY,
    ) -> None:
        if not checkers:
            raise ValueError("no checker: nobody could log in")
        self._doors = [_Door(realm, checker) for checker in checkers]
        self._verified = VerifiedCredentials(realm.groups, clock, capacity)
        self._flights: dict[bytes, _Flight] = {}

    def authenticate(self, authorization: bytes | None) -> User | Deferred[User]:
        """Say who sends this value of the Authorization header (None: no such header).

        Equal values under verification share one. The Deferred may be cancelled; when everybody
        who waits has done so, a verification that still waits for a thread is dropped.

        :raises Unauthenticated: at once for no credentials or malformed ones; the Deferred fails
            with it for wrong ones.
        :raises Undecided: from the Deferred, when there is no telling now: :exc:`Overloaded` or
            :exc:`CheckerFailed`.
        """
        if authorization is None:
            raise Unauthenticated("no credentials")
        key = self._verified.key(authorization)
        user = self._verified.find(key)
        if user is not None:
            return user
        flight = self._flights.get(key)
        if flight is None:
            name, password = decode_basic(authorization)
            flight = self._flights[key] = _Flight()
            waiter = flight.join()
            flight.work = Deferred.fromCoroutine(self._fly(flight, key, name, password))
            return waiter
        return flight.join()

    async def _fly(self, flight: _Flight, key: bytes, name: str, password: str) -> None:
        outcome: User | Exception
        try:
            outcome = await self._verify(key, name, password)
        except (Unauthenticated, Undecided) as verdict:
            outcome = verdict
        except Exception:
            # Fail closed: whatever this was, it was no log-in. (Nobody waits: it was cancelled.)
            if flight.awaited:
                self._log.failure("a verification failed")
            outcome = CheckerFailed()
        del self._flights[key]
        flight.land(outcome)

    async def _verify(self, key: bytes, name: str, password: str) -> User:
        """Ask the doors in order."""
        username = name.encode("utf-8")
        credentials = UsernamePassword(username, password.encode("utf-8"))
        fault = False
        for door in self._doors:
            try:
                user, version = await self._ask(door, credentials)
            except UnauthorizedLogin:
                continue
            except (Undecided, CancelledError):
                raise
            except Exception:
                self._log.failure("{checker} failed to check a user", checker=door.checker)
                fault = True
                continue
            self._verified.keep(key, user, username, door.versioned, version)
            return user
        if fault:
            raise CheckerFailed
        raise Unauthenticated("wrong user name or password", name)

    async def _ask(self, door: _Door, credentials: UsernamePassword) -> tuple[User, object]:
        """Log in at one door; give the user and the version that this rests on.

        A verification takes long enough for the password to be changed meanwhile. Its outcome,
        good or bad, then belongs to the past, and requests that came after the change may wait
        for it as well: so it is made once more.
        """
        while True:
            version = door.version_of(credentials.username)
            try:
                _, user, logout = await door.portal.login(credentials, None, IUser)
            except UnauthorizedLogin:
                if door.version_of(credentials.username) == version:
                    raise
            else:
                logout()
                if door.version_of(credentials.username) == version:
                    assert isinstance(user, User)
                    return user, version

"""From an Authorization header to a :class:`User`.

A verified credential is found in the cache, without a Deferred. Any other one goes through the
portals: twisted.cred's Portal keeps one checker per interface, so each checker has a portal of its
own, and they are asked in order until one admits the user.

A checker that says ``UnauthorizedLogin`` passes the question on. One that fails in any other way is
logged as a fault (``Unavailable`` has logged why already), and the question is passed on as well:
no checker can veto what another one vouches for, so nothing is lost by asking, and a local
administrator gets in while the directory is down. But if nobody vouches then, the answer is not
"wrong password" (docker would tell the user so, and people change passwords for less) but "cannot
say".

Before anything is verified the throttle is asked, which refuses who tries many passwords.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from regguard.addresses import network_of
from regguard.auth.audit import Audit
from regguard.auth.basic import decode_basic
from regguard.auth.interfaces import (
    CheckerFailed,
    IUser,
    IVersionedChecker,
    Throttled,
    Unauthenticated,
    Unavailable,
    Undecided,
)
from regguard.auth.realm import Realm, User
from regguard.auth.throttle import Throttle, Try
from regguard.auth.verified import CAPACITY, VerifiedCredentials

WRONG = "wrong user name or password"

RESULTS = ("cached", "verified", "wrong", "throttled", "undecided", "none")
"""What comes of a look at who is asking: known from before, checked and good, wrong or malformed,
refused without a look, not to be told now, or no credentials given."""


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
    """One verification, and everybody who waits for its outcome.

    ``basis`` is what the outcome rests on; ``tries`` are those counted for it, by network.
    """

    __slots__ = ("_waiters", "basis", "tries", "work")

    @property
    def awaited(self) -> bool:
        """Whether anybody still waits."""
        return bool(self._waiters)

    def __init__(self, basis: object) -> None:
        self.basis = basis
        self.tries: dict[str, Try] = {}
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
    :param audit: is told of every refused log-in.
    :param throttle: None counts nothing and refuses nobody.
    :raises ValueError: when there is no checker, or one of another kind.

    ``results`` counts what came of each question, by the words of :data:`RESULTS`; one that was
    cancelled has no result.
    """

    _log = Logger()

    def __init__(
        self,
        realm: Realm,
        checkers: Sequence[ICredentialsChecker],
        clock: IReactorTime,
        audit: Audit,
        throttle: Throttle | None = None,
        *,
        capacity: int = CAPACITY,
    ) -> None:
        if not checkers:
            raise ValueError("no checker: nobody could log in")
        self._doors = [_Door(realm, checker) for checker in checkers]
        self._groups = realm.groups
        self._verified = VerifiedCredentials(realm.groups, clock, capacity)
        self._flights: dict[bytes, _Flight] = {}
        self._audit = audit
        self._throttle = throttle
        self.results = dict.fromkeys(RESULTS, 0)

    def authenticate(self, authorization: bytes | None, client: str) -> User | Deferred[User]:
        """Say who sends this value of the Authorization header (None: no such header).

        ``client`` is the sender's network address. Equal values under verification share one. The
        Deferred may be cancelled; when everybody who waits has done so, a verification that still
        waits for a thread is dropped.

        :raises Unauthenticated: at once for no credentials or malformed ones; the Deferred fails
            with it for wrong ones.
        :raises Throttled: at once, when there were too many wrong ones from there.
        :raises Undecided: from the Deferred, when there is no telling now: :exc:`Overloaded` or
            :exc:`CheckerFailed`.
        """
        if authorization is None:
            self.results["none"] += 1
            raise Unauthenticated("no credentials")
        key = self._verified.key(authorization)
        user = self._verified.find(key)
        if user is not None:
            self.results["cached"] += 1
            return user
        network = network_of(client)
        try:
            name, password = decode_basic(authorization)
            under_way = self._flights.get(key)
            flight = under_way or _Flight(self._basis(name))
            if self._throttle is not None and network not in flight.tries:
                if self._throttle.refuses(key, network, flight.basis):
                    raise Unauthenticated(WRONG, name)
                known = self._verified.knows(key)
                flight.tries[network] = self._throttle.admit(
                    name, network, key, verified_before=known
                )
        except Unauthenticated as refusal:
            self.results["wrong"] += 1
            self._audit.refused(refusal.name, network, refusal.reason)
            raise
        except Throttled as refusal:
            self.results["throttled"] += 1
            self._audit.throttled(name, network, refusal)
            raise
        waiter = flight.join().addCallbacks(
            self._was_verified, self._not_verified, errbackArgs=(network,)
        )
        if under_way is None:
            self._flights[key] = flight
            flight.work = Deferred.fromCoroutine(self._fly(flight, key, name, password))
        return waiter

    def certified(self, name: str) -> User:
        """The user whom TLS has made sure of by a certificate: there is no password to check.

        In the groups of the groups file as it is now; no checker is asked for more.
        """
        return User(name, self._groups.of(name))

    def _basis(self, name: str) -> object:
        """What an outcome for this user rests on now."""
        username = name.encode("utf-8")
        return tuple(door.version_of(username) for door in self._doors)

    def _was_verified(self, user: User) -> User:
        self.results["verified"] += 1
        return user

    def _not_verified(self, failure: Failure, network: str) -> Failure:
        refusal = failure.value
        if isinstance(refusal, Unauthenticated):
            self.results["wrong"] += 1
            self._audit.refused(refusal.name, network, refusal.reason)
        elif isinstance(refusal, Undecided):
            self.results["undecided"] += 1
        return failure

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
        if flight.awaited:
            # What was given up stays counted: its hash may have been made.
            self._settle(flight, key, outcome)
        del self._flights[key]
        flight.land(outcome)

    def _settle(self, flight: _Flight, key: bytes, outcome: User | Exception) -> None:
        """Remember what was wrong, and what was no guess."""
        if isinstance(outcome, Unauthenticated):
            self._verified.forget(key)
        for counted in flight.tries.values():
            if isinstance(outcome, Unauthenticated):
                counted.refused(flight.basis)
            elif isinstance(outcome, CheckerFailed):
                # Those that did not fail refused it, so it counts; but it is looked at again.
                counted.refused(object())
            else:
                counted.give_back()

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
            except Unavailable:
                fault = True
                continue
            except (Undecided, CancelledError):
                raise
            except Exception:
                self._log_fault(door.checker, credentials)
                fault = True
                continue
            self._verified.keep(key, user, username, door.versioned, version)
            return user
        if fault:
            raise CheckerFailed
        raise Unauthenticated(WRONG, name)

    def _log_fault(self, checker: ICredentialsChecker, credentials: UsernamePassword) -> None:
        """Log the exception that is being handled, unless it repeats the password."""
        failure = Failure()
        text = failure.getTraceback()
        if any(spelling in text for spelling in _spellings(credentials)):
            self._log.critical(
                "{checker} failed to check a user, with a {kind} whose text held the password",
                checker=checker,
                kind=type(failure.value).__name__,
            )
        else:
            self._log.failure("{checker} failed to check a user", failure, checker=checker)

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


def _spellings(credentials: UsernamePassword) -> tuple[str, ...]:
    """How a careless exception could spell the password."""
    password = credentials.password
    text = password.decode("utf-8")
    both = credentials.username + b":" + password
    return text, repr(text)[1:-1], repr(password)[2:-1], ascii(text)[1:-1], b64encode(both).decode()

"""A house to log in to: an authenticator, its files, and checkers that answer as told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from passlib.hash import bcrypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from regguard.auth.audit import Audit
from regguard.auth.authenticator import Authenticator
from regguard.auth.htpasswd import HtpasswdChecker
from regguard.auth.realm import Groups, Realm, User
from regguard.auth.throttle import Throttle
from regguard.files import POLL_INTERVAL, FileWatcher

Write = Callable[..., str]
Outcome = Callable[[Any], Any]
Basic = Callable[[str, str], bytes]

HOME = "192.0.2.1"
ONE = bcrypt.using(rounds=4).hash("one")
ONE_AGAIN = bcrypt.using(rounds=4).hash("one")
TWO = bcrypt.using(rounds=4).hash("two")


def started(audit: Audit) -> Audit:
    audit.startService()
    return audit


class House:
    """An authenticator with an attached htpasswd file and a groups file."""

    def __init__(
        self,
        write: Write,
        threads: Any,
        watcher: FileWatcher,
        clock: Clock,
        throttle: Throttle | None = None,
    ) -> None:
        self.write = write
        self.clock = clock
        self.threads = threads
        checker = HtpasswdChecker(write(f"ci:{ONE}\nbob:{TWO}\n", "htpasswd"))
        checker.attach(threads.service, watcher)
        self.groups = Groups(write("pusher: ci\n", "groups"))
        assert self.groups.file is not None
        watcher.watch(self.groups.file)
        self.authenticator = Authenticator(
            Realm(self.groups), [checker], clock, started(Audit(clock)), throttle
        )

    def authenticate(self, header: bytes | None) -> User | Deferred[User]:
        return self.authenticator.authenticate(header, HOME)

    def change(self, name: str, content: str) -> None:
        self.write(content, name)
        self.clock.advance(POLL_INTERVAL)

    @property
    def hashed(self) -> int:
        """Run what waits for a thread; say how much that was."""
        count: int = len(self.threads.pool.jobs) + self.threads.service.waiting
        self.threads.pool.run_all()
        return count


@implementer(ICredentialsChecker)
class Scripted:
    """A third party's checker: answers what it is told to."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.asked = 0

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked += 1
        return self.answer()


def refuse() -> Any:
    raise UnauthorizedLogin


def break_down() -> Any:
    raise ConnectionError("the directory is down")


def make(clock: Clock, *checkers: Any, **options: Any) -> Authenticator:
    return Authenticator(Realm(Groups()), checkers, clock, started(Audit(clock)), **options)

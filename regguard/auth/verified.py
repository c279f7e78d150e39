"""The cache of verified credentials.

Docker sends the password with every request, and one bcrypt verification costs as much as some
thousand requests. So a verified credential is remembered, under these rules:

* The key is a MAC of the whole header value under a key that is drawn at start and never leaves
  the process; no password stands in memory as a key.
* An entry is worth what its verification rested on: a checker that can tell versions (htpasswd:
  the stored hash) is asked at each hit, so a changed or deleted line ends it at once. For other
  checkers it is valid for :data:`TTL` seconds.
* Only successes are remembered. Of groups only those that the checker supplied are: what the
  groups file says is looked up at each hit.
* An entry that does not count any more is kept until its credential is refused: nobody guesses
  what was right before, so the throttle lets it through to be verified again.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

from twisted.internet.interfaces import IReactorTime

from regguard.auth.interfaces import IVersionedChecker
from regguard.auth.realm import Groups, User

# How long a password that was changed in a directory still works; few ask for less than a minute.
TTL = 60.0

# Some 500 bytes each, so 5 MB. Full, it drops its oldest entry, whose owner then pays for one more
# verification. More entries than users come from other spellings of the header.
CAPACITY = 10_000


class _Entry:
    __slots__ = ("checker", "expires", "listed", "user", "username", "version")

    def __init__(
        self,
        user: User,
        username: bytes,
        checker: IVersionedChecker | None,
        version: object | None,
        expires: float,
    ) -> None:
        self.user = user
        self.username = username
        self.checker = checker
        self.version = version
        self.expires = expires
        self.listed: frozenset[str] | None = None


class VerifiedCredentials:
    """Remembers which header values were verified, and for whom."""

    def __init__(self, groups: Groups, clock: IReactorTime, capacity: int = CAPACITY) -> None:
        self._groups = groups
        self._clock = clock
        self._capacity = capacity
        self._entries: dict[bytes, _Entry] = {}
        # A copy of a keyed state costs less than keying one for each request.
        self._keyed = blake2b(key=secrets.token_bytes(32), digest_size=16)

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, authorization: bytes) -> bytes:
        """The name under which a header value is remembered."""
        state = self._keyed.copy()
        state.update(authorization)
        return state.digest()

    def find(self, key: bytes) -> User | None:
        """The user whose credential this is, if it was verified and that still counts."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.checker is None:
            valid = self._clock.seconds() < entry.expires
        else:
            version = entry.checker.version_of(entry.username)
            # "is" first: stored hashes are equal for long, but the same object until a reload.
            valid = version is entry.version or version == entry.version
        if not valid:
            return None
        user = entry.user
        groups = self._groups.of(user.name)
        if groups is not entry.listed:
            entry.listed = groups
            user = entry.user = User(user.name, groups, user.supplied)
        return user

    def knows(self, key: bytes) -> bool:
        """Whether this credential was ever verified, and not refused since."""
        return key in self._entries

    def forget(self, key: bytes) -> None:
        """It was refused."""
        self._entries.pop(key, None)

    def keep(
        self,
        key: bytes,
        user: User,
        username: bytes,
        checker: IVersionedChecker | None,
        version: object | None,
    ) -> None:
        """Remember a success.

        :param version: what ``checker.version_of(username)`` was *before* the verification
            began. None makes the entry one of limited time.
        """
        if version is None:
            checker = None
        entries = self._entries
        entries.pop(key, None)
        if len(entries) >= self._capacity:
            del entries[next(iter(entries))]
        entries[key] = _Entry(user, username, checker, version, self._clock.seconds() + TTL)

"""The password file of Apache's ``htpasswd``, and the checker that reads it."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, execute
from twisted.logger import Logger
from zope.interface import implementer

from regguard.auth.hashes import StoredHash
from regguard.auth.interfaces import IHostedChecker, IStoredHashChecker, IVersionedChecker
from regguard.files import FileError, WatchedFile, counted, text_lines

if TYPE_CHECKING:
    from regguard.auth.threads import VerificationThreads
    from regguard.files import FileWatcher

# So that a warning stays a line that people read; "regguard check --passwords" lists them all.
_NAMES_IN_A_WARNING = 10


class PasswordTable:
    """A parsed password file: ``users`` by name."""

    __slots__ = ("_decoys", "users")

    def __init__(self, users: Mapping[bytes, StoredHash]) -> None:
        self.users = users
        self._decoys = sorted(users.values(), key=lambda stored: (stored.scheme, stored.cost))

    def decoy(self, lot: float) -> StoredHash | None:
        """What a password is tried on when there is no such user; None in an empty table.

        With lots spread evenly over 0 to 1, unknown users have the schemes and costs that known
        ones have, as often as these. The same lot stays with the same scheme and cost, as long as
        the mixture is the same.
        """
        return self._decoys[int(lot * len(self._decoys))] if self._decoys else None

    def weak(self) -> dict[bytes, StoredHash]:
        """The users whose hashes are weak."""
        return {name: stored for name, stored in self.users.items() if stored.weak}

    def __repr__(self) -> str:
        return counted(len(self.users), "user")


def cure(path: str, name: str) -> str:
    """The command that makes a line anew."""
    return f"regguard passwd {shlex.quote(path)} {shlex.quote(name)}"


def check_name(name: str) -> None:
    """See whether this can be the name of a user in a password file.

    :raises ValueError: with the reason.
    """
    if not name:
        raise ValueError("no user name: write user:hash")
    if name != name.strip():
        raise ValueError("blanks around the user name: remove them")
    if not name.isprintable():
        raise ValueError("a character in the user name that cannot be printed")


def parse_htpasswd(data: bytes, path: str, *, refuse_weak: bool = False) -> PasswordTable:
    """Read ``user:hash`` lines; blank lines and ``#`` comments are skipped.

    :raises FileError: with file, line and cure. No message repeats a hash.
    """
    users: dict[bytes, StoredHash] = {}
    lines: dict[bytes, int] = {}
    for number, line in text_lines(data, path):
        where = f"{path}:{number}"
        name, colon, text = line.partition(":")
        if not colon:
            raise FileError(f"{where}: no colon: write user:hash, as regguard passwd does")
        try:
            check_name(name)
        except ValueError as error:
            raise FileError(f"{where}: {error}") from None
        if text != text.strip():
            raise FileError(f"{where}: blanks around the hash: remove them")
        key = name.encode("utf-8")
        if key in lines:
            raise FileError(
                f"{where}: user {name} stands in line {lines[key]} already: remove one of them"
            )
        try:
            stored = StoredHash.parse(text)
        except ValueError as error:
            raise FileError(
                f"{where}: user {name}: {error}; make the line anew: {cure(path, name)}"
            ) from None
        if refuse_weak and stored.weak:
            raise FileError(
                f"{where}: user {name}: {stored.kind} is weaker than --minimum-hash bcrypt takes; "
                f"make the line anew: {cure(path, name)}"
            )
        users[key] = stored
        lines[key] = number
    return PasswordTable(users)


@implementer(ICredentialsChecker, IVersionedChecker, IHostedChecker, IStoredHashChecker)
class HtpasswdChecker:
    """Checks user name and password by an htpasswd file.

    By itself it looks at the file and hashes in the calling thread, for each log-in; attached,
    it leaves the first to the watcher and the second to the threads.

    :raises FileError: when the file is no good.
    """

    credentialInterfaces = (IUsernamePassword,)
    _log = Logger()

    def __init__(self, path: str) -> None:
        self.file = WatchedFile(path, parse_htpasswd, self._replaced)
        self._threads: VerificationThreads | None = None
        # Which decoy an unknown name has must be steady, and nobody's guess.
        self._lots = blake2b(key=secrets.token_bytes(32), digest_size=6)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.file.path}>"

    def refuse_weak(self) -> None:
        # No weak hash can come any more that would have to be warned of.
        self.file = WatchedFile(self.file.path, partial(parse_htpasswd, refuse_weak=True))

    def warning(self) -> str | None:
        return self._warning_of(self.file.content.weak())

    def _replaced(self, before: PasswordTable, after: PasswordTable) -> None:
        """Warn of the weak hashes that a new version of the file brings."""
        known = before.weak()
        new = {name: stored for name, stored in after.weak().items() if name not in known}
        warning = self._warning_of(new)
        if warning is not None:
            self._log.warn("{warning}", warning=warning)

    def _warning_of(self, weak: Mapping[bytes, StoredHash]) -> str | None:
        if not weak:
            return None
        named = [f"{name.decode()} ({stored.kind})" for name, stored in sorted(weak.items())]
        more = len(named) - _NAMES_IN_A_WARNING
        if more > 0:
            named[_NAMES_IN_A_WARNING:] = [f"and {more} more"]
        return (
            f"{self.file.path}: weak hashes, whose passwords are soon guessed by who gets the "
            f"file: {', '.join(named)}; make them anew with '{cure(self.file.path, 'USER')}', "
            "or refuse them with --minimum-hash bcrypt"
        )

    def attach(self, threads: VerificationThreads, watcher: FileWatcher) -> None:
        self._threads = threads
        watcher.watch(self.file)

    def version_of(self, username: bytes) -> StoredHash | None:
        return self.file.content.users.get(username)

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Fire with the user name, or fail with ``UnauthorizedLogin`` or ``Overloaded``."""
        if self._threads is None:
            self.file.adopt(self.file.look())
        table = self.file.content
        username, password = credentials.username, credentials.password
        stored = table.users.get(username)
        tried = stored or table.decoy(self._lot(username))

        def conclude(matches: bool) -> bytes | tuple[()]:
            # Whoever guesses the decoy's password is still nobody.
            if matches and stored is not None:
                return username
            raise UnauthorizedLogin("wrong user name or password")

        if tried is None or not password:
            return execute(conclude, False)
        if self._threads is None:
            return execute(tried.matches, password).addCallback(conclude)
        return self._threads.run(tried.matches, password).addCallback(conclude)

    def _lot(self, username: bytes) -> float:
        """A number from 0 to below 1 that belongs to this name."""
        state = self._lots.copy()
        state.update(username)
        # 48 bits: a float holds them exactly.
        return int.from_bytes(state.digest(), "big") / 2**48

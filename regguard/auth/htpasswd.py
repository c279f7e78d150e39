"""The password file of Apache's ``htpasswd``, and the checker that reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from regguard.auth.files import FileError, WatchedFile, text_lines
from regguard.auth.hashes import StoredHash
from regguard.auth.interfaces import IHostedChecker, IVersionedChecker

if TYPE_CHECKING:
    from regguard.auth.files import FileWatcher
    from regguard.auth.threads import VerificationThreads


class PasswordTable:
    """A parsed password file.

    ``decoy`` is what a password is tried on when there is no such user, so that an answer takes
    as long as for a wrong password: a hash of the scheme and cost that most lines have.
    """

    __slots__ = ("decoy", "users")

    def __init__(self, users: Mapping[bytes, StoredHash]) -> None:
        self.users = users
        self.decoy: StoredHash | None = None
        costs = Counter((stored.scheme, stored.cost) for stored in users.values())
        if costs:
            commonest = costs.most_common(1)[0][0]
            self.decoy = next(
                stored for stored in users.values() if (stored.scheme, stored.cost) == commonest
            )

    def __repr__(self) -> str:
        return f"{len(self.users)} users"


def parse_htpasswd(data: bytes, path: str) -> PasswordTable:
    """Read ``user:hash`` lines; blank lines and ``#`` comments are skipped.

    :raises FileError: with file, line and cure. No message repeats a hash.
    """
    users: dict[bytes, StoredHash] = {}
    lines: dict[bytes, int] = {}
    for number, line in text_lines(data, path):
        where = f"{path}:{number}"
        name, colon, text = line.partition(":")
        if not colon:
            raise FileError(f"{where}: no colon: write user:hash, as htpasswd -B does")
        if not name:
            raise FileError(f"{where}: no user name before the colon")
        if name != name.strip() or text != text.strip():
            raise FileError(f"{where}: blanks around user or hash: remove them")
        if not name.isprintable():
            raise FileError(f"{where}: a character in the user name that cannot be printed")
        key = name.encode("utf-8")
        if key in lines:
            raise FileError(
                f"{where}: user {name} stands in line {lines[key]} already: remove one of them"
            )
        try:
            users[key] = StoredHash.parse(text)
        except ValueError as error:
            raise FileError(f"{where}: user {name}: {error}") from None
        lines[key] = number
    return PasswordTable(users)


@implementer(ICredentialsChecker, IVersionedChecker, IHostedChecker)
class HtpasswdChecker:
    """Checks user name and password by an htpasswd file.

    By itself it looks at the file and hashes in the calling thread, for each log-in; attached,
    it leaves the first to the watcher and the second to the threads.

    :raises FileError: when the file is no good.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, path: str) -> None:
        self.file = WatchedFile(path, parse_htpasswd)
        self._threads: VerificationThreads | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.file.path}>"

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
        tried = stored or table.decoy

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

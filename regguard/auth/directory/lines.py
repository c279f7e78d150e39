"""Lines to directory servers: a wire, and a session on it; what is done there runs in threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from regguard.auth.directory.session import DirectoryError, Refused, Session
from regguard.auth.directory.settings import DirectorySettings, Server
from regguard.auth.directory.wire import Wire, WireError, open_wire
from regguard.auth.threads import VerificationThreads

T = TypeVar("T")

# They wait for a server and use no processor, so there may be more of them than processors; and
# they are not the threads that hash: a slow directory must not keep passwords of files waiting,
# nor a flood of wrong ones those of the directory. No more lines than these are at work at once.
THREADS = 8

# Firewalls forget silent connections, the hastier ones after a minute, and tell nobody.
IDLE = 30.0


class _Line:
    __slots__ = ("idle_since", "server", "session", "wire")

    def __init__(self, server: Server, wire: Wire) -> None:
        self.server = server
        self.wire = wire
        self.session = Session(wire.inner)
        self.idle_since = 0.0


class Lines(MultiService):
    """Opens lines, keeps those of the service account, and cuts all of them at its end.

    :param trust_root: whose certificates are good; None is the system's store.
    """

    def __init__(self, reactor: Any, settings: DirectorySettings, trust_root: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._settings = settings
        self._trust_root = trust_root
        self._threads = VerificationThreads(reactor, THREADS)
        self._threads.setServiceParent(self)
        self._idle: list[_Line] = []
        self._at_work: set[_Line] = set()

    def stopService(self) -> Deferred[Any]:
        """Cut every line; whoever waits for an answer is told that there is none."""
        while self._idle:
            self._idle.pop().wire.cut()
        for line in self._at_work:
            line.wire.cut()
        stopping: Deferred[Any] = super().stopService()  # type: ignore[no-untyped-call]
        return stopping

    async def alone(self, server: Server, work: Callable[[Session], T]) -> T:
        """Do something on a line of its own, where nobody is logged in yet.

        :raises DirectoryError: when there is no line, or what the work raises.
        """

        def work_and_close(session: Session) -> T:
            try:
                return work(session)
            finally:
                session.close()

        return await self._on(await self._open(server), work_and_close)

    async def shared(self, server: Server, work: Callable[[Session], T], seconds: float) -> T:
        """Do something as the service account, or anonymously where there is none.

        :raises DirectoryError: as :meth:`alone`, and when the account is refused.
        """
        line = self._take(server)
        if line is not None:
            try:
                return await self._on(line, work, keep=True)
            except DirectoryError:
                pass  # It may have been closed meanwhile; a new one tells.

        def introduce_and_work(session: Session) -> T:
            self._introduce(session, seconds)
            return work(session)

        return await self._on(await self._open(server), introduce_and_work, keep=True)

    def _introduce(self, session: Session, seconds: float) -> None:
        name, file = self._settings.bind_dn, self._settings.bind_password_file
        if name is None or file is None:
            return
        try:
            session.bind(name, read_password(file), seconds)
        except ValueError as error:
            raise DirectoryError(str(error)) from None
        except Refused:
            raise DirectoryError(f"bind-dn {name}: refused with the password in {file}") from None

    def _take(self, server: Server) -> _Line | None:
        """The line that was used last, if it is fresh; the stale ones below it go."""
        usable = None
        now = self._reactor.seconds()
        kept = []
        for line in self._idle:
            if not line.wire.up or now - line.idle_since > IDLE:
                line.wire.cut()
            else:
                kept.append(line)
        for line in reversed(kept):
            if line.server == server:
                usable = line
                kept.remove(line)
                break
        self._idle = kept
        return usable

    async def _open(self, server: Server) -> _Line:
        try:
            wire = await open_wire(
                self._reactor, server, self._trust_root, starttls=self._settings.starttls
            )
        except WireError as error:
            raise DirectoryError(str(error)) from None
        return _Line(server, wire)

    async def _on(self, line: _Line, work: Callable[[Session], T], *, keep: bool = False) -> T:
        self._at_work.add(line)
        try:
            result = await self._threads.run(partial(work, line.session))
        except BaseException:
            # Cancelled: a thread may wait on it still, and is woken by this.
            line.wire.cut()
            raise
        finally:
            self._at_work.discard(line)
        if keep and self.running:
            line.idle_since = self._reactor.seconds()
            self._idle.append(line)
        return result


def read_password(file: Path) -> bytes:
    """The first line of a password file; read for each log-in, so it may be replaced.

    :raises ValueError: with the file and the cure.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(
            f"bind-password-file {file}: cannot be read ({error.strerror}); check path and mode"
        ) from None
    password = content.split(b"\n", 1)[0].removesuffix(b"\r")
    if not password:
        raise ValueError(f"bind-password-file {file}: its first line is to be the password")
    return password

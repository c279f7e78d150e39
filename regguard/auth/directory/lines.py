"""Lines to directory servers: a wire, and a session on it; what is done there runs in threads."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError

from regguard.auth.directory.session import DirectoryError, Refused, Session
from regguard.auth.directory.settings import DirectorySettings, Server
from regguard.auth.directory.wire import Wire, WireError, open_wire
from regguard.auth.interfaces import Overloaded
from regguard.auth.threads import WAITING_PER_THREAD, VerificationThreads

T = TypeVar("T")

# At work at once, from the first packet of the connection on: a flood of log-ins becomes no flood
# of connections at the directory. It is a number for each server, so that a silent one keeps
# nobody from the next. Each line at work has a thread, which waits and uses no processor; and these
# are not the threads that hash: a slow directory must not keep passwords of files waiting, nor a
# flood of wrong ones those of the directory.
LINES = 8
# For one of them, by server.
WAITING = WAITING_PER_THREAD * LINES

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
        self._threads = VerificationThreads(reactor, LINES * len(settings.servers))
        self._threads.setServiceParent(self)
        self._turns = {server: DeferredSemaphore(LINES) for server in settings.servers}
        self._idle: list[_Line] = []
        self._at_work: set[_Line] = set()

    def stopService(self) -> Deferred[Any]:
        """Cut every line; whoever waits for an answer is told that there is none."""
        self._keep_only(lambda line: False)
        for line in self._at_work:
            line.wire.cut()
        stopping: Deferred[Any] = super().stopService()  # type: ignore[no-untyped-call]
        return stopping

    async def alone(self, server: Server, work: Callable[[Session], T]) -> T:
        """Do something on a line of its own, where nobody is logged in yet.

        :raises DirectoryError: when there is no line, or what the work raises.
        :raises Overloaded: when :data:`WAITING` others wait for this server.
        """

        def work_and_close(session: Session) -> T:
            try:
                return work(session)
            finally:
                session.close()

        async def act() -> T:
            return await self._on(await self._open(server), work_and_close)

        return await self._in_turn(server, act)

    async def shared(self, server: Server, work: Callable[[Session], T], seconds: float) -> T:
        """Do something as the service account, or anonymously where there is none.

        :raises DirectoryError: as :meth:`alone`, and when the account is refused.
        :raises Overloaded: as :meth:`alone`.
        """

        def introduce_and_work(session: Session) -> T:
            self._introduce(session, seconds)
            return work(session)

        async def act() -> T:
            line = self._take(server)
            if line is not None:
                trying = Deferred.fromCoroutine(self._on(line, work, keep=True))
                try:
                    # Whoever is gone without a word leaves half of the time to ask anew.
                    return await trying.addTimeout(seconds / 2, self._reactor)
                except (DirectoryError, TimeoutError):
                    # A new line tells. What befell this one has befallen the others like it.
                    self._keep_only(lambda other: other.server != server)
            return await self._on(await self._open(server), introduce_and_work, keep=True)

        return await self._in_turn(server, act)

    async def _in_turn(self, server: Server, act: Callable[[], Coroutine[Any, Any, T]]) -> T:
        turns = self._turns[server]
        if len(turns.waiting) >= WAITING:
            raise Overloaded(f"{len(turns.waiting)} log-ins are waiting for {server}")
        await turns.acquire()
        try:
            return await act()
        finally:
            # Not from here: a queue whose lines all fail at once would be a stack as deep.
            self._reactor.callLater(0, turns.release)

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
        """The line that was used last, if it is fresh; the stale ones go."""
        oldest = self._reactor.seconds() - IDLE
        self._keep_only(lambda line: line.wire.up and line.idle_since >= oldest)
        for line in reversed(self._idle):
            if line.server == server:
                self._idle.remove(line)
                return line
        return None

    def _keep_only(self, good: Callable[[_Line], bool]) -> None:
        """Cut the idle lines that are no good."""
        before, self._idle = self._idle, []
        for line in before:
            if good(line):
                self._idle.append(line)
            else:
                line.wire.cut()

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

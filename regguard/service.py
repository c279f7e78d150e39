"""The composition root: loaded parts to running services.

``twist regguard`` finds ``Options`` and ``makeService`` here.  What can be wrong is found before
the service starts, and every complaint is one line with option, file and cure.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService
from twisted.internet import tcp
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger, LogLevel
from twisted.python import usage

from regguard import __version__, options
from regguard.auth.audit import Audit
from regguard.auth.authenticator import Authenticator
from regguard.auth.files import FileError, FileWatcher, WatchedFile
from regguard.auth.interfaces import (
    IHostedChecker,
    IServedChecker,
)
from regguard.auth.realm import Realm
from regguard.auth.threads import VerificationThreads
from regguard.auth.throttle import Throttle
from regguard.front import Site
from regguard.front.admission import Admission, connections_for, files_for, share_of
from regguard.front.certificates import (
    Certificates,
)
from regguard.front.doors import Door, DoorError, address_of
from regguard.front.listening import is_tcp
from regguard.guard import GuardResource
from regguard.ops import AccessLog, LogFile, never_wait_for
from regguard.ops.lifetime import Lifetime
from regguard.ops.notify import Notify
from regguard.ops.workers import Inheritance, Supervisor, Worker
from regguard.options import POLICY_FIELDS, Settings
from regguard.parts import Parts, load, policy_of, unknown_groups
from regguard.relay import Relay, Upstream, Upstreams, endpoint_for
from regguard.relay.exchange import MAX_EXCHANGES
from regguard.relay.upstream import MAX_IDLE

USAGE_STATUS = 64
"""Exit status for words or files that can't be used: EX_USAGE of sysexits.h, as twist's own."""

FAILED_STATUS = 1
"""Exit status where the words are right and the machine says no: a busy port."""

_LOG = Logger(namespace="regguard")


class Options(options.Options):
    """The options of ``twist regguard``, with everything they name loaded.

    A mistake ends the program with one line: twist itself would print its whole help behind it.
    """

    parts: Parts

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse and load; ends the program for a mistake and for ``--check``."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
            self.look()
        except usage.UsageError as error:
            sys.stderr.write(f"regguard: {error}\n")
            raise SystemExit(FAILED_STATUS if self.get("check") else USAGE_STATUS) from None
        if self.settings.check:
            sys.stdout.write("".join(f"{line}\n" for line in self.report()))
            raise SystemExit(0)

    def look(self) -> None:
        """Look at everything that the words name; raises usage.UsageError."""
        config = self._config()
        self.parts = load(config.content if config else self.settings, config)

    def _config(self) -> WatchedFile[Settings] | None:
        """The TOML file for the daemon to watch; a pipe, say, can't be read a second time."""
        path = self["config"]
        if path is None:
            return None
        if not Path(path).is_file():
            if self.settings.workers > 1:
                raise usage.UsageError(
                    f"--config {path}: is no file, and every one of --workers reads it; make it one"
                )
            return None
        try:
            return WatchedFile(path, self._settings_of)
        except FileError as error:
            raise usage.UsageError(f"--config {error}") from None

    def _settings_of(self, data: bytes, path: str) -> Settings:
        try:
            return self.settings_with(data)
        except usage.UsageError as error:
            # What the file lacks has no line in it.
            text = str(error)
            raise FileError(text if text.startswith(path) else f"{path}: {text}") from None

    def report(self) -> list[str]:
        """What ``--check`` says."""
        return [*self.parts.lines(), *(f"warning: {each}" for each in self.parts.warnings)]


class Guard(MultiService):
    """One process that serves: threads and watcher as children, then the doors.

    ``inheritance`` is what it has from its parent, where it is one of several workers.
    """

    was_cut = False

    def __init__(self, parts: Parts, reactor: Any, inheritance: Inheritance | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parts = parts
        self._reactor = reactor
        self._inheritance = inheritance
        settings = self._settings = parts.settings
        threads = VerificationThreads(reactor)
        self._watcher = FileWatcher(
            reactor,
            lambda function: deferToThreadPool(reactor, reactor.getThreadPool(), function),
        )
        threads.setServiceParent(self)
        self._watcher.setServiceParent(self)
        for checker in parts.checkers:
            hosted = IHostedChecker(checker, None)
            if hosted is not None:
                hosted.attach(threads, self._watcher)
            served = IServedChecker(checker, None)
            if served is not None:
                served.serve(reactor).setServiceParent(self)
        if parts.groups.file is not None:
            self._watcher.watch(parts.groups.file)
        if parts.config is not None:
            parts.config.replaced = self._reconfigured
            self._watcher.watch(parts.config)
        if parts.freeze is not None:
            parts.freeze.changed = lambda _: self._renew_policy()
            self._watcher.watch(parts.freeze)
        audit = Audit(reactor)
        audit.setServiceParent(self)
        throttle = None if settings.throttle is None else Throttle(*settings.throttle, reactor)
        authenticator = Authenticator(Realm(parts.groups), parts.checkers, reactor, audit, throttle)
        policy = policy_of(settings, parts.freeze)
        self._resource = GuardResource(authenticator, policy, settings.realm, reactor)
        upstreams = Upstreams(
            [
                Upstream(address, endpoint_for(address, reactor, parts.trust_root), reactor)
                for address in parts.upstreams
            ]
        )
        self._relay = Relay(
            upstreams,
            reactor,
            settings.read_timeout,
            parts.origin,
            self._resource.upstream_failed,
        )
        self._resource.relay_through(self._relay)
        self._certificates = Certificates(parts.certificates) if parts.certificates else None
        self._log_file: LogFile | None = None
        self._access_log: AccessLog | None = None
        self._sites: list[Site] = []
        self._ports: list[IListeningPort] = []

    def _renew_policy(self) -> None:
        before = self._resource.policy.freeze
        self._resource.policy = policy_of(self._settings, self._parts.freeze)
        freeze = self._resource.policy.freeze
        if freeze is None and before is not None:
            _LOG.info("no longer frozen: who may push or delete by the rules may do it again")
        elif freeze is not None and freeze != before:
            _LOG.warn(
                "frozen by {rule}: nobody may push or delete: {reason}",
                rule=freeze.rule,
                reason=freeze.reason,
            )

    def _reconfigured(self, before: Settings, after: Settings) -> None:
        """Take over what may change while the daemon runs; say what may not."""
        self._settings = after
        self._renew_policy()
        for group in unknown_groups(after, self._parts.groups, self._parts.checkers):
            _LOG.warn("{warning}", warning=str(group))
        for name in sorted({each.name for each in fields(Settings)} - set(POLICY_FIELDS)):
            # What was changed back is in force.
            known = (getattr(before, name), getattr(self._parts.settings, name))
            if getattr(after, name) not in known:
                _LOG.warn(
                    "{path}: {name} changed; that takes a restart",
                    path=str(self._parts.config and self._parts.config.path),
                    name="tls-cert" if name == "certificates" else name.replace("_", "-"),
                )

    def startService(self) -> None:
        """Open the log and listen; ends the program with one line where that fails."""
        settings = self._parts.settings
        self._log_file = _log_file(settings)
        self._access_log = AccessLog(
            self._log_file.write, self._reactor, time.time, settings.access_log_format
        )
        if self._inheritance is None:
            _tell(self._parts)
        admission = self._admission()
        try:
            for door in self._doors():
                self._open(door, self._access_log, admission)
        except DoorError as error:
            _end(str(error))
        super().startService()  # type: ignore[no-untyped-call]
        self._relay.start()

    def _doors(self) -> Iterator[Door]:
        if self._inheritance is None:
            for description in self._parts.settings.listen:
                yield Door.found(description, self._reactor)
        else:
            for description, descriptor in self._inheritance.listen:
                yield Door.inherited(description, descriptor, self._reactor)

    def _say(self, text: str, **words: Any) -> None:
        """Log what is worth a line, and of several workers one and the same."""
        _LOG.emit(LogLevel.info if self._inheritance is None else LogLevel.debug, text, **words)

    def when_ready(self) -> Deferred[str]:
        """Fires at once, with a line for the status: what listens is served."""
        return succeed(_status(self._ports))

    def reload(self) -> Deferred[None]:
        """Read every file anew; fires when that is done."""
        return self._watcher.reload()

    def _admission(self) -> Admission:
        """As many connections as are wanted, if there are file descriptors for them."""
        settings = self._parts.settings
        workers = 1 if self._inheritance is None else self._inheritance.workers
        wanted, per_network = share_of(settings.max_connections, workers)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = files_for(wanted, MAX_EXCHANGES, MAX_IDLE)
        if soft != resource.RLIM_INFINITY and soft < files:
            # The soft limit is low for the sake of programs that use select(2).
            soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        total = wanted
        if soft != resource.RLIM_INFINITY:
            total = min(wanted, connections_for(soft, MAX_EXCHANGES, MAX_IDLE))
        if total < wanted and "max-connections" in settings.said:
            _LOG.warn(
                "--max-connections {wanted}: {soft} file descriptors are enough for {total}; "
                "{files} are needed (LimitNOFILE= of systemd, or ulimit -n)",
                wanted=wanted,
                soft=soft,
                total=total,
                files=files,
            )
        admission = Admission(self._reactor, total, per_network, settings.trusted_proxies)
        self._say(
            "at most {total} connections, {share} from one network",
            total=total,
            share=min(total, admission.per_network),
        )
        return admission

    def _open(self, door: Door, access_log: AccessLog, admission: Admission) -> None:
        site = Site(
            self._resource,
            self._reactor,
            time.time,
            access_log.log,
            secure=self._certificates is not None,
            admission=admission,
            trusted=self._parts.settings.trusted_proxies,
            introduced=door.introduced,
        )
        port = door.open(site, self._certificates, self._reactor)
        self._sites.append(site)
        self._ports.append(port)
        scheme = "https" if self._certificates is not None else "http"
        slower = self._certificates is not None and not is_tcp(door.endpoint)
        where = " (through memory: slower TLS)" if slower else ""
        if door.introduced:
            where += " behind a PROXY header"
        self._say(
            "listening for {scheme} on {address}{where}",
            scheme=scheme,
            address=address_of(port),
            where=where,
        )

    async def _drain(self) -> None:
        """Stop accepting, let running requests finish, then cut what is left."""
        await DeferredList([_stopped(port) for port in self._ports], consumeErrors=True)
        drained = DeferredList([site.drain() for site in self._sites])
        running = sum(len(site.channels) for site in self._sites)
        if running:
            seconds = self._parts.settings.drain_timeout
            _LOG.info(
                "draining: {running} connections may finish within {seconds:g} s",
                running=running,
                seconds=seconds,
            )
            limit = self._reactor.callLater(seconds, self.cut)
            await drained
            if limit.active():
                limit.cancel()
        self.cut()
        self._relay.stop()

    def cut(self) -> None:
        """End what is under way now."""
        cut = sum(channel.request is not None for site in self._sites for channel in site.channels)
        if cut:
            self.was_cut = True
            _LOG.warn("{cut} requests under way were cut", cut=cut)
        for site in self._sites:
            site.stop()

    def stopService(self) -> Deferred[Any]:
        """Drain, then stop the rest; fires when nothing runs any more."""
        stopping = Deferred.fromCoroutine(self._drain())
        stopping.addErrback(lambda failure: _LOG.failure("fault while draining", failure))
        return stopping.addCallback(lambda _: self._stop_rest())

    def _stop_rest(self) -> Any:
        if self._access_log is not None:
            self._access_log.flush()
        if self._log_file is not None:
            self._log_file.close()
        return super().stopService()  # type: ignore[no-untyped-call]


class Parent:
    """Where several workers serve: holds their doors open, and serves nobody itself."""

    def __init__(self, parts: Parts, reactor: Any) -> None:
        self._parts = parts
        self._reactor = reactor
        self._ports: list[tcp.Port] = []
        self.supervisor: Supervisor

    def startService(self) -> None:
        """Look at everything that the workers will need, and start them."""
        settings = self._parts.settings
        _log_file(settings).close()
        _tell(self._parts)
        try:
            for description in settings.listen:
                self._ports.append(Door.found(description, self._reactor).hold())
        except DoorError as error:
            _end(str(error))
        self.supervisor = Supervisor(
            self._reactor,
            settings.workers,
            [
                (description, port.fileno())
                for description, port in zip(settings.listen, self._ports, strict=True)
            ],
            os.environ,
            settings.drain_timeout,
        )
        _LOG.info(
            "{count} workers listen on {addresses}",
            count=settings.workers,
            addresses=", ".join(map(address_of, self._ports)),
        )
        self.supervisor.startService()

    @property
    def was_cut(self) -> bool:
        """Whether one of the workers has cut something, or was killed."""
        return self.supervisor.was_cut

    def when_ready(self) -> Deferred[str]:
        """Fires when all workers serve, with a line for the status."""
        status = f"{_status(self._ports)}, {self._parts.settings.workers} workers"
        return self.supervisor.when_ready().addCallback(lambda _: status)

    def reload(self) -> Deferred[Any]:
        """Let every worker read every file anew."""
        return self.supervisor.reload()

    def stopService(self) -> Deferred[Any]:
        """Close the doors, and let the workers drain."""
        ports = DeferredList([_stopped(port) for port in self._ports], consumeErrors=True)
        return DeferredList([ports, self.supervisor.stopService()], consumeErrors=True)

    def cut(self) -> None:
        """End what is under way now."""
        self.supervisor.cut()


def _stopped(port: IListeningPort) -> Deferred[Any]:
    stopping = port.stopListening()
    if stopping is None:
        stopping = Deferred()
        stopping.callback(None)
    return stopping


def _tell(parts: Parts) -> None:
    """Log what is guarded, and what is odd about it."""
    first, *more = parts.lines()
    _LOG.info("regguard {version} {line}", version=__version__, line=first)
    for line in more:
        _LOG.info("{line}", line=line)
    for warning in parts.warnings:
        _LOG.warn("{warning}", warning=warning)


def _status(ports: Sequence[Any]) -> str:
    return "serving on " + ", ".join(map(address_of, ports))


def _log_file(settings: Settings) -> LogFile:
    for descriptor in (1, 2):
        never_wait_for(descriptor)
    try:
        return LogFile(settings.access_log)
    except OSError as error:
        _end(
            f"--access-log {settings.access_log}: cannot be written ({error.strerror}); "
            "check the path and its mode"
        )


def _end(complaint: str) -> NoReturn:
    sys.stderr.write(f"regguard: {complaint}\n")
    raise SystemExit(FAILED_STATUS)


def makeService(options: Options) -> IService:
    """The service of ``twist regguard``: one process that serves, the parent of several, or one
    of these."""
    from twisted.internet import reactor

    parts = options.parts
    inheritance = Inheritance.taken_from(os.environ)
    if inheritance is not None:
        return Worker(Guard(parts, reactor, inheritance), inheritance, reactor)
    notify = Notify.taken_from(os.environ)
    several = parts.settings.workers > 1
    return Lifetime(Parent(parts, reactor) if several else Guard(parts, reactor), reactor, notify)

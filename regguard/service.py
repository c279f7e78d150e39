"""The composition root: loaded parts to running services.

``twist regguard`` finds ``Options`` and ``makeService`` here.  What can be wrong is found before
the service starts, and every complaint is one line with option, file and cure.
"""

from __future__ import annotations

import errno
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from regguard import __version__, options
from regguard.auth.audit import Audit
from regguard.auth.authenticator import Authenticator
from regguard.auth.interfaces import (
    IHostedChecker,
    IServedChecker,
)
from regguard.auth.realm import Realm
from regguard.auth.threads import VerificationThreads
from regguard.auth.throttle import Throttle
from regguard.files import FileError, FileWatcher, WatchedFile
from regguard.front import Request, Site
from regguard.front.admission import Admission, connections_for, files_for
from regguard.front.certificates import Certificates
from regguard.front.expiry import ExpiryWatch
from regguard.front.listening import is_tcp, listen
from regguard.guard import GuardResource
from regguard.ops import AccessLog, LogFile, PushLedger, Tally, never_wait_for, push_event
from regguard.ops.daemon_log import complain, settle
from regguard.ops.metrics import Snapshot
from regguard.ops.pushes import in_words
from regguard.options import INTRODUCED, POLICY_FIELDS, Settings
from regguard.parts import Parts, load, policy_of, unknown_groups
from regguard.relay import Relay, Upstream, Upstreams, endpoint_for
from regguard.relay.exchange import MAX_EXCHANGES
from regguard.relay.upstream import MAX_IDLE

if TYPE_CHECKING:
    from regguard.vitals import Vitals

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
            complain(str(error))
            raise SystemExit(FAILED_STATUS if self.get("check") else USAGE_STATUS) from None
        if self.settings.check:
            sys.stdout.write("".join(f"{line}\n" for line in self.report()))
            raise SystemExit(0)
        if self.parent is not None:
            settle(self.parent)

    def look(self) -> None:
        """Look at everything that the words name; raises usage.UsageError."""
        config = self._config()
        self.parts = load(config.content if config else self.settings, config)

    def _config(self) -> WatchedFile[Settings] | None:
        """The TOML file for the daemon to watch; a pipe, say, can't be read a second time."""
        path = self["config"]
        if path is None or not Path(path).is_file():
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
    """The running daemon: threads and watcher as children, then the doors."""

    def __init__(self, parts: Parts, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.setName("regguard")
        self._parts = parts
        self._reactor = reactor
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
        self._authenticator = Authenticator(
            Realm(parts.groups), parts.checkers, reactor, audit, throttle
        )
        policy = policy_of(settings, parts.freeze)
        self._resource = GuardResource(self._authenticator, policy, settings.realm, reactor)
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
        self._certificates: Certificates | None = None
        if parts.certificates:
            self._certificates = Certificates(parts.certificates, parts.clients)
            for each in self._certificates.files:
                self._watcher.watch(each)
            expiry = ExpiryWatch(self._certificates.expiring, reactor, time.time)
            expiry.setServiceParent(self)
        self._log_file: LogFile | None = None
        self._access_log: AccessLog | None = None
        self._pushes = PushLedger()
        #: What the admin pages tell; None without ``--admin``.
        self.vitals: Vitals | None = None
        self._admin_port: IListeningPort | None = None
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
        for descriptor in (1, 2):
            never_wait_for(descriptor)
        try:
            self._log_file = LogFile(settings.access_log)
        except OSError as error:
            _end(
                f"--access-log {settings.access_log}: cannot be written ({error.strerror}); "
                "check the path and its mode"
            )
        self._access_log = AccessLog(
            self._log_file.write, self._reactor, time.time, settings.access_log_format
        )
        _LOG.info("regguard {version} {line}", version=__version__, line=self._parts.lines()[0])
        for line in self._parts.lines()[1:]:
            _LOG.info("{line}", line=line)
        for warning in self._parts.warnings:
            _LOG.warn("{warning}", warning=warning)
        # Before anybody sees that it listens: without a handler SIGHUP ends the process.
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))
        admission = self._admission()
        ended: Callable[[Request], None] = self._ended
        if settings.admin is not None:
            ended = self._take_vitals(admission, self._log_file, ended)
            self._listen_for_admin(settings.admin)
        for description in settings.listen:
            self._listen(description, ended, admission)
        super().startService()  # type: ignore[no-untyped-call]
        self._relay.start()

    def _admission(self) -> Admission:
        """As many connections as are wanted, if there are file descriptors for them."""
        settings = self._parts.settings
        wanted, per_network = settings.max_connections
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        idle = MAX_IDLE * len(self._parts.upstreams)
        files = files_for(wanted, MAX_EXCHANGES, idle)
        if soft != resource.RLIM_INFINITY and soft < files:
            # The soft limit is low for the sake of programs that use select(2).
            soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        total = wanted
        if soft != resource.RLIM_INFINITY:
            total = min(wanted, connections_for(soft, MAX_EXCHANGES, idle))
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
        _LOG.info(
            "at most {total} connections, {share} from one network",
            total=total,
            share=min(total, admission.per_network),
        )
        return admission

    def _reload(self) -> None:
        """Read every file anew, and go on in the access log that has its name now."""
        self._watcher.reload()
        if self._access_log is not None and self._log_file is not None:
            # What happened before a rotation stands in the file from before it.
            self._access_log.flush()
            self._log_file.reopen()

    def _ended(self, request: Any) -> None:
        """A request came to an end, whatever it was."""
        assert self._access_log is not None
        self._access_log.log(request)
        event = push_event(request, self._reactor.seconds)
        if event is not None:
            self._note_push(event)

    def _note_push(self, event: dict[str, Any]) -> None:
        """Count what a request did for a push; say so when that is there."""
        record = self._pushes.note(event)
        if record is not None:
            _LOG.info("{line}", line=in_words(record), **record)
            assert self._access_log is not None
            self._access_log.log_push(record)

    def _take_vitals(
        self, admission: Admission, log_file: LogFile, note: Callable[[Request], None]
    ) -> Callable[[Request], None]:
        """Count from now on; what is to be called at the end of each request."""
        # Here, because it brings prometheus-client and twisted.web's server along.
        from regguard.vitals import Vitals

        tally = Tally(self._reactor.seconds)
        self.vitals = Vitals(
            self._reactor,
            tally,
            self._sites,
            admission,
            self._authenticator,
            self._relay,
            self._watcher,
            lambda: dict(self._certificates.expires()) if self._certificates else {},
            lambda: log_file.lost,
        )
        count = tally.count

        def ended(request: Request) -> None:
            count(request)
            note(request)

        return ended

    def _listen_for_admin(self, description: str) -> None:
        vitals = self.vitals
        assert vitals is not None
        self._admin_port = listen_for_admin(
            description,
            self._reactor,
            lambda: succeed([vitals.snapshot()]),
            vitals.complaints,
        )

    def _listen(
        self, description: str, log: Callable[[Request], None], admission: Admission
    ) -> None:
        kind, _, rest = description.partition(":")
        introduced = kind == INTRODUCED
        endpoint = _endpoint(
            f"--listen {description}",
            rest if introduced else description,
            "tcp:5043 or tcp:443:interface=10.0.0.1",
            self._reactor,
        )
        site = Site(
            self._resource,
            self._reactor,
            time.time,
            log,
            secure=self._certificates is not None,
            admission=admission,
            trusted=self._parts.settings.trusted_proxies,
            introduced=introduced,
        )
        port = _port(
            f"--listen {description}",
            maybeDeferred(listen, endpoint, site, self._certificates, self._reactor),
        )
        self._sites.append(site)
        self._ports.append(port)
        scheme = "https" if self._certificates is not None else "http"
        slower = self._certificates is not None and not is_tcp(endpoint)
        where = " (through memory: slower TLS)" if slower else ""
        if introduced:
            where += " behind a PROXY header"
        _LOG.info(
            "listening for {scheme} on {address}{where}",
            scheme=scheme,
            address=_address(port),
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
            limit = self._reactor.callLater(seconds, self._cut)
            await drained
            if limit.active():
                limit.cancel()
        self._cut()
        self._relay.stop()

    def _cut(self) -> None:
        for site in self._sites:
            site.stop()

    def stopService(self) -> Deferred[Any]:
        """Drain, then stop the rest; fires when nothing runs any more."""
        if self.vitals is not None:
            self.vitals.draining = True
        stopping = Deferred.fromCoroutine(self._drain())
        stopping.addErrback(lambda failure: _LOG.failure("fault while draining", failure))
        return stopping.addCallback(lambda _: self._stop_rest())

    def _stop_rest(self) -> Any:
        if self._access_log is not None:
            self._access_log.flush()
        if self._log_file is not None:
            self._log_file.close()
            # A SIGHUP from here on has nothing to open anew.
            self._log_file = None
        ending = [super().stopService()]  # type: ignore[no-untyped-call]
        if self._admin_port is not None:
            ending.append(_stopped(self._admin_port))
        return DeferredList(ending)


def listen_for_admin(
    description: str,
    reactor: Any,
    gather: Callable[[], Deferred[list[Snapshot]]],
    complaints: Callable[[], Deferred[list[str]]],
) -> IListeningPort:
    """Open the admin port (see ``ops.admin``); ends the program with one line where that fails."""
    from regguard.ops.admin import admin_site

    said = f"--admin {description}"
    endpoint = _endpoint(said, description, "tcp:127.0.0.1:9180", reactor)
    port = _port(said, maybeDeferred(endpoint.listen, admin_site(reactor, gather, complaints)))
    if getattr(port.getHost(), "host", None) in ("0.0.0.0", "::"):  # noqa: S104
        _LOG.warn(
            "--admin {description}: listens on all interfaces, and whoever reaches it may read it; "
            "say tcp:127.0.0.1:PORT, or an address of an inner network",
            description=description,
        )
    return port


def _endpoint(said: str, description: str, example: str, reactor: Any) -> IStreamServerEndpoint:
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except Exception as error:
        _end(f"{said}: is no endpoint ({_reason(error)}); write {example}")
    return endpoint


def _port(said: str, listening: Deferred[IListeningPort]) -> IListeningPort:
    # Every TCP, UNIX and inherited listener is there or failed when this is called.
    outcome: list[Any] = []
    listening.addBoth(outcome.append)
    if not outcome or isinstance(outcome[0], Failure):
        why = _reason(outcome[0].value) if outcome else "it does not start at once"
        _end(f"{said}: cannot listen ({why}); {_listen_cure(outcome)}")
    port: IListeningPort = outcome[0]
    return port


def _stopped(port: IListeningPort) -> Deferred[Any]:
    stopping = port.stopListening()
    if stopping is None:
        stopping = Deferred()
        stopping.callback(None)
    return stopping


def _address(port: Any) -> str:
    address = port.getHost()
    host = getattr(address, "host", None)
    if host is None:
        return f"unix:{getattr(address, 'name', '?')}"
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def _reason(error: BaseException) -> str:
    if isinstance(error, CannotListenError):
        error = error.socketError
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _listen_cure(outcome: list[Any]) -> str:
    error = outcome[0].value if outcome else None
    code = getattr(getattr(error, "socketError", None), "errno", None)
    if code == errno.EADDRINUSE:
        return "something else listens there: stop it, or listen elsewhere"
    if code == errno.EACCES:
        return "ports below 1024 need CAP_NET_BIND_SERVICE or a systemd socket"
    return "check the address"


def _end(complaint: str) -> NoReturn:
    complain(complaint)
    raise SystemExit(FAILED_STATUS)


def makeService(options: Options) -> IService:
    """The service of ``twist regguard``."""
    from twisted.internet import reactor

    # Twisted's own is the wall clock: where that jumps, every deadline would be over, or none.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    return Guard(options.parts, reactor)

"""One process that serves, alone or as one of several workers."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger, LogLevel

from regguard.auth.audit import Audit
from regguard.auth.authenticator import Authenticator
from regguard.auth.interfaces import IHostedChecker, IServedChecker
from regguard.auth.realm import Realm
from regguard.auth.threads import VerificationThreads
from regguard.auth.throttle import Throttle
from regguard.files import FileWatcher
from regguard.front import Request, Site
from regguard.front.admission import Admission, connections_for, files_for, share_of
from regguard.front.certificates import Certificates
from regguard.front.doors import Door, DoorError, address_of
from regguard.front.expiry import ExpiryWatch
from regguard.front.listening import is_tcp
from regguard.guard import GuardResource
from regguard.ops import AccessLog, LogFile, Tally, push_event
from regguard.ops.control import ControlLine
from regguard.ops.workers import Inheritance
from regguard.options import POLICY_FIELDS, Settings
from regguard.parts import Parts, policy_of, unknown_groups
from regguard.relay import Relay, Upstream, Upstreams, endpoint_for
from regguard.relay.exchange import MAX_EXCHANGES
from regguard.relay.upstream import MAX_IDLE
from regguard.service.pushes import Pushes
from regguard.service.starting import end, listen_for_admin, log_file, status_of, stopped, tell

if TYPE_CHECKING:
    from regguard.vitals import Vitals

_LOG = Logger(namespace="regguard")


class Guard(MultiService):
    """One process that serves: threads and watcher as children, then the doors.

    ``inheritance`` is what it has from its parent, where it is one of several workers.
    """

    was_cut = False

    def __init__(self, parts: Parts, reactor: Any, inheritance: Inheritance | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.setName("regguard")
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
            if inheritance is None or inheritance.is_first:
                expiry = ExpiryWatch(self._certificates.expiring, reactor, time.time)
                expiry.setServiceParent(self)
        self._log_file: LogFile | None = None
        self._access_log: AccessLog | None = None
        self._note_push: Callable[[dict[str, Any]], object] | None = None
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

    def answer(self, line: ControlLine) -> None:
        """Be a worker: the parent asks on this line, and is told of pushes."""
        self._note_push = lambda event: line.tell("push", event)
        line.answer("metrics", lambda: self._vitals_there().snapshot())
        line.answer("ready", lambda: self._vitals_there().complaints())

    def startService(self) -> None:
        """Open the log and listen; ends the program with one line where that fails."""
        settings = self._parts.settings
        self._log_file = log_file(settings)
        self._access_log = AccessLog(
            self._log_file.write, self._reactor, time.time, settings.access_log_format
        )
        if self._note_push is None:
            self._note_push = Pushes(self._access_log).note
        if self._inheritance is None:
            tell(self._parts)
        admission = self._admission()
        ended: Callable[[Request], None] = self._ended
        if settings.admin is not None:
            ended = self._take_vitals(admission, self._log_file, ended)
            if self._inheritance is None:
                vitals = self._vitals_there()
                self._admin_port = listen_for_admin(
                    settings.admin,
                    self._reactor,
                    lambda: succeed([vitals.snapshot()]),
                    vitals.complaints,
                )
        try:
            for door in self._doors():
                self._open(door, ended, admission)
        except DoorError as error:
            end(str(error))
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
        return succeed(status_of(self._ports))

    def reload(self) -> Deferred[None]:
        """Read every file anew, and go on in the access log that has its name now; fires when that
        is done."""
        if self._access_log is not None and self._log_file is not None:
            # What happened before a rotation stands in the file from before it.
            self._access_log.flush()
            self._log_file.reopen()
        return self._watcher.reload()

    def _ended(self, request: Request) -> None:
        """A request came to an end, whatever it was."""
        assert self._access_log is not None
        self._access_log.log(request)
        event = push_event(request, self._reactor.seconds)
        if event is not None:
            assert self._note_push is not None
            self._note_push(event)

    def _take_vitals(
        self, admission: Admission, log_file: LogFile, note: Callable[[Request], None]
    ) -> Callable[[Request], None]:
        """Count from now on; what is to be called at the end of each request."""
        # Here, because it brings prometheus-client along.
        from regguard.vitals import Vitals

        certificates = self._certificates
        tally = Tally(self._reactor.seconds)
        self.vitals = Vitals(
            self._reactor,
            tally,
            self._sites,
            admission,
            self._authenticator,
            self._relay,
            self._watcher,
            lambda: {} if certificates is None else dict(certificates.expires()),
            lambda: log_file.lost,
        )
        count = tally.count

        def ended(request: Request) -> None:
            count(request)
            note(request)

        return ended

    def _vitals_there(self) -> Vitals:
        assert self.vitals is not None
        return self.vitals

    def _admission(self) -> Admission:
        """As many connections as are wanted, if there are file descriptors for them."""
        settings = self._parts.settings
        workers = 1 if self._inheritance is None else self._inheritance.workers
        wanted, per_network = share_of(settings.max_connections, workers)
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
        self._say(
            "at most {total} connections, {share} from one network",
            total=total,
            share=min(total, admission.per_network),
        )
        return admission

    def _open(self, door: Door, ended: Callable[[Request], None], admission: Admission) -> None:
        site = Site(
            self._resource,
            self._reactor,
            time.time,
            ended,
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
        await DeferredList([stopped(port) for port in self._ports], consumeErrors=True)
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
            ending.append(stopped(self._admin_port))
        return DeferredList(ending)

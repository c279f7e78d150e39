"""Where several workers serve: their parent."""

from __future__ import annotations

import os
import time
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from regguard.front.doors import Door, DoorError, address_of
from regguard.ops import AccessLog, LogFile
from regguard.ops.metrics import Gathered, Snapshot
from regguard.ops.workers import Supervisor
from regguard.parts import Parts
from regguard.service.pushes import GatheredPushes
from regguard.service.starting import end, listen_for_admin, log_file, status_of, stopped, tell

_LOG = Logger(namespace="regguard")


class Parent:
    """Holds the doors of the workers open and speaks for all of them; serves nobody itself."""

    supervisor: Supervisor
    _log_file: LogFile
    _access_log: AccessLog
    _pushes: GatheredPushes

    def __init__(self, parts: Parts, reactor: Any) -> None:
        self._parts = parts
        self._reactor = reactor
        self._ports: list[tcp.Port] = []
        self._admin_port: IListeningPort | None = None
        self._gathered = Gathered()
        self._draining = False

    def startService(self) -> None:
        """Look at everything that the workers will need, and start them."""
        settings = self._parts.settings
        # For the records of pushes; the workers open it themselves.
        self._log_file = log_file(settings)
        self._access_log = AccessLog(
            self._log_file.write, self._reactor, time.time, settings.access_log_format
        )
        self._pushes = GatheredPushes(self._access_log, self._reactor)
        tell(self._parts)
        try:
            for description in settings.listen:
                self._ports.append(Door.found(description, self._reactor).hold(self._reactor))
        except DoorError as error:
            end(str(error))
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
        self.supervisor.hear("push", self._pushes.gather)
        if settings.admin is not None:
            self._admin_port = listen_for_admin(
                settings.admin,
                self._reactor,
                self._metrics,
                self._complaints,
            )
        _LOG.info(
            "{count} workers listen on {addresses}",
            count=settings.workers,
            addresses=", ".join(map(address_of, self._ports)),
        )
        self.supervisor.startService()

    def _metrics(self) -> Deferred[list[Snapshot]]:
        """What every worker has counted."""
        return self.supervisor.ask("metrics").addCallback(
            lambda answers: self._gathered.all(answers, self.supervisor.numbers())
        )

    def _complaints(self) -> Deferred[list[str]]:
        """Why no request should come here: what every worker says that answers."""
        if self._draining:
            return succeed(["draining: what is under way may finish, and nothing new begins"])

        def gathered(answers: dict[int, list[str]]) -> list[str]:
            # One that is ready is enough: who comes is served.
            return min(answers.values(), key=len, default=["no worker answers"])

        return self.supervisor.ask("ready").addCallback(gathered)

    @property
    def was_cut(self) -> bool:
        """Whether one of the workers has cut something, or was killed."""
        return self.supervisor.was_cut

    def when_ready(self) -> Deferred[str]:
        """Fires when all workers serve, with a line for the status."""
        status = f"{status_of(self._ports)}, {self._parts.settings.workers} workers"
        return self.supervisor.when_ready().addCallback(lambda _: status)

    def reload(self) -> Deferred[Any]:
        """Let every worker read every file anew."""
        self._access_log.flush()
        self._log_file.reopen()
        return self.supervisor.reload()

    def stopService(self) -> Deferred[Any]:
        """Close the doors, and let the workers drain."""
        self._draining = True
        ports = DeferredList([stopped(port) for port in self._ports], consumeErrors=True)
        ending = DeferredList([ports, self.supervisor.stopService()], consumeErrors=True)
        return ending.addCallback(lambda _: self._stop_rest())

    def _stop_rest(self) -> Deferred[Any] | None:
        self._pushes.stop()
        self._access_log.flush()
        self._log_file.close()
        return None if self._admin_port is None else stopped(self._admin_port)

    def cut(self) -> None:
        """End what is under way now."""
        self.supervisor.cut()

"""What a process needs for its start, whether it serves or is the parent of those that do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from regguard import __version__
from regguard.front.doors import Door, DoorError, address_of
from regguard.ops import LogFile, never_wait_for
from regguard.ops.daemon_log import complain
from regguard.ops.metrics import Snapshot
from regguard.options import Settings
from regguard.parts import Parts

FAILED_STATUS = 1
"""Exit status where the words are right and the machine says no: a busy port."""

_LOG = Logger(namespace="regguard")


def tell(parts: Parts) -> None:
    """Log what is guarded, and what is odd about it."""
    first, *more = parts.lines()
    _LOG.info("regguard {version} {line}", version=__version__, line=first)
    for line in more:
        _LOG.info("{line}", line=line)
    for warning in parts.warnings:
        _LOG.warn("{warning}", warning=warning)


def status_of(ports: Sequence[Any]) -> str:
    """Where these ports listen, for the service manager."""
    return "serving on " + ", ".join(map(address_of, ports))


def log_file(settings: Settings) -> LogFile:
    """The access log's file; ends the program with one line where it can't be written."""
    for descriptor in (1, 2):
        never_wait_for(descriptor)
    try:
        return LogFile(settings.access_log)
    except OSError as error:
        end(
            f"--access-log {settings.access_log}: cannot be written ({error.strerror}); "
            "check the path and its mode"
        )


def listen_for_admin(
    description: str,
    reactor: Any,
    gather: Callable[[], Deferred[list[Snapshot]]],
    complaints: Callable[[], Deferred[list[str]]],
) -> IListeningPort:
    """Open the admin port (see ``ops.admin``); ends the program with one line where that fails."""
    # Here, because it brings prometheus-client and twisted.web's server along.
    from regguard.ops.admin import admin_site

    try:
        door = Door.found(description, reactor, "--admin", "tcp:127.0.0.1:9180")
        port = door.open_to(admin_site(reactor, gather, complaints))
    except DoorError as error:
        end(str(error))
    if getattr(port.getHost(), "host", None) in ("0.0.0.0", "::"):  # noqa: S104
        _LOG.warn(
            "--admin {description}: listens on all interfaces, and whoever reaches it may read it; "
            "say tcp:127.0.0.1:PORT, or an address of an inner network",
            description=description,
        )
    return port


def stopped(port: IListeningPort) -> Deferred[Any]:
    """Stop listening; fires when that is done."""
    stopping: Deferred[Any] = maybeDeferred(port.stopListening)
    # A UNIX socket's path may be gone already.
    return stopping.addErrback(lambda failure: failure.trap(FileNotFoundError))


def end(complaint: str) -> NoReturn:
    """End the program before it serves, with one line."""
    complain(complaint)
    raise SystemExit(FAILED_STATUS)

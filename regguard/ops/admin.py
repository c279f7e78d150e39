"""The admin endpoint: ``/healthz``, ``/readyz`` and ``/metrics``, on a port of its own.

For balancers, Kubernetes and Prometheus, on an address that clients do not reach: whoever reaches
it may read it.  It is twisted.web's own server, and what comes here is kept small: no body is
kept, and there are few connections.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from regguard.ops.exposition import CONTENT_TYPE, exposition
from regguard.ops.metrics import Snapshot, add_up

MOST_CONNECTIONS = 16
"""Probes and scrapers come from a handful of places; the file descriptors are for clients."""

IDLE_TIMEOUT = 75
"""Seconds without a word: Prometheus asks every 15 to 60, and keeps its connection."""

LONGEST_ANSWER = 5.0
"""Seconds for what has to be asked of others: below the 10 s of Prometheus' scrape_timeout."""

_TEXT = b"text/plain; charset=utf-8"
_METHODS = (b"GET", b"HEAD")

_LOG = Logger(namespace="regguard.ops")


class AdminPages(Resource):
    """The three pages.

    ``gather`` brings a snapshot of each process, ``complaints`` a line for each reason why no
    request should come here; both may fail.
    """

    isLeaf = True

    def __init__(
        self,
        clock: IReactorTime,
        gather: Callable[[], Deferred[list[Snapshot]]],
        complaints: Callable[[], Deferred[list[str]]],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._gather = gather
        self._complaints = complaints

    def render(self, request: Any) -> int:
        """Answer, now or later; the path is taken as it came."""
        headers = request.responseHeaders
        headers.removeHeader(b"server")
        headers.setRawHeaders(b"cache-control", [b"no-store"])
        headers.setRawHeaders(b"x-content-type-options", [b"nosniff"])
        if request.path not in (b"/healthz", b"/readyz", b"/metrics"):
            _answer(request, 404, "there are /healthz, /readyz and /metrics\n")
        elif request.method not in _METHODS:
            headers.setRawHeaders(b"allow", [b", ".join(_METHODS)])
            _answer(request, 405, "GET or HEAD\n")
        elif request.path == b"/healthz":
            _answer(request, 200, "alive\n")
        elif request.path == b"/readyz":
            self._later(request, self._complaints, _ready)
        else:
            self._later(request, self._gather, _metrics)
        return NOT_DONE_YET

    def _later(
        self,
        request: Any,
        ask: Callable[[], Deferred[Any]],
        tell: Callable[[Any, Any], None],
    ) -> None:
        asked = ask()
        over = request.notifyFinish()
        # Who leaves ends the wait.
        over.addErrback(lambda gone: _left(gone, asked))
        asked.addTimeout(LONGEST_ANSWER, self._clock)
        # Where several were asked, what is given up is an answer, too: that of nobody.
        asked.addCallback(lambda answer: None if over.called else tell(request, answer))
        asked.addErrback(lambda failure: None if over.called else _not_told(failure, request))


def _left(gone: Failure, asked: Deferred[Any]) -> None:
    gone.trap(ConnectionDone, ConnectionLost)
    asked.cancel()


def _ready(request: Any, complaints: list[str]) -> None:
    if complaints:
        _answer(request, 503, "".join(f"{line}\n" for line in ("not ready", *complaints)))
    else:
        _answer(request, 200, "ready\na registry takes connections\n")


def _metrics(request: Any, snapshots: list[Snapshot]) -> None:
    _answer(request, 200, exposition(add_up(snapshots)), CONTENT_TYPE)


def _not_told(failure: Failure, request: Any) -> None:
    _LOG.failure("no answer for {path}", failure, path=request.path)
    _answer(request, 503, f"no answer ({type(failure.value).__name__}); the log says more\n")


def _answer(request: Any, status: int, text: str | bytes, content_type: bytes = _TEXT) -> None:
    body = text if isinstance(text, bytes) else text.encode("utf-8")
    request.setResponseCode(status)
    request.responseHeaders.setRawHeaders(b"content-type", [content_type])
    request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % len(body)])
    request.write(body)
    request.finish()


class _Request(server.Request):
    """One whose body is dropped as it comes: twisted.web would keep it, in memory or in /tmp."""

    def gotLength(self, length: int | None) -> None:
        """Keep a file for the body that nothing will be written to."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Drop what comes."""


class AdminSite(server.Site):
    noisy = False

    def log(self, request: Any) -> None:
        """Nothing: a probe a second is nothing to be told of."""


class Bounded(WrappingFactory):
    """Closes a connection that is one too many."""

    noisy = False
    protocol = ProtocolWrapper

    def buildProtocol(self, addr: IAddress | None) -> ProtocolWrapper | None:  # type: ignore[override]
        full = len(self.protocols) >= MOST_CONNECTIONS
        return None if full else super().buildProtocol(addr)


def admin_site(
    clock: Any,
    gather: Callable[[], Deferred[list[Snapshot]]],
    complaints: Callable[[], Deferred[list[str]]],
) -> WrappingFactory:
    """The factory for the admin port; see ``AdminPages``."""
    site = AdminSite(
        AdminPages(clock, gather, complaints),
        requestFactory=_Request,
        timeout=IDLE_TIMEOUT,
        reactor=clock,
        parsePOSTFormSubmission=False,
    )
    return Bounded(site)

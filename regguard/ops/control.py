"""The line between a parent and its worker: JSON objects, one a line, the same at both ends.

``{"ask": NAME, "id": N}`` is answered by ``{"id": N, "answer": ANYTHING}``, or by
``{"id": N, "error": TEXT}``; ``{"tell": NAME, "value": ANYTHING}`` is not answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

MAX_LINE = 1024 * 1024
"""Octets of a line: more than all metrics of a thousand rules."""

_LOG = Logger(namespace="regguard.ops")


class Unanswered(Exception):
    """The other end could not answer; the text says why."""


@implementer(IPushProducer)
class ControlLine(LineOnlyReceiver):
    """One end of the line.

    ``told`` gets what the other end tells, ``lost`` is called when there is no other end any
    more.  As IPushProducer it learns that the other end does not read: then nothing more is told.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE
    transport: Any

    def __init__(
        self, told: Callable[[str, Any], object], lost: Callable[[], object] = lambda: None
    ) -> None:
        self._told = told
        self._lost = lost
        self._answers: dict[str, Callable[[], Any]] = {"ping": lambda: True}
        self._asked: dict[int, Deferred[Any]] = {}
        self._ids = count()
        self._is_full = False
        self._is_gone = False
        self._dropped = 0
        self._ended: Deferred[None] | None = None

    def answer(self, name: str, function: Callable[[], Any]) -> None:
        """Answer ``name`` by what the function returns, now or later; it is JSON's."""
        self._answers[name] = function

    def ask(self, name: str) -> Deferred[Any]:
        """Ask the other end; fails with Unanswered, or with ConnectionLost."""
        if self._is_gone:
            return fail(ConnectionLost())
        number = next(self._ids)

        def given_up(_: Deferred[Any]) -> None:
            del self._asked[number]

        asked: Deferred[Any] = Deferred(given_up)
        self._asked[number] = asked
        self._send({"ask": name, "id": number})
        return asked

    def tell(self, name: str, value: Any = None) -> bool:
        """Tell the other end; False if it does not read, and this was dropped."""
        if self._is_full or self._is_gone:
            self._dropped += 1
            return False
        self._send({"tell": name, "value": value})
        return True

    def end(self) -> Deferred[None]:
        """Close when everything that was said has left; fires when there is no other end."""
        ended: Deferred[None] = Deferred()
        if self._is_gone or self.transport is None:
            ended.callback(None)
        else:
            self._ended = ended
            # A transport does not close while it has a paused producer.
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        return ended

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, separators=(",", ":")).encode("ascii")
        if len(line) > MAX_LINE:
            raise ValueError(f"a line of {len(line)} octets")
        self.transport.write(line + b"\n")

    def connectionMade(self) -> None:
        """Both ends are there."""
        self.transport.registerProducer(self, True)

    def lineReceived(self, line: bytes) -> None:
        """A message, from the same version of this module."""
        message = json.loads(line)
        if "ask" in message:
            self._asked_for(message["ask"], message["id"])
        elif "tell" in message:
            self._told(message["tell"], message["value"])
        else:
            asked = self._asked.pop(message["id"], None)
            if asked is None:
                return  # given up
            if "error" in message:
                asked.errback(Unanswered(message["error"]))
            else:
                asked.callback(message["answer"])

    def _asked_for(self, name: str, number: int) -> None:
        function = self._answers.get(name)
        if function is None:
            self._send({"id": number, "error": f"nobody here answers {name}"})
            return

        def answered(answer: Any) -> None:
            if not self._is_gone:
                self._send({"id": number, "answer": answer})

        def failed(failure: Failure) -> None:
            _LOG.failure("cannot answer {name}", failure, name=name)
            if not self._is_gone:
                self._send({"id": number, "error": type(failure.value).__name__})

        maybeDeferred(function).addCallback(answered).addErrback(failed)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other process has ended."""
        self._is_gone = True
        asked, self._asked = self._asked, {}
        for each in asked.values():
            each.errback(ConnectionLost())
        self._lost()
        if self._ended is not None:
            self._ended.callback(None)

    def pauseProducing(self) -> None:
        """The other end does not read."""
        self._is_full = True

    def resumeProducing(self) -> None:
        """The other end has read what was there."""
        self._is_full = False
        if self._dropped:
            _LOG.warn(
                "the other process did not read for a while: {dropped} messages to it were dropped",
                dropped=self._dropped,
            )
            self._dropped = 0

    def stopProducing(self) -> None:
        """There is nobody any more; ``connectionLost`` says so, too."""


class LineFactory(Factory):
    """For ``adoptStreamConnection``: it wants a factory, and there is one line."""

    noisy = False

    def __init__(self, line: ControlLine) -> None:
        self._line = line

    def buildProtocol(self, addr: object) -> ControlLine:
        return self._line

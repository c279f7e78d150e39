"""regguard.ops.control: questions, answers and news between two processes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from regguard.ops.control import MAX_LINE, ControlLine, Unanswered


class Pair:
    """Two ends, and what goes from one to the other."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.lost = 0
        self.parent = ControlLine(lambda name, value: self.told.append((name, value)))
        self.child = ControlLine(lambda name, value: None, self._lost)
        for end in (self.parent, self.child):
            end.makeConnection(StringTransport())

    def _lost(self) -> None:
        self.lost += 1

    def flow(self) -> None:
        for one, other in ((self.parent, self.child), (self.child, self.parent)):
            octets = one.transport.value()
            one.transport.clear()
            for at in range(0, len(octets), 7):  # as sockets may cut it
                other.dataReceived(octets[at : at + 7])


@pytest.fixture
def pair() -> Pair:
    """Connected."""
    return Pair()


def result(asked: Deferred[Any]) -> list[Any]:
    """What it fired with, if it did."""
    outcome: list[Any] = []
    asked.addBoth(outcome.append)
    return outcome


def test_a_question_is_answered_by_what_the_function_returns(pair: Pair) -> None:
    """Now or later, in any order."""
    later: Deferred[Any] = Deferred()
    pair.child.answer("later", lambda: later)
    pair.child.answer("now", lambda: {"requests": [1, None, "ü"]})
    first, second, ping = (result(pair.parent.ask(name)) for name in ("later", "now", "ping"))
    pair.flow()
    assert (first, second, ping) == ([], [{"requests": [1, None, "ü"]}], [True])
    later.callback(7)
    pair.flow()

    assert first == [7]


def test_news_are_told(pair: Pair) -> None:
    """As they are, a line each."""
    assert pair.child.tell("pushed", {"tag": "a\nb"})
    assert pair.child.transport.value().count(b"\n") == 1
    pair.child.tell("ready")
    pair.flow()

    assert pair.told == [("pushed", {"tag": "a\nb"}), ("ready", None)]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: 1 / 0, id="fault"),
        pytest.param(lambda: object(), id="no-json"),
        pytest.param(lambda: "x" * MAX_LINE, id="too-long"),
    ],
)
def test_what_cannot_be_answered_is_said(pair: Pair, answer: Any) -> None:
    """The line lives on, and the fault stands in the log."""
    pair.child.answer("it", answer)
    asked, unknown = result(pair.parent.ask("it")), result(pair.parent.ask("other"))
    with capturedLogs() as logs:
        pair.flow()

    assert [each[0].type for each in (asked, unknown)] == [Unanswered, Unanswered]
    assert len(logs) == 1
    assert result(pair.parent.ask("ping")) == []
    assert not pair.parent.transport.disconnecting


def test_an_answer_that_nobody_waits_for_any_more_is_dropped(pair: Pair) -> None:
    """It was given up."""
    asked = pair.parent.ask("ping")
    outcome = result(asked)
    asked.cancel()
    pair.flow()

    assert len(outcome) == 1
    assert pair.parent._asked == {}


def test_a_line_without_end_is_cut(pair: Pair) -> None:
    """Memory is bounded, whatever the other end does."""
    pair.parent.dataReceived(b"x" * (MAX_LINE + 1))

    assert pair.parent.transport.disconnecting


def test_who_is_gone_answers_nothing(pair: Pair) -> None:
    """Not what was asked before, nor what is asked after that."""
    before = result(pair.child.ask("ping"))
    pair.child.connectionLost(Failure(ConnectionDone()))
    after = result(pair.child.ask("ping"))

    assert [each[0].type for each in (before, after)] == [ConnectionLost, ConnectionLost]
    assert pair.lost == 1
    assert not pair.child.tell("ready")


def test_nothing_is_told_to_who_does_not_read(pair: Pair) -> None:
    """News would pile up; answers are as many as questions."""
    assert verifyObject(IPushProducer, pair.child)
    assert pair.child.transport.producer is pair.child
    pair.child.pauseProducing()
    for _ in range(3):
        assert not pair.child.tell("pushed")
    with capturedLogs() as logs:
        pair.child.resumeProducing()
        assert pair.child.tell("pushed", 2)
        pair.child.pauseProducing()
        pair.child.resumeProducing()
    pair.flow()

    assert pair.told == [("pushed", 2)]
    assert [formatEvent(event) for event in logs] == [
        "the other process did not read for a while: 3 messages to it were dropped"
    ]


def test_the_words_are_those_of_the_contract(pair: Pair) -> None:
    """JSON objects, one a line."""
    pair.parent.ask("reload")
    pair.child.tell("pushed", 1)

    assert json.loads(pair.parent.transport.value()) == {"ask": "reload", "id": 0}
    assert json.loads(pair.child.transport.value()) == {"tell": "pushed", "value": 1}

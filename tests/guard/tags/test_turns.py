"""Immutable tags: writes to one repository are decided one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from regguard.access import Freeze, Policy, Rule
from regguard.guard import resource
from regguard.guard.tags import LARGEST_MANIFEST, MOST_OCTETS, MOST_WAITING, Turn, Turns, check_tags
from regguard.relay import Relay, UpstreamFailure
from regguard.relay.exchange import Exchange
from tests.guard.questions import CREATED, MISSING, Questions, digest, stands_for
from tests.guard.tags.immutable import (
    APP,
    NEW,
    OLD,
    OTHER,
    THAT,
    V1,
    all_stops,
    check_denied,
    check_failed,
    check_no_turns,
    check_written,
    chunked,
    delete,
    put,
    send,
)
from tests.guard.world import Guarded, request
from tests.relay.world import Peer, read_answers, read_request


def test_of_two_first_pushes_one_wins(guarded: Guarded, questions: Questions) -> None:
    """The second one is compared with what the first one made."""
    first, second = send(guarded, put(OLD)), send(guarded, put(NEW))
    questions.answer(MISSING)
    write = questions.next()
    assert write.body == OLD
    assert len(guarded.registry.open) == 2  # the first one's question, kept, and its write
    questions.peer.send(CREATED)
    assert guarded.answer_of(first, b"PUT").status == 201

    assert questions.answer(stands_for(digest(OLD))).method == b"HEAD"
    check_denied(guarded.answer_of(second, b"PUT"), digest(OLD).decode())
    assert not questions.waiting


def test_a_write_whose_client_has_left_keeps_its_turn(
    guarded: Guarded, questions: Questions
) -> None:
    """The registry has it: it may still set the tag, behind the back of the next one."""
    first, second = send(guarded, put(OLD)), send(guarded, put(NEW))
    questions.answer(MISSING)
    assert questions.next().body == OLD
    at = questions.peer
    first.reset()
    assert not questions.waiting
    assert at.is_open
    at.send(CREATED)

    questions.answer(stands_for(digest(OLD)))
    check_denied(guarded.answer_of(second, b"PUT"), digest(OLD).decode())


@pytest.mark.parametrize(
    "ending",
    [
        lambda guarded, at: at.end(),
        lambda guarded, at: at.reset(),
        lambda guarded, at: at.send(b"nonsense"),
        lambda guarded, at: at.send(CREATED.replace(b": 0", b": 5") + b"half"),
        lambda guarded, at: guarded.world.reactor.pass_time(102),
    ],
)
@pytest.mark.parametrize("leaves", [True, False])
def test_a_write_that_fails_gives_its_turn_back(
    guarded: Guarded, questions: Questions, ending: Callable[[Guarded, Peer], None], leaves: bool
) -> None:
    """Whether its client waits for it or not; the next one is asked for then."""
    first = send(guarded, put(OLD))
    questions.answer(MISSING)
    questions.next()
    at = questions.peer
    second = send(guarded, put(NEW))
    if leaves:
        first.reset()
    ending(guarded, at)

    questions.answer(MISSING)
    check_written(guarded, questions, second, NEW)


def test_a_write_that_was_not_sent_is_given_up_with_its_client(
    guarded: Guarded, questions: Questions
) -> None:
    """While the registry does not accept connections nothing can have happened."""
    first = send(guarded, put(OLD))
    second = send(guarded, put(NEW))
    guarded.registry.accepting = False
    questions.answer(MISSING)
    assert guarded.registry.cancelled == 0
    first.reset()
    assert guarded.registry.cancelled == 1
    guarded.registry.accepting = True
    questions.answer(MISSING)

    check_written(guarded, questions, second, NEW)


def test_an_answer_that_nobody_reads_keeps_nobody_waiting(
    guarded: Guarded, questions: Questions
) -> None:
    """The registry is done when it begins to answer."""
    first = guarded.world.client(capacity=16)
    first.reading = False
    first.send(put(OLD))
    second = send(guarded, put(NEW))
    questions.answer(MISSING)
    questions.next()
    length = 10_000_000
    questions.peer.send(b"HTTP/1.1 400 X\r\nContent-Length: %d\r\n\r\n" % length + bytes(200_000))
    [reading] = [each for each in guarded.world.relay.exchanges if "streaming" in repr(each)]
    assert reading._octets == b""  # nor does its manifest stay

    questions.answer(MISSING)
    check_written(guarded, questions, second, NEW)
    first.reset()


def test_no_room_for_the_write_gives_the_turn_back(
    guarded: Guarded, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503: there was room for the question, and then none."""
    client = send(guarded, put(NEW))
    questions.next()
    monkeypatch.setattr("regguard.relay.exchange.MAX_EXCHANGES", 0)
    questions.peer.send(MISSING)

    check_failed(guarded.answer_of(client, b"PUT"), 503)
    check_no_turns(guarded)


@pytest.mark.parametrize(
    ("octets", "how", "status"),
    [
        (put(NEW)[:-1], "reset", 0),
        (put(NEW)[:-1], "end", 400),
        (chunked(NEW)[:-2], "reset", 0),
        (chunked(NEW)[:-2], "end", 400),
        (put(NEW), "reset", 0),
        (delete(THAT), "reset", 0),
    ],
)
def test_who_leaves_gives_the_turn_back(
    guarded: Guarded, questions: Questions, octets: bytes, how: str, status: int
) -> None:
    """With the body half sent, or while the registry is asked; nothing is written or logged."""
    client = send(guarded, octets)
    if questions.waiting:
        questions.next()
    getattr(client, how)()

    check_no_turns(guarded)
    assert not questions.waiting
    assert guarded.world.relay.exchanges == set()
    assert [each.status for each in guarded.world.ended] == [status]


def test_who_has_closed_his_side_only_is_served(guarded: Guarded, questions: Questions) -> None:
    """He may still read."""
    client = send(guarded, put(NEW))
    client.end()
    questions.answer(MISSING)

    check_written(guarded, questions, client, NEW)


def test_who_leaves_while_waiting_for_the_turn_is_skipped(
    guarded: Guarded, questions: Questions
) -> None:
    """And no turn is lost."""
    clients = [send(guarded, put(NEW)) for _ in range(4)]
    clients[1].reset()
    clients[3].reset()
    questions.answer(MISSING)
    check_written(guarded, questions, clients[0], NEW)
    questions.answer(stands_for(digest(NEW)))
    check_written(guarded, questions, clients[2], NEW)

    check_no_turns(guarded)
    assert not questions.waiting


@pytest.mark.parametrize(
    ("octets", "status"), [(b"x\r\n", 400), (b"", 408)], ids=["broken", "silent"]
)
def test_a_body_that_breaks_is_answered_once(guarded: Guarded, octets: bytes, status: int) -> None:
    """As any other one, and it is nobody's fault here."""
    client = send(guarded, put(b"", V1, b"Transfer-Encoding: chunked"))
    client.send(octets)
    guarded.world.reactor.pass_time(70)

    assert guarded.answer_of(client, b"PUT").status == status
    assert guarded.registry.connections == []


def test_other_repositories_do_not_wait(guarded: Guarded, questions: Questions) -> None:
    """A turn is one repository's."""
    first = send(guarded, put(NEW))
    questions.next()
    at = questions.peer
    second = send(guarded, put(OLD, OTHER))
    assert questions.answer(MISSING).target == OTHER
    check_written(guarded, questions, second, OLD)
    at.send(MISSING)

    check_written(guarded, questions, first, NEW)


def test_too_many_writes_are_put_off(guarded: Guarded, questions: Questions) -> None:
    """503 with Retry-After; those who wait lose nothing by it."""
    clients = [send(guarded, put(NEW)) for _ in range(MOST_WAITING + 1)]
    late = guarded.ask(put(NEW))
    check_failed(late, 503)
    assert late[b"retry-after"] == b"5"
    for client in clients:
        questions.answer(MISSING)
        check_written(guarded, questions, client, NEW)


def test_h03_too_many_manifests_at_once_are_put_off(guarded: Guarded, questions: Questions) -> None:
    """503 with Retry-After while as much as may be is held: read, waiting, or on its way."""
    body = bytes(LARGEST_MANIFEST)
    count = MOST_OCTETS // LARGEST_MANIFEST
    clients = [send(guarded, put(body)) for _ in range(count)]
    late = guarded.ask(put(NEW))
    check_failed(late, 503)
    assert late[b"retry-after"] == b"5"
    questions.answer(MISSING)
    check_failed(guarded.ask(put(NEW)), 503)
    check_written(guarded, questions, clients[0], body)
    last = send(guarded, put(NEW))
    for client in clients[1:]:
        questions.answer(stands_for(digest(body)))
        check_written(guarded, questions, client, body)
    questions.answer(stands_for(digest(body)))

    check_denied(guarded.answer_of(last, b"PUT"))


def test_when_regguard_stops_everybody_is_answered(guarded: Guarded, questions: Questions) -> None:
    """However many wait, each of whom would begin when the one before ends."""
    clients = [send(guarded, put(NEW)) for _ in range(MOST_WAITING + 1)]
    questions.next()
    all_stops(guarded)

    for client in clients:
        check_failed(guarded.answer_of(client, b"PUT"), 503)
    check_no_turns(guarded)


def test_a_failure_in_a_row_of_turns_lets_nobody_in_twice(
    guarded: Guarded, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose turn ends at once may be followed, on its connection, by who begins the next."""
    first = send(guarded, put(OLD))
    questions.answer(MISSING)
    questions.next()
    at = questions.peer
    second = send(guarded, put(NEW) + put(NEW, V1, b"X-Second: 1"))
    fail_once = iter([True])

    async def check(*arguments: Any) -> Any:
        if next(fail_once, False):
            raise UpstreamFailure(503, "no room")
        return await check_tags(*arguments)

    monkeypatch.setattr(resource, "check_tags", check)
    at.send(CREATED)
    assert guarded.answer_of(first, b"PUT").status == 201
    assert questions.next()[b"x-forwarded-user"] == b"writer"
    asked = questions.peer
    third = send(guarded, put(OLD))
    assert not questions.waiting, "two have the turn at once"
    asked.send(MISSING)
    questions.answer(CREATED)
    found = list(read_answers(second.take(), b"PUT", b"PUT"))
    assert [each.status for each in found] == [503, 201]
    questions.answer(stands_for(digest(NEW)))
    check_denied(guarded.answer_of(third, b"PUT"))


@pytest.mark.parametrize(
    ("method", "what"),
    [
        *((b"PUT", what) for what in ("read_whole", "take", "check_tags", "send", "start")),
        *((b"DELETE", what) for what in ("read_whole", "take", "check_deletion", "send", "start")),
    ],
)
def test_a_fault_is_a_refusal_and_keeps_no_turn(
    guarded: Guarded,
    questions: Questions,
    logged: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    method: bytes,
    what: str,
) -> None:
    """Wherever it happens on the way: 500, a logged failure, and nothing written."""

    def fault(*_: Any, **__: Any) -> Any:
        raise RuntimeError("injected")

    places: dict[str, Any] = {"take": Turns, "send": Relay, "start": Exchange}
    monkeypatch.setattr(places.get(what, resource), what, fault)
    client = send(guarded, put(NEW) if method == b"PUT" else delete(THAT))
    if what in places and what != "take":
        questions.answer(MISSING)

    answer = guarded.answer_of(client, method)
    assert answer.status == 500
    assert [each.type for each in logged] == [RuntimeError]
    logged.clear()
    check_no_turns(guarded)
    assert not questions.waiting
    monkeypatch.undo()
    again = send(guarded, put(NEW))
    questions.answer(MISSING)
    check_written(guarded, questions, again, NEW)


def test_turns_are_taken_in_order_and_end_once() -> None:
    """One at a time, none lost, none left, and none given to two."""
    turns = Turns()
    had: list[Turn] = []
    first = turns.take("a")
    first.addCallback(had.append)
    second, third, last = (turns.take("a") for _ in range(3))
    for each in (second, third):
        each.addCallback(had.append)
    last.addErrback(lambda failure: failure.trap(CancelledError))
    assert len(had) == 1
    last.cancel()
    had[0].end()
    had[0].end()
    assert len(had) == 2
    had[1].end()
    had[0].end()
    assert len(had) == 3
    had[2].end()
    assert turns._queues == {}
    turns.take("a").addCallback(had.append)
    had[2].end()
    assert set(turns._queues) == {"a"}


def test_freeze_comes_before_every_question() -> None:
    """403 with the reason; reading goes on."""
    guarded = Guarded(
        Policy(
            rules=[Rule(match=("team/**",), immutable=("v*",))],
            freeze=Freeze("we move house", "regguard.toml:3: freeze"),
        )
    )
    for octets in (put(NEW), delete(THAT), delete(V1), request(b"POST", APP + b"blobs/uploads/")):
        answer = guarded.ask(octets)
        assert answer.status == 403
        [error] = json.loads(answer.body)["errors"]
        assert "frozen: we move house" in error["message"]
        assert error["detail"]["rule"] == "regguard.toml:3: freeze"
    assert guarded.registry.connections == []
    client = send(guarded, request(b"GET", V1))
    assert read_request(guarded.registry.last.take()).target == V1
    client.reset()
    guarded.world.close()

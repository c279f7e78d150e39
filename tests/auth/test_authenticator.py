"""regguard.auth.authenticator: the whole way from a header to a user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from passlib.hash import bcrypt
from twisted.cred.checkers import (
    AllowAnonymousAccess,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from regguard.auth.htpasswd import HtpasswdChecker
from regguard.auth.interfaces import (
    CheckerFailed,
    Overloaded,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from regguard.auth.realm import User
from regguard.auth.threads import WAITING_PER_THREAD
from regguard.auth.throttle import Throttle
from regguard.auth.verified import TTL
from tests.auth.house import (
    HOME,
    ONE,
    Basic,
    House,
    Outcome,
    Scripted,
    Write,
    break_down,
    make,
    refuse,
)
from tests.canary import CANARY

# -- the way in --------------------------------------------------------------------------------


def test_a_good_credential_is_verified_once_and_then_found(
    house: House, basic: Basic, outcome: Outcome
) -> None:
    """The first request waits for a hash; the next ones have their user without a Deferred."""
    first = house.authenticate(basic("ci", "one"))
    assert isinstance(first, Deferred)
    assert not first.called
    assert house.hashed == 1

    again = house.authenticate(basic("ci", "one"))

    assert isinstance(again, User)
    assert (again.name, again.groups) == ("ci", frozenset({"pusher"}))
    assert outcome(first).name == "ci"
    assert house.hashed == 0


@pytest.mark.parametrize(
    "header", [None, b"", b"Bearer x", b"Basic !", b"Basic Y2k6", b"Basic " + b"x" * 16_384]
)
def test_e01_to_e05_no_or_malformed_credentials_cost_no_hash(
    house: House, header: bytes | None
) -> None:
    """They are refused at once, without a Deferred."""
    with pytest.raises(Unauthenticated):
        house.authenticate(header)

    assert house.hashed == 0


@pytest.mark.parametrize(("name", "password"), [("ci", "two"), ("eve", "one"), ("bob", "one")])
def test_e10_wrong_credentials_fail_alike(
    house: House, basic: Basic, outcome: Outcome, name: str, password: str
) -> None:
    """A wrong password and an unknown user cost one hash each and have the same words."""
    answer = house.authenticate(basic(name, password))
    assert house.hashed == 1

    refused = outcome(answer)

    assert isinstance(refused, Unauthenticated)
    assert refused.reason == "wrong user name or password"
    assert refused.name == name


def test_failures_are_not_remembered(house: House, basic: Basic, outcome: Outcome) -> None:
    """Without a throttle the same wrong credential is hashed anew."""
    for _ in range(2):
        answer = house.authenticate(basic("ci", "two"))
        assert house.hashed == 1
        assert isinstance(outcome(answer), Unauthenticated)


def test_e06_73_bytes_that_begin_with_the_password_are_refused(
    house: House, basic: Basic, outcome: Outcome
) -> None:
    """bcrypt's 72 bytes are no password of 73."""
    house.change("htpasswd", f"ci:{bcrypt.using(rounds=4).hash('x' * 72)}\n")
    right, wrong = (house.authenticate(basic("ci", "x" * length)) for length in (72, 73))
    assert house.hashed == 2

    assert outcome(right).name == "ci"
    assert isinstance(outcome(wrong), Unauthenticated)


def test_results_are_counted_by_what_came_of_each_question(
    house: House, basic: Basic, outcome: Outcome
) -> None:
    """Everybody who waited has a result of their own; who left has none."""
    for header in (None, b"Basic !"):
        with pytest.raises(Unauthenticated):
            house.authenticate(header)
    answers = [house.authenticate(basic("ci", word)) for word in ("one", "one", "bad")]
    left = house.authenticate(basic("ci", "given up"))
    assert isinstance(left, Deferred)
    left.cancel()
    assert house.hashed
    for answer in (*answers, left):
        outcome(answer)
    house.authenticate(basic("ci", "one"))

    assert house.authenticator.results == {
        "cached": 1,
        "verified": 2,
        "wrong": 2,
        "throttled": 0,
        "undecided": 0,
        "none": 1,
    }


def test_results_tell_who_was_throttled_and_who_could_not_be_checked(
    clock: Clock, basic: Basic, outcome: Outcome
) -> None:
    """A wrong one, one that is not looked at any more, and one whose checker broke down."""
    throttled = make(clock, Scripted(refuse), throttle=Throttle(1, 60, clock))
    assert isinstance(outcome(throttled.authenticate(basic("ci", "a"), HOME)), Unauthenticated)
    with pytest.raises(Throttled):
        throttled.authenticate(basic("ci", "b"), HOME)
    broken = make(clock, Scripted(lambda: fail(Unavailable())))
    assert isinstance(outcome(broken.authenticate(basic("ci", "a"), HOME)), CheckerFailed)

    assert [each for each in throttled.results.items() if each[1]] == [
        ("wrong", 1),
        ("throttled", 1),
    ]
    assert [each for each in broken.results.items() if each[1]] == [("undecided", 1)]


# -- single flight -----------------------------------------------------------------------------


def test_equal_credentials_share_one_verification(
    house: House, basic: Basic, outcome: Outcome
) -> None:
    """containerd opens six connections at once: one hash, six answers."""
    good = [house.authenticate(basic("ci", "one")) for _ in range(6)]
    bad = [house.authenticate(basic("ci", "bad")) for _ in range(6)]
    assert house.hashed == 2

    assert {outcome(answer).name for answer in good} == {"ci"}
    assert all(isinstance(outcome(answer), Unauthenticated) for answer in bad)


def test_who_cancels_leaves_the_others_waiting(
    house: House, basic: Basic, outcome: Outcome
) -> None:
    """A client that hangs up takes nobody's answer with it."""
    first, second = (house.authenticate(basic("ci", "one")) for _ in range(2))
    assert isinstance(first, Deferred)

    first.cancel()
    house.threads.pool.run_all()

    assert isinstance(outcome(first), CancelledError)
    assert outcome(second).name == "ci"


def test_what_nobody_waits_for_is_dropped(house: House, basic: Basic, outcome: Outcome) -> None:
    """When the last one hangs up the verification leaves the queue, silently."""
    busy = [house.authenticate(basic("ci", f"wrong{number}")) for number in range(2)]
    waiting = house.authenticate(basic("ci", "one"))
    assert isinstance(waiting, Deferred)
    assert house.threads.service.waiting == 1

    with capturedLogs() as logs:
        waiting.cancel()

    assert logs == []
    assert house.threads.service.waiting == 0
    assert isinstance(outcome(waiting), CancelledError)
    assert house.hashed == 2
    assert all(isinstance(outcome(answer), Unauthenticated) for answer in busy)
    again = house.authenticate(basic("ci", "one"))
    assert house.hashed == 1
    assert outcome(again).name == "ci"


def test_an_answer_may_cancel_its_neighbour(house: House, basic: Basic, outcome: Outcome) -> None:
    """What the first waiter does with its answer cannot upset the hand-out."""
    answers = [house.authenticate(basic("ci", "one")) for _ in range(3)]
    first, second, third = answers
    assert isinstance(first, Deferred)
    assert isinstance(second, Deferred)
    first.addCallback(lambda _: second.cancel())
    house.threads.pool.run_all()

    assert isinstance(outcome(second), CancelledError)
    assert outcome(third).name == "ci"


def test_e11_overload_is_told_as_such_and_spares_the_verified(
    house: House, basic: Basic, outcome: Outcome
) -> None:
    """Strangers beyond the queue are put off; a verified user does not even notice."""
    house.authenticate(basic("ci", "one"))
    assert house.hashed == 1
    flood = [
        house.authenticate(basic("ci", f"wrong{number}"))
        for number in range(2 + 2 * WAITING_PER_THREAD)
    ]

    assert isinstance(outcome(house.authenticate(basic("bob", "two"))), Overloaded)
    assert isinstance(house.authenticate(basic("ci", "one")), User)

    assert house.hashed == len(flood)
    assert all(isinstance(outcome(answer), Unauthenticated) for answer in flood)
    answer = house.authenticate(basic("bob", "two"))
    assert house.hashed == 1
    assert outcome(answer).name == "bob"


# -- several checkers --------------------------------------------------------------------------


def test_checkers_are_asked_in_order_until_one_admits(
    clock: Clock, basic: Basic, outcome: Outcome
) -> None:
    """UnauthorizedLogin passes the question on; who admits ends it."""
    first, second, third = Scripted(refuse), Scripted(lambda: b"ci"), Scripted(lambda: b"other")

    user = outcome(make(clock, first, second, third).authenticate(basic("ci", "one"), HOME))

    assert user.name == "ci"
    assert (first.asked, second.asked, third.asked) == (1, 1, 0)


def test_twisteds_own_checkers_work(clock: Clock, basic: Basic, outcome: Outcome) -> None:
    """memory: and its kin are checkers like any other."""
    memory = InMemoryUsernamePasswordDatabaseDontUse(ci=b"one")
    authenticator = make(clock, memory)

    assert outcome(authenticator.authenticate(basic("ci", "one"), HOME)).name == "ci"
    assert isinstance(
        outcome(authenticator.authenticate(basic("ci", "two"), HOME)), Unauthenticated
    )


@pytest.mark.parametrize("broken", [break_down, lambda: fail(RuntimeError()), lambda: b"a\r\nb",
                                    lambda: (), lambda: fail(CancelledError())])  # fmt: skip
def test_a_broken_checker_is_logged_and_never_admits(
    clock: Clock, basic: Basic, outcome: Outcome, broken: Callable[[], Any]
) -> None:
    """It is no "wrong password" either: nobody can say, so the client is to come again."""
    with capturedLogs() as logs:
        answer = outcome(
            make(clock, Scripted(broken), Scripted(refuse)).authenticate(basic("ci", CANARY), HOME)
        )

    assert isinstance(answer, CheckerFailed)
    assert [event["log_level"] for event in logs] == [LogLevel.critical]
    assert CANARY not in str(logs)


def test_a_broken_checker_does_not_keep_out_whom_another_admits(
    clock: Clock, basic: Basic, outcome: Outcome
) -> None:
    """The local administrator gets in while the directory is down, and the fault is logged."""
    authenticator = make(clock, Scripted(break_down), Scripted(lambda: b"root"))

    with capturedLogs() as logs:
        assert outcome(authenticator.authenticate(basic("root", "one"), HOME)).name == "root"

    assert [event["log_level"] for event in logs] == [LogLevel.critical]


def test_a_checker_that_is_unavailable_passes_the_question_on(
    clock: Clock, basic: Basic, outcome: Outcome
) -> None:
    """It has logged why, so nothing is logged here; if nobody else admits, nobody can say."""
    down = Scripted(lambda: fail(Unavailable("no answer")))
    local = InMemoryUsernamePasswordDatabaseDontUse(root=b"one")
    authenticator = make(clock, down, local)

    with capturedLogs() as logs:
        assert outcome(authenticator.authenticate(basic("root", "one"), HOME)).name == "root"
        answer = outcome(authenticator.authenticate(basic("ci", "one"), HOME))

    assert isinstance(answer, CheckerFailed)
    assert logs == []


def test_an_overloaded_checker_ends_the_asking(
    clock: Clock, basic: Basic, outcome: Outcome
) -> None:
    """Those behind it would only be loaded, too."""
    later = Scripted(lambda: b"ci")
    authenticator = make(clock, Scripted(lambda: fail(Overloaded())), later)

    assert isinstance(outcome(authenticator.authenticate(basic("ci", "one"), HOME)), Overloaded)
    assert later.asked == 0


def test_an_entry_rests_on_the_checker_that_admitted(
    house: House, clock: Clock, basic: Basic, outcome: Outcome, write: Write
) -> None:
    """With a checker without versions in front, an htpasswd user still has no time limit."""
    htpasswd = HtpasswdChecker(write(f"ci:{ONE}\n", "other"))
    front = Scripted(refuse)
    authenticator = make(clock, front, htpasswd)
    assert outcome(authenticator.authenticate(basic("ci", "one"), HOME)).name == "ci"

    clock.advance(TTL * 10)

    assert isinstance(authenticator.authenticate(basic("ci", "one"), HOME), User)
    assert front.asked == 1


def test_a_house_without_a_fitting_checker_is_not_built(clock: Clock) -> None:
    """No checker, or one that does not check passwords, is a mistake to be told at start."""
    with pytest.raises(ValueError, match="nobody could log in"):
        make(clock)
    with pytest.raises(ValueError, match="does not check user names and passwords"):
        make(clock, AllowAnonymousAccess())


@pytest.mark.parametrize("spelled", ["{0}", "{0!r}", "{0!a}", "{1!r}", "{2}"])
def test_f01_a_checker_whose_exception_repeats_the_password_is_logged_without_it(
    clock: Clock, basic: Basic, outcome: Outcome, spelled: str
) -> None:
    """The fault is named, by its kind; its text stays out of the log."""
    password = f"\u00e4'\\{CANARY}"
    header = basic("ci", password)
    text = spelled.format(password, password.encode(), header[6:].decode())

    def repeat() -> Any:
        raise ConnectionError(f"cannot bind with {text}")

    with capturedLogs() as logs:
        answer = outcome(make(clock, Scripted(repeat)).authenticate(header, HOME))

    assert isinstance(answer, CheckerFailed)
    (event,) = logs
    assert event["log_level"] is LogLevel.critical
    assert "ConnectionError" in formatEvent(event)
    assert text not in formatEvent(event)
    assert "log_failure" not in event

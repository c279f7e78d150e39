"""Wrong passwords at the authenticator: the throttle counts them, and the audit tells."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from regguard.auth.interfaces import CheckerFailed, Overloaded, Throttled, Unauthenticated
from regguard.auth.realm import User
from regguard.auth.throttle import REFUSED_TTL, Throttle
from regguard.auth.verified import TTL
from regguard.files import FileWatcher
from tests.auth.house import (
    HOME,
    TWO,
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


@pytest.fixture
def throttled(write: Write, threads: Any, watcher: FileWatcher, clock: Clock) -> House:
    """A house that takes three wrong passwords."""
    return House(write, threads, watcher, clock, Throttle(3, 300, clock))


def wrong(house: House, basic: Basic, outcome: Outcome, passwords: str, name: str = "ci") -> None:
    """Try these passwords, of one letter each."""
    for password in passwords:
        answer = house.authenticate(basic(name, password))
        assert house.hashed == 1
        assert isinstance(outcome(answer), Unauthenticated)


def test_e12_beyond_the_limit_nothing_is_hashed(
    throttled: House, basic: Basic, outcome: Outcome
) -> None:
    """Not even what would be right: it would tell the guesser, and cost a hash."""
    wrong(throttled, basic, outcome, "xyz")

    for password in ("w", "one"):
        with pytest.raises(Throttled) as caught:
            throttled.authenticate(basic("ci", password))
        assert caught.value.retry_after == 300

    assert throttled.hashed == 0
    assert isinstance(throttled.authenticate(basic("bob", "two")), Deferred)


def test_e12_of_many_at_once_no_more_than_the_limit_are_hashed(
    throttled: House, basic: Basic
) -> None:
    """They count when they begin; else two hundred at once would all find the count low."""
    refused = 0
    for number in range(200):
        try:
            throttled.authenticate(basic("ci", f"wrong{number}"))
        except Throttled:
            refused += 1

    assert (throttled.hashed, refused) == (3, 197)


def test_e12_a_verified_credential_is_never_blocked(
    throttled: House, basic: Basic, outcome: Outcome
) -> None:
    """Who is known works on while somebody beside him guesses his password."""
    answer = throttled.authenticate(basic("ci", "one"))
    assert throttled.hashed == 1
    assert outcome(answer).name == "ci"

    wrong(throttled, basic, outcome, "xyz")

    with pytest.raises(Throttled):
        throttled.authenticate(basic("ci", "w"))
    assert isinstance(throttled.authenticate(basic("ci", "one")), User)


def test_e12_the_minute_of_a_verified_credential_may_end_meanwhile(
    clock: Clock, basic: Basic, outcome: Outcome
) -> None:
    """A directory is asked again every minute, which must not become a lock-out."""
    checker = Scripted(lambda: b"ci")
    authenticator = make(clock, checker, throttle=Throttle(1, 300, clock))
    assert outcome(authenticator.authenticate(basic("ci", "one"), HOME)).name == "ci"
    checker.answer = refuse
    outcome(authenticator.authenticate(basic("ci", "wrong"), HOME))
    clock.advance(TTL)
    checker.answer = lambda: b"ci"

    with pytest.raises(Throttled):
        authenticator.authenticate(basic("ci", "another"), HOME)
    assert outcome(authenticator.authenticate(basic("ci", "one"), HOME)).name == "ci"

    clock.advance(TTL)
    checker.answer = refuse
    assert isinstance(outcome(authenticator.authenticate(basic("ci", "one"), HOME)),
                      Unauthenticated)  # fmt: skip
    clock.advance(REFUSED_TTL)
    with pytest.raises(Throttled):
        authenticator.authenticate(basic("ci", "one"), HOME)


def test_e12_elsewhere_the_user_logs_in(throttled: House, basic: Basic, outcome: Outcome) -> None:
    """Guessing a user's password locks out the guesser's own network only."""
    wrong(throttled, basic, outcome, "xyz")

    answer = throttled.authenticator.authenticate(basic("ci", "one"), "198.51.100.1")

    assert throttled.hashed == 1
    assert outcome(answer).name == "ci"


def test_e12_networks_that_share_a_verification_are_counted_each(
    throttled: House, basic: Basic
) -> None:
    """Single flight must not be a way to guess on somebody else's account."""
    for password in "xyz":
        for client in (HOME, "198.51.100.1"):
            throttled.authenticator.authenticate(basic("ci", password), client)
    assert throttled.hashed == 3

    for client in (HOME, "198.51.100.1"):
        with pytest.raises(Throttled):
            throttled.authenticator.authenticate(basic("ci", "w"), client)


def test_a_repeated_wrong_password_costs_one_hash(
    throttled: House, basic: Basic, outcome: Outcome
) -> None:
    """It is refused from memory, as wrong and not as too many, and counts once."""
    wrong(throttled, basic, outcome, "x")

    for _ in range(100):
        with pytest.raises(Unauthenticated, match="wrong user name or password"):
            throttled.authenticate(basic("ci", "x"))

    wrong(throttled, basic, outcome, "yz")
    with pytest.raises(Unauthenticated):
        throttled.authenticate(basic("ci", "x"))


def test_a_password_that_becomes_right_is_taken_at_once(
    throttled: House, basic: Basic, outcome: Outcome
) -> None:
    """The memory of a refusal ends with the line that it rested on, or its absence."""
    answer = throttled.authenticate(basic("eve", "two"))
    assert throttled.hashed == 1
    assert isinstance(outcome(answer), Unauthenticated)

    throttled.change("htpasswd", f"eve:{TWO}\nbob:{TWO}\n")

    answer = throttled.authenticate(basic("eve", "two"))
    assert throttled.hashed == 1
    assert outcome(answer).name == "eve"


def test_overload_and_good_passwords_do_not_count(clock: Clock, basic: Basic) -> None:
    """Only what is wrong is a guess."""
    checker = Scripted(lambda: fail(Overloaded()))
    authenticator = make(clock, checker, throttle=Throttle(1, 300, clock))
    for number in range(5):
        authenticator.authenticate(basic("ci", f"secret{number}"), HOME).addErrback(lambda _: None)
    checker.answer = lambda: b"ci"
    for number in range(5):
        authenticator.authenticate(basic("ci", f"secret{number}"), HOME)

    assert checker.asked == 10


def test_e12_guessing_while_a_directory_is_down_is_counted(
    clock: Clock, basic: Basic, outcome: Outcome
) -> None:
    """Nobody can say "wrong", but the password file did look: each secret counts, and once."""
    file = Scripted(refuse)
    authenticator = make(clock, Scripted(break_down), file, throttle=Throttle(2, 300, clock))
    with capturedLogs():
        for password in "xxy":
            answer = authenticator.authenticate(basic("ci", password), HOME)
            assert isinstance(outcome(answer), CheckerFailed)
        with pytest.raises(Throttled):
            authenticator.authenticate(basic("ci", "z"), HOME)

    assert file.asked == 3


def test_who_hangs_up_is_counted(throttled: House, basic: Basic) -> None:
    """Otherwise a guesser would hang up each time, after his hash was begun; on one guess, too."""
    for password in "xxx":
        answer = throttled.authenticate(basic("ci", password))
        assert isinstance(answer, Deferred)
        answer.addErrback(lambda failure: failure.trap(CancelledError))
        answer.cancel()

    with pytest.raises(Throttled):
        throttled.authenticate(basic("ci", "w"))


def test_refused_log_ins_are_audited_each_and_asking_first_is_none(
    throttled: House, basic: Basic, outcome: Outcome
) -> None:
    """Wrong, malformed, throttled: an event. No credentials: how docker begins, and no event."""
    with capturedLogs() as logs:
        with pytest.raises(Unauthenticated):
            throttled.authenticate(None)
        assert logs == []
        with pytest.raises(Unauthenticated):
            throttled.authenticate(b"Bearer " + CANARY.encode())
        wrong(throttled, basic, outcome, "xyz")
        with pytest.raises(Throttled):
            throttled.authenticate(basic("ci", CANARY))

    said = [(event["log_level"].name, event["user"], event["reason"]) for event in logs]
    too_many = "too many wrong passwords for this user from this network"
    assert said == [
        ("info", "-", "not Basic credentials"),
        ("info", "ci", "wrong user name or password"),
        ("warn", "ci", too_many),
        ("info", "ci", too_many),
    ]
    assert {event["network"] for event in logs} == {"192.0.2.0/24"}
    assert CANARY not in str(logs)


def test_everybody_who_waited_for_a_refusal_is_audited(
    throttled: House, basic: Basic, outcome: Outcome, clock: Clock
) -> None:
    """One hash, six refused log-ins."""
    with capturedLogs() as logs:
        answers = [throttled.authenticate(basic("ci", "bad")) for _ in range(6)]
        assert throttled.hashed == 1
        assert all(isinstance(outcome(answer), Unauthenticated) for answer in answers)
        clock.advance(60)

    assert logs[-1]["count"] == 5

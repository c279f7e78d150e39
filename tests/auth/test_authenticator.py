"""regguard.auth.authenticator and verified: the whole way from a header to a user."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from passlib.hash import bcrypt
from twisted.cred.checkers import (
    AllowAnonymousAccess,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from zope.interface import implementer

from regguard.auth.audit import Audit
from regguard.auth.authenticator import Authenticator
from regguard.auth.files import POLL_INTERVAL, FileWatcher
from regguard.auth.htpasswd import HtpasswdChecker
from regguard.auth.interfaces import (
    AvatarId,
    CheckerFailed,
    IVersionedChecker,
    Overloaded,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from regguard.auth.realm import Groups, Realm, User
from regguard.auth.threads import WAITING_PER_THREAD
from regguard.auth.throttle import REFUSED_TTL, Throttle
from regguard.auth.verified import TTL, VerifiedCredentials
from tests.canary import CANARY

Write = Callable[..., str]
Outcome = Callable[[Any], Any]
Basic = Callable[[str, str], bytes]

HOME = "192.0.2.1"
ONE = bcrypt.using(rounds=4).hash("one")
ONE_AGAIN = bcrypt.using(rounds=4).hash("one")
TWO = bcrypt.using(rounds=4).hash("two")


def started(audit: Audit) -> Audit:
    audit.startService()
    return audit


class House:
    """An authenticator with an attached htpasswd file and a groups file."""

    def __init__(
        self,
        write: Write,
        threads: Any,
        watcher: FileWatcher,
        clock: Clock,
        throttle: Throttle | None = None,
    ) -> None:
        self.write = write
        self.clock = clock
        self.threads = threads
        checker = HtpasswdChecker(write(f"ci:{ONE}\nbob:{TWO}\n", "htpasswd"))
        checker.attach(threads.service, watcher)
        self.groups = Groups(write("pusher: ci\n", "groups"))
        assert self.groups.file is not None
        watcher.watch(self.groups.file)
        self.authenticator = Authenticator(
            Realm(self.groups), [checker], clock, started(Audit(clock)), throttle
        )

    def authenticate(self, header: bytes | None) -> User | Deferred[User]:
        return self.authenticator.authenticate(header, HOME)

    def change(self, name: str, content: str) -> None:
        self.write(content, name)
        self.clock.advance(POLL_INTERVAL)

    @property
    def hashed(self) -> int:
        """Run what waits for a thread; say how much that was."""
        count: int = len(self.threads.pool.jobs) + self.threads.service.waiting
        self.threads.pool.run_all()
        return count


@pytest.fixture
def house(write: Write, threads: Any, watcher: FileWatcher, clock: Clock) -> House:
    return House(write, threads, watcher, clock)


@implementer(ICredentialsChecker)
class Scripted:
    """A third party's checker: answers what it is told to."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.asked = 0

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked += 1
        return self.answer()


def refuse() -> Any:
    raise UnauthorizedLogin


def break_down() -> Any:
    raise ConnectionError("the directory is down")


def make(clock: Clock, *checkers: Any, **options: Any) -> Authenticator:
    return Authenticator(Realm(Groups()), checkers, clock, started(Audit(clock)), **options)


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


# -- the cache ---------------------------------------------------------------------------------


def test_e13_a_changed_password_ends_the_cached_one(
    house: House, basic: Basic, outcome: Outcome
) -> None:
    """At the first request after the reload the old password is wrong and the new one right."""
    house.authenticate(basic("ci", "one"))
    assert house.hashed == 1
    house.change("htpasswd", f"ci:{TWO}\nbob:{TWO}\n")

    old = house.authenticate(basic("ci", "one"))
    new = house.authenticate(basic("ci", "two"))

    assert house.hashed == 2
    assert isinstance(outcome(old), Unauthenticated)
    assert outcome(new).name == "ci"


def test_e13_a_deleted_user_is_out(house: House, basic: Basic, outcome: Outcome) -> None:
    """Nothing in the cache outlives its line."""
    house.authenticate(basic("ci", "one"))
    assert house.hashed == 1
    house.change("htpasswd", f"bob:{TWO}\n")

    answer = house.authenticate(basic("ci", "one"))

    assert house.hashed == 1
    assert isinstance(outcome(answer), Unauthenticated)


def test_e13_other_changes_keep_the_cached_one(house: House, basic: Basic) -> None:
    """A reload that leaves the user's line as it is costs no hash; a bad one changes nothing."""
    house.authenticate(basic("ci", "one"))
    assert house.hashed == 1

    house.change("htpasswd", f"# new\neve:{TWO}\nci:{ONE}\n")
    assert isinstance(house.authenticate(basic("ci", "one")), User)
    house.change("htpasswd", "ci:nonsense")
    assert isinstance(house.authenticate(basic("ci", "one")), User)


def test_e13_the_same_password_hashed_anew_is_verified_anew(
    house: House, basic: Basic, outcome: Outcome
) -> None:
    """An entry rests on the stored hash, so a new salt ends it."""
    house.authenticate(basic("ci", "one"))
    assert house.hashed == 1
    house.change("htpasswd", f"ci:{ONE_AGAIN}\n")

    answer = house.authenticate(basic("ci", "one"))

    assert isinstance(answer, Deferred)
    assert house.hashed == 1
    assert outcome(answer).name == "ci"


def test_e13_a_password_changed_while_it_is_verified_is_verified_again(
    house: House, basic: Basic, outcome: Outcome
) -> None:
    """What was right when the hashing began is not right any more when it ends."""
    old = house.authenticate(basic("ci", "one"))
    new = house.authenticate(basic("ci", "two"))
    house.change("htpasswd", f"ci:{TWO}\n")
    house.threads.pool.run_all()

    assert isinstance(outcome(old), Unauthenticated)
    assert outcome(new).name == "ci"
    assert isinstance(house.authenticate(basic("ci", "two")), User)
    assert isinstance(house.authenticate(basic("ci", "one")), Deferred)
    house.threads.pool.run_all()


def test_d17_groups_count_from_the_next_request_on(house: House, basic: Basic) -> None:
    """A changed groups file needs no new log-in and no hash."""
    house.authenticate(basic("ci", "one"))
    assert house.hashed == 1
    for text, groups in (("pusher: bob\nops: ci", {"ops"}), ("pusher: bob", set())):
        house.change("groups", text)

        user = house.authenticate(basic("ci", "one"))

        assert isinstance(user, User)
        assert user.groups == groups
        assert house.authenticate(basic("ci", "one")) is user


def test_a_checker_without_versions_is_asked_again_after_a_minute(
    clock: Clock, basic: Basic, outcome: Outcome
) -> None:
    """Third parties' checkers cannot say that a password changed, so success has an end."""
    checker = Scripted(lambda: b"ci")
    authenticator = make(clock, checker)
    assert outcome(authenticator.authenticate(basic("ci", "one"), HOME)).name == "ci"

    clock.advance(TTL - 0.1)
    assert isinstance(authenticator.authenticate(basic("ci", "one"), HOME), User)
    assert checker.asked == 1
    clock.advance(0.2)
    checker.answer = refuse
    assert isinstance(
        outcome(authenticator.authenticate(basic("ci", "one"), HOME)), Unauthenticated
    )
    assert checker.asked == 2


def test_groups_of_a_checker_are_kept_with_the_credential(
    clock: Clock, basic: Basic, outcome: Outcome, write: Write, watcher: FileWatcher
) -> None:
    """For a minute; what the groups file says beside them counts at once, as ever."""
    groups = Groups(write("pusher: ci", "groups"))
    assert groups.file is not None
    watcher.watch(groups.file)
    checker = Scripted(lambda: AvatarId("ci", ["devs"]))
    authenticator = Authenticator(Realm(groups), [checker], clock, started(Audit(clock)))

    def now() -> Any:
        found = authenticator.authenticate(basic("CI", "one"), HOME)
        return found if isinstance(found, User) else outcome(found)

    assert (now().name, now().groups) == ("ci", {"pusher", "devs"})
    assert now() is now()
    write("ops: ci", "groups")
    clock.advance(POLL_INTERVAL)
    checker.answer = lambda: AvatarId("ci", ["testers"])
    assert now().groups == {"ops", "devs"}
    assert checker.asked == 1
    clock.advance(TTL)
    assert now().groups == {"ops", "testers"}
    assert checker.asked == 2


def test_e13_the_cache_is_bounded(clock: Clock, basic: Basic) -> None:
    """Beyond its capacity the oldest entry goes, and is verified again when it comes back."""
    checker = Scripted(lambda: b"ci")
    authenticator = make(clock, checker, capacity=3)
    for number in range(5):
        authenticator.authenticate(basic(f"user{number}", "pw"), HOME)
    assert checker.asked == 5

    assert isinstance(authenticator.authenticate(basic("user4", "pw"), HOME), User)
    assert isinstance(authenticator.authenticate(basic("user2", "pw"), HOME), User)
    assert isinstance(authenticator.authenticate(basic("user0", "pw"), HOME), Deferred)
    assert checker.asked == 6
    assert len(authenticator._verified) == 3


def test_keeping_again_replaces_an_entry(clock: Clock) -> None:
    """A second success of a credential takes no second place, and pushes nobody out."""
    cache = VerifiedCredentials(Groups(), clock, capacity=2)
    for name in (b"a", b"b", b"b"):
        cache.keep(cache.key(name), User("ci", frozenset()), name, None, None)

    assert cache.find(cache.key(b"a")) is not None
    assert cache.find(cache.key(b"b")) is not None


def test_without_a_version_success_has_an_end(clock: Clock) -> None:
    """A checker that has nothing to rest an entry on gets the time limit, too."""

    @implementer(IVersionedChecker)
    class Versionless:
        def version_of(self, username: bytes) -> object | None:
            return None

    cache = VerifiedCredentials(Groups(), clock)
    cache.keep(b"key", User("ci", frozenset()), b"ci", Versionless(), None)
    assert cache.find(b"key") is not None

    clock.advance(TTL)

    assert cache.find(b"key") is None


def test_f01_the_cache_holds_no_password(
    house: House, basic: Basic, clock: Clock, write: Write
) -> None:
    """Keys are made with a key of this process's own; neither header nor password is kept."""
    header = basic("ci", "one")
    house.authenticate(header)
    assert house.hashed == 1

    entries = house.authenticator._verified._entries
    gc.collect()
    held: list[Any] = list(entries)
    for entry in entries.values():
        held += [getattr(entry, slot) for slot in entry.__slots__]

    assert len(entries) == 1
    assert header not in held
    assert not any(value in (b"one", "one") for value in held)
    other = VerifiedCredentials(Groups(), clock)
    assert other.key(header) != house.authenticator._verified.key(header)
    assert other.key(header) == other.key(bytes(header))


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


# -- the throttle and the audit ----------------------------------------------------------------


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

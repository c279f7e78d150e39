"""regguard.auth.verified: what a verified credential is worth, and for how long."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from regguard.auth.audit import Audit
from regguard.auth.authenticator import Authenticator
from regguard.auth.interfaces import AvatarId, IVersionedChecker, Unauthenticated
from regguard.auth.realm import Groups, Realm, User
from regguard.auth.verified import TTL, VerifiedCredentials
from regguard.files import POLL_INTERVAL, FileWatcher
from tests.auth.house import (
    HOME,
    ONE,
    ONE_AGAIN,
    TWO,
    Basic,
    House,
    Outcome,
    Scripted,
    Write,
    make,
    refuse,
    started,
)


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

"""regguard.auth.realm: the avatar and the groups file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.cred.checkers import ANONYMOUS
from twisted.cred.portal import IRealm
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from regguard.auth.interfaces import AvatarId, IUser
from regguard.auth.realm import Groups, Realm, User, parse_groups
from regguard.files import POLL_INTERVAL, FileError, FileWatcher

Write = Callable[..., str]


def test_interfaces() -> None:
    """Realm and user are what they say."""
    verifyObject(IRealm, Realm(Groups()))
    verifyObject(IUser, User("ci", frozenset()))


def test_groups_are_read_as_apache_reads_them(write: Write) -> None:
    """name: user user; a repeated group adds to itself, a user may be in many."""
    groups = Groups(write("# who\npusher: ci  alice\nops:bob\r\n\npusher: bob\nempty:\n"))

    assert groups.of("ci") == {"pusher"}
    assert groups.of("bob") == {"pusher", "ops"}
    assert groups.of("eve") == frozenset()
    assert set(groups.table.members) == {"pusher", "ops", "empty"}
    assert repr(groups.table) == "3 groups of 3 users"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a:", "1 group of 0 users"),
        ("a: x", "1 group of 1 user"),
        ("a: x\nb: x", "2 groups of 1 user"),
        ("# nobody", "0 groups of 0 users"),
    ],
)
def test_the_log_counts_in_good_english(text: str, shown: str) -> None:
    """One is one group, one user; nothing is none of many."""
    assert repr(parse_groups(text.encode(), "auth/groups")) == shown


def test_without_a_file_nobody_is_in_a_group() -> None:
    """No groups file: no groups."""
    assert Groups().of("ci") == frozenset()
    assert Groups().file is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pusher: a\npusher b\n", "groups:2: no colon: write 'group: user user'"),
        (": a", "groups:1: write one group name"),
        ("two words: a", "groups:1: write one group name"),
        ("a,b: c", "groups:1: write one group name"),
        ("pusher: a, b", "groups:1: write user names with blanks between"),
        ('pusher: "a b"', "groups:1: write user names with blanks between"),
        ("pusher: a ops: b", "groups:1: write user names with blanks between"),
    ],
)
def test_e18_a_groups_file_that_says_something_else_is_refused(text: str, reason: str) -> None:
    """Errors name file, line and cure."""
    with pytest.raises(FileError, match=reason):
        parse_groups(text.encode(), "auth/groups")


def test_d17_a_reload_changes_groups(write: Write, watcher: FileWatcher, clock: Clock) -> None:
    """Who was taken out of a group is out of it: the table is replaced, never merged."""
    groups = Groups(write("pusher: ci bob", "groups"))
    assert groups.file is not None
    watcher.watch(groups.file)

    write("pusher: bob", "groups")
    clock.advance(POLL_INTERVAL)

    assert groups.of("ci") == frozenset()
    assert groups.of("bob") == {"pusher"}


def test_the_realm_gives_a_user_with_groups(write: Write) -> None:
    """The avatar has the checked name and the groups of that name; logging out is a no-op."""
    interface, user, logout = Realm(Groups(write("pusher: ci"))).requestAvatar(b"ci", None, IUser)

    logout()
    assert interface is IUser
    assert (user.name, user.groups) == ("ci", frozenset({"pusher"}))
    assert repr(user) == "<User 'ci'>"


@pytest.mark.parametrize("name", [ANONYMOUS, b"", b"a\r\nX-Forwarded-User: root", b"\xff", "ci"])
def test_the_realm_refuses_what_is_no_name(name: object) -> None:
    """A checker's mistake ends here: no avatar without a clean name."""
    with pytest.raises(ValueError, match=r"checker|decode"):
        Realm(Groups()).requestAvatar(name, None, IUser)  # type: ignore[arg-type]


def test_the_realm_has_one_kind_of_avatar() -> None:
    """Other interfaces are not implemented, as twisted.cred wants it said."""
    with pytest.raises(NotImplementedError):
        Realm(Groups()).requestAvatar(b"ci", None, IRealm)


def test_groups_of_a_checker_count_beside_those_of_the_file(write: Write) -> None:
    """An avatar ID may carry groups; whose ID is plain has the file's only."""
    realm = Realm(Groups(write("pusher: ci")))

    _, user, _ = realm.requestAvatar(AvatarId("ci", ["devs"]), None, IUser)

    assert user.groups == {"pusher", "devs"}
    assert user.supplied == {"devs"}
    assert AvatarId("Zoë", []) == "Zoë".encode()

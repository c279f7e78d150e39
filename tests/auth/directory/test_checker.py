"""regguard.auth.directory.checker: what is asked, of whom, for how long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IService
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from regguard.auth.directory import checker as module
from regguard.auth.directory.checker import DEADLINE, REPEAT, DirectoryChecker
from regguard.auth.directory.session import DirectoryError, Entry, Refused
from regguard.auth.directory.settings import Server, parse_settings
from regguard.auth.interfaces import (
    AvatarId,
    IGroupSource,
    IServedChecker,
    Unavailable,
)

PEOPLE = "ou=people,dc=x"
ALICE = Entry(f"uid=alice,{PEOPLE}", {"uid": ["alice"], "memberof": ["CN=Devs,OU=g,DC=x"]})
SEARCHING = f"ldaps://one,two/{PEOPLE}"


class FakeSession:
    """A directory of one password; it tells what it is asked."""

    def __init__(self, asked: list[tuple[str, ...]]) -> None:
        self.asked = asked
        self.found: Sequence[Entry] = [ALICE]
        self.groups: Sequence[Entry] = []

    def bind(self, dn: str, password: bytes, seconds: float) -> None:
        self.asked.append(("bind", dn))
        if password != b"right":
            raise Refused

    def search(
        self, base: str, scope: str, condition: str, attributes: Sequence[str], *_: Any, **__: Any
    ) -> Sequence[Entry]:
        self.asked.append(("search", base, scope, condition))
        return self.groups if attributes == ["cn"] else self.found


class FakeLines:
    """Lines on which everything is done at once, or fails, or hangs."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.servers: list[str] = []
        self.session = FakeSession(self.asked)
        self.down: dict[str, Callable[[], Any]] = {}

    async def alone(self, server: Server, work: Callable[[Any], Any]) -> Any:
        self.servers.append(server.host)
        if server.host in self.down:
            await self.down[server.host]()
        return work(self.session)

    async def shared(self, server: Server, work: Callable[[Any], Any], seconds: float) -> Any:
        return await self.alone(server, work)


async def refuse_connection() -> None:
    raise DirectoryError("connection refused")


async def hang() -> None:
    await Deferred()


class House:
    """A checker on fake lines."""

    def __init__(self, argument: str, lines: FakeLines, clock: Clock) -> None:
        self.lines = lines
        self.clock = clock
        self.checker = DirectoryChecker(parse_settings(argument))
        self.checker.serve(clock)

    def ask(self, name: str = "alice", password: str = "right") -> list[Any]:
        """Log in; the list gets the outcome as soon as there is one."""
        outcome: list[Any] = []
        credentials = UsernamePassword(name.encode(), password.encode())
        self.checker.requestAvatarId(credentials).addCallbacks(
            outcome.append, lambda failure: outcome.append(failure.value)
        )
        return outcome


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[..., House]:
    """Make a house of an argument of --auth ldap:."""

    def build(argument: str = SEARCHING) -> House:
        lines = FakeLines()
        monkeypatch.setattr(module, "Lines", lambda *_: lines)
        return House(argument, lines, Clock())

    return build


def test_interfaces() -> None:
    """It is a checker that has a service and knows groups."""
    checker = DirectoryChecker(parse_settings(SEARCHING))

    verifyObject(ICredentialsChecker, checker)
    verifyObject(IServedChecker, checker)
    verifyObject(IGroupSource, checker)
    assert IService.providedBy(checker.serve(Clock()))


def test_who_is_found_and_bound_is_admitted(build: Callable[..., House]) -> None:
    """The name is the entry's, the groups are its memberOf by CN and DN."""
    house = build()

    (avatar,) = house.ask("ALICE ")

    assert avatar == b"alice"
    assert isinstance(avatar, AvatarId)
    assert avatar.groups == {"Devs", "cn=devs,ou=g,dc=x"}
    assert house.lines.asked == [
        ("search", PEOPLE, "sub", "(&(objectClass=*)(uid=ALICE ))"),
        ("bind", ALICE.dn),
    ]


@pytest.mark.parametrize("found", [[], [ALICE, ALICE]])
def test_e10_who_is_not_found_is_tried_all_the_same(
    found: list[Entry], build: Callable[..., House]
) -> None:
    """Unknown or ambiguous: as many questions as for a wrong password, and the same answer."""
    house = build()
    house.lines.session.found = found

    (outcome,) = house.ask(password="right")

    assert isinstance(outcome, UnauthorizedLogin)
    assert house.lines.asked[-1] == ("bind", f"cn=nobody,{PEOPLE}")


def test_e20_what_is_special_in_a_filter_is_escaped(build: Callable[..., House]) -> None:
    """RFC 4515 section 3."""
    house = build()

    house.ask("*)(uid=*")

    assert house.lines.asked[0][-1] == r"(&(objectClass=*)(uid=\2a\29\28uid=\2a))"


def test_e20_what_is_special_in_a_dn_is_escaped(build: Callable[..., House]) -> None:
    """RFC 4514 section 2.4."""
    house = build(f"ldaps://one;user-dn=uid={{user}},{PEOPLE}")

    house.ask("alice,ou=old")

    assert house.lines.asked[0] == ("bind", rf"uid=alice\,ou\=old,{PEOPLE}")


@pytest.mark.parametrize(("name", "password"), [("alice", ""), ("", "right")])
def test_e20_without_a_password_nobody_is_asked(
    name: str, password: str, build: Callable[..., House]
) -> None:
    """RFC 4513 section 5.1.2: the server would say yes, to nobody."""
    house = build()

    (outcome,) = house.ask(name, password)

    assert isinstance(outcome, UnauthorizedLogin)
    assert house.lines.servers == []


@pytest.mark.parametrize(
    ("values", "said", "name"),
    [
        (["alice"], "a.person@example.org", "alice"),
        ([" Alice  B "], "alice b", "Alice B"),
        (["al", "Alice"], "ALICE", "Alice"),
        (["al", "alice"], "lice", None),
        ([], "alice", None),
        (["al\nice"], "alice", None),
        (["  "], "alice", None),
    ],
)
def test_the_name_is_that_of_the_entry(
    values: list[str], said: str, name: str | None, build: Callable[..., House]
) -> None:
    """One name, that can be printed; where there is no such one, there is no telling who it is."""
    house = build()
    house.lines.session.found = [Entry(ALICE.dn, {"uid": values})]

    with capturedLogs():
        (outcome,) = house.ask(said)

    if name is None:
        assert isinstance(outcome, Unavailable)
    else:
        assert outcome == name.encode()


def test_groups_that_could_pass_for_others_count_by_dn_only(build: Callable[..., House]) -> None:
    """Who may name a group must not choose the DN that it has in a rule."""
    listed = [r"cn=cn\=devs\,ou\=g\,dc\=x,ou=mine,dc=x", "no DN", "ou=staff,dc=x"]
    house = build()
    house.lines.session.found = [Entry(ALICE.dn, {"uid": ["alice"], "memberof": listed})]

    (avatar,) = house.ask()

    assert avatar.groups == {r"cn=cn\3ddevs\2cou\3dg\2cdc\3dx,ou=mine,dc=x", "ou=staff,dc=x"}


@pytest.mark.parametrize("name", ["cn=#04024869,dc=x", "1.2.3=#04024869,dc=x", "", "devs"])
def test_a_found_group_whose_dn_is_beyond_rules_is_left_out(
    name: str, build: Callable[..., House]
) -> None:
    """The user has his other groups all the same."""
    house = build(SEARCHING + ";group-base=ou=g,dc=x;group-filter=(member={dn})")
    house.lines.session.groups = [
        Entry(name, {"cn": ["devs"]}),
        Entry("cn=ops,ou=g,dc=x", {"cn": ["ops"]}),
    ]

    (avatar,) = house.ask()

    assert avatar.groups == {"ops", "cn=ops,ou=g,dc=x"}


def test_groups_elsewhere_do_not_count(build: Callable[..., House]) -> None:
    """``group-base`` holds for memberOf as well."""
    house = build(SEARCHING + ";group-base=OU=other,DC=x")

    (avatar,) = house.ask()

    assert avatar.groups == frozenset()


def test_groups_are_searched_for_who_is_verified_only(build: Callable[..., House]) -> None:
    """By the DN and the directory's name of the user, both escaped."""
    house = build(SEARCHING + ";group-base=ou=g,dc=x;group-filter=(|(member={dn})(uid={user}))")
    house.lines.session.found = [Entry("uid=a(b,dc=x", {"uid": ["a(b"]})]
    house.lines.session.groups = [Entry("cn=devs,ou=g,dc=x", {"cn": ["devs", "Developers"]})]

    house.ask("A(B", "wrong")
    assert len(house.lines.asked) == 2
    (avatar,) = house.ask("A(B")

    condition = r"(|(member=uid=a\28b,dc=x)(uid=a\28b))"
    assert house.lines.asked[-1] == ("search", "ou=g,dc=x", "sub", condition)
    assert avatar.groups == {"devs", "Developers", "cn=devs,ou=g,dc=x"}


def test_the_next_server_is_asked_and_kept(build: Callable[..., House]) -> None:
    """The one that answered is asked first the next time; a refusal is an answer."""
    house = build()
    house.lines.down["one"] = refuse_connection

    (outcome,) = house.ask(password="wrong")
    assert isinstance(outcome, UnauthorizedLogin)
    assert house.lines.servers == ["one", "two", "two"]
    house.ask()
    assert house.lines.servers[3:] == ["two", "two"]


def test_a_silent_server_leaves_time_for_the_next(build: Callable[..., House]) -> None:
    """Each one has an equal share of what is left."""
    house = build()
    house.lines.down["one"] = hang

    outcome = house.ask()
    house.clock.advance(DEADLINE / 2 - 0.01)
    assert not outcome
    house.clock.advance(0.01)

    assert outcome == [b"alice"]


def test_e20_all_silent_is_undecided_at_the_deadline(build: Callable[..., House]) -> None:
    """In time for docker's login, which gives up after 15 s; no timer is left."""
    house = build()
    house.lines.down = {"one": hang, "two": hang}

    outcome = house.ask()
    with capturedLogs() as logged:
        house.clock.advance(DEADLINE / 2)
        assert not outcome
        house.clock.advance(DEADLINE / 2)

    assert isinstance(outcome[0], Unavailable)
    assert not house.clock.getDelayedCalls()
    (event,) = logged
    assert event["reason"] == "ldaps://one:636: no answer in 4 s; ldaps://two:636: no answer in 4 s"


def test_who_hangs_up_ends_the_asking(build: Callable[..., House]) -> None:
    """A cancelled log-in goes to no other server, and leaves no timer."""
    house = build()
    house.lines.down["one"] = hang
    credentials = UsernamePassword(b"alice", b"right")

    asking = house.checker.requestAvatarId(credentials)
    asking.cancel()
    asking.addErrback(lambda _: None)

    assert house.lines.servers == ["one"]
    assert not house.clock.getDelayedCalls()


def test_an_outage_is_told_once_a_minute_and_its_end_once(build: Callable[..., House]) -> None:
    """Not for each of the log-ins that fail meanwhile."""
    house = build()
    house.lines.down = {"one": refuse_connection, "two": refuse_connection}

    def told(outcome: Callable[[], Any]) -> list[Any]:
        with capturedLogs() as logged:
            outcome()
        return [event["log_level"] for event in logged]

    assert told(house.ask) == [LogLevel.error]
    assert told(house.ask) == []
    house.clock.advance(REPEAT)
    assert told(house.ask) == [LogLevel.error]
    house.lines.down = {}
    assert told(house.ask) == [LogLevel.info]
    assert told(house.ask) == []


def test_direct_bind_reads_the_users_own_entry(build: Callable[..., House]) -> None:
    """Name and groups come from it; who may not read it has no name."""
    house = build(f"ldaps://one;user-dn=uid={{user}},{PEOPLE}")

    (avatar,) = house.ask("Alice")
    assert (avatar, avatar.groups) == (b"alice", {"Devs", "cn=devs,ou=g,dc=x"})
    assert house.lines.asked[1] == ("search", f"uid=Alice,{PEOPLE}", "base", "(objectClass=*)")

    house.lines.session.found = []
    with capturedLogs():
        (outcome,) = house.ask("Alice")
    assert isinstance(outcome, Unavailable)


def test_without_a_reactor_it_cannot_say() -> None:
    """Fail closed: neither yes nor no."""
    checker = DirectoryChecker(parse_settings(SEARCHING))
    outcome: list[Any] = []

    asking = checker.requestAvatarId(UsernamePassword(b"a", b"b"))
    asking.addErrback(lambda failure: outcome.append(failure.value))

    assert isinstance(outcome[0], Unavailable)


@pytest.mark.parametrize(
    ("argument", "warned"),
    [
        ("ldap://ldap.example.org/dc=x", True),
        ("ldap://127.0.0.1.example.org/dc=x", True),
        ("ldap://127.0.0.1,ldap.example.org/dc=x", True),
        ("ldap://[::1],localhost,127.0.0.2/dc=x", False),
        ("ldap://127.0.0.1/dc=x", False),
        ("ldap://ldap.example.org/dc=x;starttls", False),
        ("ldaps://ldap.example.org/dc=x", False),
    ],
)
def test_passwords_in_clear_text_are_warned_of(argument: str, warned: bool) -> None:
    """Over a network, that is."""
    assert bool(DirectoryChecker(parse_settings(argument)).warnings) == warned


@pytest.mark.parametrize(
    ("content", "cure"),
    [(None, "cannot be read"), ("", "its first line"), ("\n", "its first line")],
)
def test_a_bad_password_file_is_told_at_the_start(
    content: str | None, cure: str, tmp_path: Path
) -> None:
    """With file and cure."""
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    words = f"ldaps://one/dc=x;bind-dn=cn=a;bind-password-file={file}"

    with pytest.raises(ValueError, match=f"bind-password-file {file}: {cure}"):
        DirectoryChecker(parse_settings(words))


def test_a_bad_ca_is_told_at_the_start(tmp_path: Path) -> None:
    """With file and cure."""
    (tmp_path / "ca").write_text("no certificate")

    with pytest.raises(ValueError, match=r"ca .*: holds no PEM certificate"):
        DirectoryChecker(parse_settings(f"ldaps://one/dc=x;ca={tmp_path / 'ca'}"))

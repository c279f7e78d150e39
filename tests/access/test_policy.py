"""regguard.access.policy: who may do what, and what a denial says."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

import pytest

from regguard.access import Denial, Grant, Policy, Who, parse_access

D = b"sha256:" + b"0123456789abcdef" * 4
NO_GROUPS: frozenset[str] = frozenset()
PUSHER = frozenset({"pusher"})

PING = parse_access(b"GET", b"/v2/")
PULL = parse_access(b"GET", b"/v2/team/app/manifests/v1")
PUSH = parse_access(b"PUT", b"/v2/team/app/manifests/v1")
DELETE = parse_access(b"DELETE", b"/v2/team/app/manifests/v1")
CATALOG = parse_access(b"GET", b"/v2/_catalog")
MOUNT = parse_access(b"POST", b"/v2/team/app/blobs/uploads/?mount=" + D + b"&from=secret")


def granted(verdict: Grant | Denial) -> bytes:
    assert isinstance(verdict, Grant)
    return verdict.target


def message(verdict: Grant | Denial) -> str:
    assert isinstance(verdict, Denial)
    return verdict.message


@pytest.mark.parametrize(
    ("text", "canonical", "users", "groups", "everyone"),
    [
        ("valid-user", "valid-user", set(), set(), True),
        ("nobody", "nobody", set(), set(), False),
        ("group:pusher", "group:pusher", set(), {"pusher"}, False),
        (" group:a ,user: b,group:a", "group:a, user:b", {"b"}, {"a"}, False),
        ("valid-user, user:ci", "valid-user, user:ci", {"ci"}, set(), True),
        ("user:nobody", "user:nobody", {"nobody"}, set(), False),
    ],
)
def test_who_is_a_comma_list(
    text: str, canonical: str, users: AbstractSet[str], groups: AbstractSet[str], everyone: bool
) -> None:
    """WHO reads its four words and keeps the names that it mentions."""
    who = Who.parse(text)

    assert (who.text, who.users, who.groups, who.everyone) == (canonical, users, groups, everyone)
    assert Who.parse(who.text) == who


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("pusher", "write user:pusher or group:pusher, valid-user or nobody"),
        ("", "nothing between two commas"),
        ("group:a,", "nothing between two commas"),
        ("group:", "with a name"),
        ("user: ", "with a name"),
        ("role:admin", "write user:NAME or group:NAME"),
        ("nobody, group:a", "nobody stands alone"),
        ("valid-user:x", "write user:NAME or group:NAME"),
        ("Valid-User", "valid-user or nobody"),
    ],
)
def test_who_says_the_cure_in_one_line(text: str, cure: str) -> None:
    """A word that is not understood never admits anybody; the error says what to write."""
    with pytest.raises(ValueError, match=cure) as caught:
        Who.parse(text)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "groups", "admitted"),
    [
        ("valid-user", "ci", NO_GROUPS, True),
        ("nobody", "ci", PUSHER, False),
        ("user:ci", "ci", NO_GROUPS, True),
        ("user:ci", "ci2", NO_GROUPS, False),
        ("user:ci", "CI", NO_GROUPS, False),
        ("group:pusher", "ci", PUSHER, True),
        ("group:pusher", "pusher", NO_GROUPS, False),
        ("user:pusher", "ci", PUSHER, False),
        ("user:ci, group:pusher", "eve", PUSHER, True),
    ],
)
def test_who_admits_exactly_its_members(
    text: str, name: str, groups: frozenset[str], admitted: bool
) -> None:
    """Users are admitted by their own name or group, and by nothing that resembles it."""
    assert Who.parse(text).admits(name, groups) is admitted


def test_d17_by_default_everybody_pulls_and_pushers_push() -> None:
    """A user without a group pulls and lists; pushing and deleting take the group pusher."""
    policy = Policy()

    for access in (PING, PULL, CATALOG):
        assert granted(policy.decide("ci", NO_GROUPS, access)) == access.target
    for access in (PUSH, DELETE):
        assert isinstance(policy.decide("ci", NO_GROUPS, access), Denial)
        assert granted(policy.decide("ci", PUSHER, access)) == access.target


def test_d11_each_action_has_its_own_right() -> None:
    """No right implies another."""
    accesses = {"pull": PULL, "push": PUSH, "delete": DELETE, "catalog": CATALOG}
    nobody = Who.parse("nobody")
    ci = Who.parse("user:ci")
    for granted in accesses:
        pull, push, delete, catalog = (ci if a == granted else nobody for a in accesses)
        policy = Policy(pull, push, delete, catalog)
        for action, access in accesses.items():
            verdict = policy.decide("ci", NO_GROUPS, access)

            assert isinstance(verdict, Grant) is (action == granted)


def test_login_is_for_every_user() -> None:
    """The login check succeeds even for a user who may do nothing."""
    nobody = Who.parse("nobody")

    verdict = Policy(nobody, nobody, nobody, nobody).decide("ci", NO_GROUPS, PING)

    assert granted(verdict) == b"/v2/"


def test_a_denial_teaches() -> None:
    """The message names user, rights, action, repository and rule."""
    nobody = Who.parse("nobody")

    assert message(Policy().decide("ci", NO_GROUPS, PUSH)) == (
        "user ci may pull but not push team/app: push needs group:pusher"
    )
    assert message(Policy(delete=nobody).decide("ci", PUSHER, DELETE)) == (
        "user ci may pull and push but not delete team/app: delete is open to nobody"
    )
    assert message(Policy(pull=Who.parse("user:a, group:b")).decide("ci", NO_GROUPS, PULL)) == (
        "user ci may not pull team/app: pull needs user:a, group:b"
    )
    assert message(Policy(catalog=nobody).decide("ci", NO_GROUPS, CATALOG)) == (
        "user ci may not list the catalog: catalog is open to nobody"
    )


def test_a_denial_carries_its_rule() -> None:
    """The rule stands apart from the sentence, for the answer's detail and the log."""
    verdict = Policy().decide("ci", NO_GROUPS, PUSH)

    assert isinstance(verdict, Denial)
    assert verdict.rule == "push = group:pusher"


def test_d01_a_mount_needs_pull_on_its_source() -> None:
    """Who may not read the source starts a plain upload instead, and the push goes on."""
    readers = Policy(pull=Who.parse("group:reader"), push=Who.parse("valid-user"))

    assert granted(readers.decide("ci", frozenset({"reader"}), MOUNT)) == MOUNT.target
    assert granted(readers.decide("ci", NO_GROUPS, MOUNT)) == b"/v2/team/app/blobs/uploads/"


def test_a_grant_carries_its_rule_and_no_condition() -> None:
    """A log can tell which words let something pass; without tag rules nothing is asked back."""
    policy = Policy(said={"push": "regguard.toml:3", "catalog": "--catalog"})

    assert policy.decide("ci", PUSHER, PUSH) == Grant(
        PUSH.target, "regguard.toml:3: push = group:pusher"
    )
    assert policy.decide("ci", PUSHER, CATALOG) == Grant(
        CATALOG.target, "--catalog: catalog = valid-user"
    )
    assert policy.decide("ci", PUSHER, PULL) == Grant(PULL.target, "pull = valid-user")
    assert policy.decide("ci", PUSHER, PING) == Grant(PING.target, "login = valid-user")


def test_d01_a_mount_is_a_push_first() -> None:
    """Who may not push is denied whatever the mount's source."""
    assert isinstance(Policy().decide("ci", NO_GROUPS, MOUNT), Denial)


@pytest.mark.parametrize(
    ("text", "groups", "canonical"),
    [
        ('group:"Domain Admins"', {"Domain Admins"}, 'group:"Domain Admins"'),
        (
            ' group:"CN=Devs, OU=G,DC=x" ,user:a',
            {"cn=devs,ou=g,dc=x"},
            'group:"CN=Devs, OU=G,DC=x", user:a',
        ),
        # Without quotes it is a name like any other.
        ("group:a=b", {"a=b"}, "group:a=b"),
    ],
)
def test_a_quoted_name_may_hold_commas_and_be_a_dn(
    text: str, groups: set[str], canonical: str
) -> None:
    """A DN is compared in its canonical spelling and shown as it was written."""
    who = Who.parse(text)

    assert who.groups == groups
    assert who.text == canonical


def test_a_quoted_user_may_hold_a_comma() -> None:
    """Directories have such names."""
    assert Who.parse('user:"Doe, Jane"').users == {"Doe, Jane"}


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ('group:"cn=a,dc=x', "a quote that is not closed"),
        ('group:a"b"', "quotes around the whole name, or none"),
        ('group:"a""b"', "quotes around the whole name, or none"),
        ('group:""', "write user:NAME or group:NAME with a name"),
        ('group:"cn=a,nonsense"', "no distinguished name"),
        ("group:cn=a,dc=x", 'all of it in quotes: group:"cn=...,dc=x"'),
    ],
)
def test_a_dn_said_wrongly_is_told_how(text: str, cure: str) -> None:
    """The usual slip is to leave the quotes out."""
    with pytest.raises(ValueError, match=re.escape(cure)):
        Who.parse(text)


def test_a_denial_shows_the_dn_as_it_was_written() -> None:
    """Who reads it finds it in the configuration."""
    policy = Policy(push=Who.parse('group:"CN=Devs,DC=x"'))

    denial = policy.decide("ci", frozenset({"Devs"}), PUSH)

    assert message(denial).endswith('push needs group:"CN=Devs,DC=x"')

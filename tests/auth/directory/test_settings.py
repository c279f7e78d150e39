"""regguard.auth.directory.settings: the argument of --auth ldap:."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regguard.auth.directory.settings import DirectorySettings, Server, filled, parse_settings
from regguard.auth.factory import DirectoryCheckerFactory


def test_the_shortest_form() -> None:
    """A host and a base: users are found by uid, groups by memberOf."""
    assert parse_settings("ldaps://ldap.example.org/ou=people,dc=x") == DirectorySettings(
        servers=(Server("ldap.example.org", 636, True),), base="ou=people,dc=x"
    )


def test_everything_at_once() -> None:
    """RFC 4516 before the first semicolon, key=value behind it, blanks and line ends anywhere."""
    known = parse_settings(
        "ldap://one.example:3389,[2001:db8::1],10.0.0.1/"
        "ou=R%26D,dc=x?sAMAccountName?one?(&(objectClass=user)(!(a=b)))\n"
        "; starttls; ca=/etc/ca.crt;bind-dn=CN=Reg Guard,OU=Service Accounts,DC=x\n"
        ";bind-password-file = /etc/password;name=cn;group-base=ou=g,dc=x;"
        "group-filter=(|(member={dn})(memberUid={user}));"
    )

    assert known == DirectorySettings(
        servers=(
            Server("one.example", 3389, False),
            Server("2001:db8::1", 389, False),
            Server("10.0.0.1", 389, False),
        ),
        starttls=True,
        ca=Path("/etc/ca.crt"),
        base="ou=R&D,dc=x",
        attribute="sAMAccountName",
        scope="one",
        filter="(&(objectClass=user)(!(a=b)))",
        bind_dn="CN=Reg Guard,OU=Service Accounts,DC=x",
        bind_password_file=Path("/etc/password"),
        name="cn",
        group_base="ou=g,dc=x",
        group_filter="(|(member={dn})(memberUid={user}))",
    )
    assert str(known) == (
        "ldap://one.example:3389, ldap://[2001:db8::1]:389, ldap://10.0.0.1:389 with StartTLS"
    )


def test_the_name_is_what_users_log_in_by() -> None:
    """Unless another attribute is said to hold it."""
    assert parse_settings("ldaps://a/dc=x?mail").name == "mail"
    assert parse_settings("ldaps://a/dc=x?mail;name=uid").name == "uid"


def test_the_examples_of_the_help_are_understood() -> None:
    """What the operator copies works."""
    text = DirectoryCheckerFactory.authHelp
    examples = re.findall(r"--auth 'ldap:(.*?)'", text, re.DOTALL)

    assert len(examples) == 2
    for example in examples:
        assert parse_settings(example) == parse_settings(re.sub(r"\n *", "", example))


@pytest.mark.parametrize(
    ("argument", "cure"),
    [
        ("", "write ldaps://HOST/BASE?uid"),
        ("ldap.example.org", "write ldaps://HOST/BASE?uid"),
        ("http://a/dc=x", "write ldaps://HOST/BASE?uid"),
        ("ldaps:///dc=x", "'': is no host"),
        ("ldaps://a,/dc=x", "'': is no host"),
        ("ldaps://a:0/dc=x", "'a:0': is no host"),
        ("ldaps://a:99999/dc=x", "'a:99999': is no host"),
        ("ldaps://user@a/dc=x", "'user@a': is no host"),
        ("ldaps://a..b/dc=x", "'a..b': is no host"),
        ("ldaps://a_b/dc=x", "'a_b': is no host"),
        ("ldaps://-a/dc=x", "'-a': is no host"),
        (f"ldaps://{'a' * 64}/dc=x", "aaa': is no host"),
        ("ldaps://[1::2::3]/dc=x", "'[1::2::3]': is no host"),
        ("ldaps://a", "where are the users?"),
        ("ldaps://a/people", "base 'people': no distinguished name"),
        ("ldaps://a/dc=x?u id", "attribute 'u id': is no attribute"),
        ("ldaps://a/dc=x?uid?all", "all: the scope is one of sub, one, base"),
        ("ldaps://a/dc=x?uid?sub?objectClass=user", "is no filter; write it in parentheses"),
        ("ldaps://a/dc=x?uid?sub?(a=b)(c=d)", "is no filter"),
        ("ldaps://a/dc=x?uid?sub?((a=b)", "is no filter"),
        ("ldaps://a/dc=x?uid?sub?(a=%00)", "is no filter"),
        ("ldaps://a/dc=x?uid?sub?(a=b)?starttls", "starttls: write what follows the filter as ;"),
        ("ldaps://a/dc=x;starttls", "ldaps:// is TLS from the start"),
        ("ldap://a/dc=x;starttls=yes", "starttls: takes no value"),
        ("ldap://a/dc=x;ca=/etc/ca", "ca: nothing is encrypted; write ldaps://"),
        ("ldaps://a/dc=x;ca=", "ca: write ca=VALUE"),
        ("ldaps://a/dc=x;ca=/a;ca=/b", "ca: given twice"),
        ("ldaps://a/dc=x;startls", "startls: unknown; did you mean starttls?"),
        ("ldaps://a/dc=x;zzz=1", "zzz: unknown; known: starttls, ca,"),
        ("ldaps://a/dc=x;bind-password=s3cret", "bind-password-file=FILE"),
        ("ldaps://a/dc=x;bind-dn=cn=a", "belong together"),
        ("ldaps://a/dc=x;bind-password-file=/a", "belong together"),
        ("ldaps://a/dc=x;bind-dn=a;bind-password-file=/a", "bind-dn 'a': no distinguished name"),
        ("ldaps://a;user-dn=uid=a,dc=x", "holds no {user}, so it would be the same for everybody"),
        ("ldaps://a;user-dn=uid={name},dc=x", "{name} is unknown; write {user}"),
        ("ldaps://a;user-dn={user}@example.com", "user-dn '{user}@example.com': no distinguished"),
        ("ldaps://a/dc=x;user-dn=uid={user},dc=x", "nothing is searched"),
        ("ldaps://a/dc=x;group-filter=(member={dn})", "Add ;group-base="),
        ("ldaps://a/dc=x;group-base=dc=x;group-filter=(a=b)", "holds no {user} or {dn}"),
        ("ldaps://a/dc=x;group-base=dc=x;group-filter=({uid})", "{uid} is unknown"),
        ("ldaps://a/dc=x;group-base=dc=x;group-filter=member={dn}", "is no filter"),
        ("ldaps://a/dc=x;group-base=dc=x;group-filter=({dn});groups=a", "leave out groups"),
        ("ldaps://a/dc=x;group-base=x", "group-base 'x': no distinguished name"),
        ("ldaps://a/dc=%ff", "as %XX is not UTF-8"),
    ],
)
def test_a_mistake_is_one_line_with_the_cure(argument: str, cure: str) -> None:
    """No message repeats a secret."""
    with pytest.raises(ValueError, match=re.escape(cure)) as caught:
        parse_settings(argument)

    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_values_are_put_in_once() -> None:
    """A user whose name looks like a place for another value stays what he is."""
    values = {"user": "{dn}", "dn": "cn=a"}

    assert (
        filled("(|(member={dn})(memberUid={user}))", values) == "(|(member=cn=a)(memberUid={dn}))"
    )

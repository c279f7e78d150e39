"""regguard.dn: many spellings, one name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regguard import dn


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [
        ("CN=Devs, OU=Groups ,DC=Example,DC=org", "cn=devs,ou=groups,dc=example,dc=org"),
        ("cn = devs", "cn=devs"),
        ("cn=  Two   Words ", "cn=two words"),
        (r"cn=Devs\, Berlin,dc=x", r"cn=devs\2c berlin,dc=x"),
        (r"cn=Devs\2C Berlin,dc=x", r"cn=devs\2c berlin,dc=x"),
        (r"cn=\C3\84rzte", "cn=ärzte"),
        ("cn=ÄRZTE", "cn=ärzte"),
        ("cn=A\u0308rzte", "cn=ärzte"),
        ("cn=STRASSE", "cn=strasse"),
        ("cn=Straße", "cn=strasse"),
        ("uid=b+cn=a,dc=x", "cn=a+uid=b,dc=x"),
        (r"cn=\#1", r"cn=\231"),
        (r"cn=a\ ", "cn=a"),
        (r"cn=a\\", r"cn=a\5c"),
        ("2.5.4.3=devs", "2.5.4.3=devs"),
        ("cn=", "cn="),
    ],
)
def test_spellings_of_one_name_are_equal(spelled: str, canonical: str) -> None:
    """RFC 4514 spells, RFC 4518 compares."""
    assert dn.canonical(spelled) == canonical
    assert dn.canonical(canonical) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *("", "devs", "cn", "=devs", "c_n=a", "cn=a,", "cn=a,,dc=x", "cn=a;dc=x"),
        *('cn="a"', "cn=a<b", "cn=a\\", "cn=#04024869", r"cn=\ff", "cn=a\0"),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """One reading, or none."""
    with pytest.raises(ValueError, match=r"distinguished name|octets"):
        dn.canonical(text)


def test_an_escaped_comma_leads_nowhere_else() -> None:
    """What reads like another branch is one value."""
    disguised = dn.canonical(r"cn=devs\,ou=groups\,dc=x")

    assert not dn.is_below(disguised, dn.canonical("dc=x"))
    assert dn.is_below(dn.canonical("cn=devs,ou=groups,dc=x"), dn.canonical("DC=X"))
    assert not dn.is_below("dc=x", "dc=x")


def test_parts_keep_their_spelling() -> None:
    """A group's name is read out of its DN as it stands there."""
    assert dn.parse(r"CN=Devs\, Berlin+L=b,dc=X") == (
        (("cn", "Devs, Berlin"), ("l", "b")),
        (("dc", "X"),),
    )


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_every_value_can_be_spelled(value: str) -> None:
    """Escaped in hexadecimal any text is one value, and the canonical spelling is stable."""
    spelled = "".join(f"\\{octet:02x}" for octet in value.encode())
    name = dn.canonical(f"cn={spelled}")

    assert dn.canonical(name) == name
    ((pair,),) = dn.parse(name)
    assert pair[0] == "cn"

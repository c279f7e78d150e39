"""regguard.auth.directory.session: what the LDAP library says, in this room's words."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import ldap
import pytest

from regguard.auth.directory.session import DirectoryError, Refused, Session

ENTRY = ("uid=alice,dc=x", {"UID": [b"alice"], "photo": [b"\xff"]})
REFERENCE = (None, ["ldap://elsewhere/dc=y"])


class Library:
    """A library that finds entries and then ends the search, or a bind, as told."""

    timeout = 0.0

    def __init__(self, *found: Any, end: type[ldap.LDAPError] | None = None) -> None:
        self._found = list(found)
        self._end = end

    def simple_bind_s(self, dn: str, password: bytes) -> None:
        if self._end is not None:
            raise self._end

    def search_ext(self, *_: Any, **__: Any) -> int:
        return 1

    def result(self, *_: Any, **__: Any) -> tuple[int, list[Any]]:
        if self._found:
            return ldap.RES_SEARCH_ENTRY, [self._found.pop(0)]
        if self._end is not None:
            raise self._end
        return ldap.RES_SEARCH_RESULT, []


@pytest.fixture
def session() -> Iterator[Session]:
    """A session that nobody listens to."""
    ours, theirs = socket.socketpair()
    session = Session(ours)
    with theirs:
        yield session


def search(session: Session, library: Library, limit: int) -> list[str]:
    session._ldap = library
    return [entry.dn for entry in session.search("dc=x", "sub", "(a=b)", ["uid"], 1.0, limit)]


def test_references_are_no_entries(session: Session) -> None:
    """Values that are no text are left out, too."""
    session._ldap = Library(ENTRY, REFERENCE)

    (entry,) = session.search("dc=x", "sub", "(a=b)", ["uid"], 1.0)

    assert entry.attributes == {"uid": ["alice"], "photo": []}


def test_e20_one_entry_of_several_is_not_the_only_one(session: Session) -> None:
    """A server that lists fewer than it was asked for does not say who that is."""
    cut = ldap.SIZELIMIT_EXCEEDED

    assert search(session, Library(ENTRY, ENTRY, end=cut), 2) == [ENTRY[0]] * 2
    for found, limit in (([ENTRY], 2), ([], 2), ([ENTRY, ENTRY], 0)):
        with pytest.raises(DirectoryError, match="SIZELIMIT"):
            search(session, Library(*found, end=cut), limit)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (ldap.INVALID_CREDENTIALS, Refused),
        (ldap.INVALID_DN_SYNTAX, Refused),
        (ldap.UNWILLING_TO_PERFORM, Refused),
        (ldap.CONFIDENTIALITY_REQUIRED, DirectoryError),
        (ldap.REFERRAL, DirectoryError),
        (ldap.BUSY, DirectoryError),
        (ldap.SERVER_DOWN, DirectoryError),
        (ldap.TIMEOUT, DirectoryError),
    ],
)
def test_e20_only_who_was_looked_at_is_refused(
    end: type[ldap.LDAPError], outcome: type[Exception], session: Session
) -> None:
    """Any other end of a bind is no word on the password."""
    session._ldap = Library(end=end)

    with pytest.raises(outcome):
        session.bind("uid=alice,dc=x", b"password", 1.0)


@pytest.mark.parametrize(("dn", "password"), [("", b"x"), ("uid=alice,dc=x", b"")])
def test_e20_nobody_is_never_bound(dn: str, password: bytes, session: Session) -> None:
    """RFC 4513 section 5.1: without a name or a password a server says yes, to nobody."""
    session._ldap = Library()

    with pytest.raises(Refused):
        session.bind(dn, password, 1.0)

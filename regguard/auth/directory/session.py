"""What is said to a directory server: bind and search, by python-ldap, in a thread."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ldap
from ldap.dn import escape_dn_chars
from ldap.filter import escape_filter_chars

__all__ = [
    "DirectoryError",
    "Entry",
    "Refused",
    "Session",
    "escape_dn_chars",
    "escape_filter_chars",
]

# RFC 4511 appendix A.2, of a bind: who says so has looked at the user, and does not let him in.
# unwillingToPerform is 389 Directory Server's word for a locked account, and invalidDNSyntax is
# OpenLDAP's for a name that nobody can have (mail={user} is ASCII).
_REFUSALS = (
    ldap.INVALID_CREDENTIALS,
    ldap.INAPPROPRIATE_AUTH,
    ldap.NO_SUCH_OBJECT,
    ldap.INVALID_DN_SYNTAX,
    ldap.UNWILLING_TO_PERFORM,
    ldap.CONSTRAINT_VIOLATION,
)
_SCOPES = {"base": ldap.SCOPE_BASE, "one": ldap.SCOPE_ONELEVEL, "sub": ldap.SCOPE_SUBTREE}

# libldap would connect by itself when its connection is gone, in clear text, and send the password
# that it was about to send: so the address it has leads nowhere.
_NOWHERE = "ldapi://%2Fdev%2Fnull"


class DirectoryError(Exception):
    """The directory does not say whether a user is who he says; the message says why."""


class Refused(Exception):
    """The directory refuses a bind: wrong password, no such user, locked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was found: its DN, and its attributes' values (names in lower case)."""

    dn: str
    attributes: Mapping[str, Sequence[str]]


class Session:
    """LDAP over one connected socket, which it owns.  Everything here blocks."""

    def __init__(self, connected: socket.socket) -> None:
        self._ldap = ldap.initialize(_NOWHERE, fileno=connected.detach())
        self._ldap.set_option(ldap.OPT_REFERRALS, ldap.OPT_OFF)
        self._ldap.set_option(ldap.OPT_DEREF, ldap.DEREF_NEVER)

    def bind(self, dn: str, password: bytes, seconds: float) -> None:
        """Become somebody.

        :raises Refused: when the server does not let him in.
        :raises DirectoryError: for any other outcome.
        """
        # RFC 4513 section 5.1.2: without a password this would succeed, as nobody.
        if not (dn and password):
            raise Refused
        self._ldap.timeout = seconds
        try:
            self._ldap.simple_bind_s(dn, password)
        except _REFUSALS:
            raise Refused from None
        except ldap.LDAPError as error:
            raise DirectoryError(_words(error)) from None

    def search(
        self,
        base: str,
        scope: str,
        condition: str,
        attributes: Sequence[str],
        seconds: float,
        limit: int = 0,
    ) -> list[Entry]:
        """Find entries; references to other servers are not followed.

        :param limit: at most so many; one that is left out is as good as ambiguous, so finding
            more gives that many, too.  0: the server's own limit.
        :raises DirectoryError: when the server does not answer, or not with all there is.
        """
        found = []
        try:
            identity = self._ldap.search_ext(
                base, _SCOPES[scope], condition, list(attributes), sizelimit=limit
            )
            while True:
                kind, results = self._ldap.result(identity, all=0, timeout=seconds)
                found += results
                if kind == ldap.RES_SEARCH_RESULT:
                    break
        except ldap.SIZELIMIT_EXCEEDED as error:
            # The server's own limit may be lower, and one entry of several is not the only one.
            if not limit or len(found) < limit:
                raise DirectoryError(_words(error)) from None
        except ldap.LDAPError as error:
            raise DirectoryError(_words(error)) from None
        # A reference has no DN.
        return [Entry(dn, _decoded(values)) for dn, values in found if dn is not None]

    def close(self) -> None:
        """Say goodbye and close the socket; never fails."""
        with contextlib.suppress(ldap.LDAPError):
            self._ldap.unbind_s()


def _decoded(values: Mapping[str, Sequence[bytes]]) -> dict[str, list[str]]:
    """Attributes by lower-case name; values that are not text are left out."""
    decoded: dict[str, list[str]] = {}
    for name, octets in values.items():
        texts = decoded.setdefault(name.lower(), [])
        for each in octets:
            try:
                texts.append(each.decode("utf-8"))
            except UnicodeDecodeError:
                continue
    return decoded


def _words(error: ldap.LDAPError) -> str:
    """An LDAP error in a few words: what it is, and what the server adds."""
    if isinstance(error, ldap.TIMEOUT):
        return "no answer in time"
    told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    words = str(told.get("desc") or type(error).__name__)
    # A diagnostic message may have lines, and need not be printable.
    info = "".join(c if c.isprintable() else " " for c in str(told.get("info", "")))
    return f"{words} ({info})" if info else words

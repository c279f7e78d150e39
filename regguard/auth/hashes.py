"""One stored password hash: which schemes there are, what they cost, and does a password match.

Each scheme has a grammar here, and what fits none is refused: a hash library that does not know a
hash may well take it for the password itself. Verification is libpass's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from passlib.context import CryptContext
from passlib.exc import PasswordValueError

# bcrypt reads no further. What an implementation does with a longer password (bcrypt 5 raises,
# older ones cut it) must not decide whether two passwords are the same.
_BCRYPT_BYTES: Final = 72
# 14 takes 1.4 s; each step doubles it, and 31 would take two days ("htpasswDoS").
_BCRYPT_COST_LIMIT: Final = 14
# As long as bcrypt at 13; glibc's default is 5000, libpass's 656,000.
_SHA_ROUNDS_LIMIT: Final = 1_000_000
# What $5$ and $6$ do without "rounds=".
_SHA_ROUNDS_DEFAULT: Final = 5000

_CONTEXT = CryptContext(
    schemes=[
        "bcrypt",
        "apr_md5_crypt",
        "ldap_sha1",
        "ldap_salted_sha1",
        "sha256_crypt",
        "sha512_crypt",
    ]
)
# Otherwise the first verification loads bcrypt and tries it out, in whichever thread it runs.
_CONTEXT.handler("bcrypt").get_backend()

_SHA_CRYPT = r"(?:rounds=(?P<cost>[1-9][0-9]{3,8})\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]"
# The last characters of salt and checksum carry padding bits, which must be zero.
_BCRYPT = (
    r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./0-9A-Za-z]{21}[.Oeu][./0-9A-Za-z]{30}[.CGKOSWaeimquy26]"
)
# {SSHA} is base64 of a 20 byte digest and 4 to 16 bytes of salt.
_SSHA = (
    r"\{SSHA\}(?:[+/0-9A-Za-z]{4}){8,11}(?:[+/0-9A-Za-z]{4}|[+/0-9A-Za-z]{3}=|[+/0-9A-Za-z]{2}==)?"
)
_SCHEMES = tuple(
    (name, re.compile(pattern).fullmatch)
    for name, pattern in (
        ("bcrypt", _BCRYPT),
        ("apr1", r"\$apr1\$[./0-9A-Za-z]{0,8}\$[./0-9A-Za-z]{22}"),
        ("SHA", r"\{SHA\}[+/0-9A-Za-z]{27}="),
        ("SSHA", _SSHA),
        ("sha256-crypt", r"\$5\$" + _SHA_CRYPT + r"{43}"),
        ("sha512-crypt", r"\$6\$" + _SHA_CRYPT + r"{86}"),
    )
)


@dataclass(frozen=True, slots=True, repr=False)
class StoredHash:
    """A hash as it stands in a password file.

    ``cost`` is the scheme's own measure (bcrypt: the exponent; sha-crypt: rounds; else 0).
    """

    scheme: str
    cost: int
    text: str

    @classmethod
    def parse(cls, text: str) -> StoredHash:
        """Recognise a hash.

        :raises ValueError: with the reason and the cure, and without the hash itself, which may
            be somebody's password in plain text.
        """
        scheme, found = next(
            ((name, match) for name, matches in _SCHEMES if (match := matches(text))), ("", None)
        )
        if found is None:
            raise ValueError(
                "not a password hash that is known here (bcrypt, apr1, {SHA}, {SSHA}, $5$, $6$): "
                "make the line anew with htpasswd -B"
            )
        if scheme == "bcrypt":
            cost = int(found["cost"])
            if not 4 <= cost <= _BCRYPT_COST_LIMIT:
                raise ValueError(
                    f"bcrypt cost {cost}: one log-in would block a processor for long; "
                    f"make the line anew with a cost from 10 to {_BCRYPT_COST_LIMIT}"
                )
        elif scheme in ("sha256-crypt", "sha512-crypt"):
            cost = int(found["cost"] or _SHA_ROUNDS_DEFAULT)
            if cost > _SHA_ROUNDS_LIMIT:
                raise ValueError(
                    f"{scheme} with {cost} rounds: one log-in would block a processor for long; "
                    f"make the line anew with at most {_SHA_ROUNDS_LIMIT} rounds"
                )
        else:
            cost = 0
        return cls(scheme, cost, text)

    def matches(self, password: bytes) -> bool:
        """Whether this is the password's hash; blocks for as long as the cost says."""
        if self.scheme == "bcrypt" and len(password) > _BCRYPT_BYTES:
            # The work is done all the same, so that time does not tell of a known user.
            _CONTEXT.verify(password[:_BCRYPT_BYTES], self.text)
            return False
        try:
            return bool(_CONTEXT.verify(password, self.text))
        except PasswordValueError:
            # NUL, or more than libpass's 4096 bytes: no scheme here can hold it.
            return False

    def __repr__(self) -> str:
        return f"<{self.scheme} hash>"

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
BCRYPT_BYTES: Final = 72
# Half a second to two on today's machines; each step doubles it, and 31 would take two days
# ("htpasswDoS").
BCRYPT_COST_LIMIT: Final = 14
# OWASP's least. Apache's htpasswd takes 5 unless told otherwise, and 12 is what to take now.
BCRYPT_COST_WEAK: Final = 10
BCRYPT_COST: Final = 12
# As long as bcrypt at 13; glibc's default is 5000, libpass's 535,000 and 656,000.
_SHA_ROUNDS_LIMIT: Final = 1_000_000
# A round of SHA-2 costs an attacker's graphics card next to nothing, so it takes many.
_SHA_ROUNDS_WEAK: Final = 500_000
# What $5$ and $6$ do without "rounds=".
_SHA_ROUNDS_DEFAULT: Final = 5000
# Each thread that hashes may hold this much at once, and there is one less than processors: 384 MiB
# on four, 8 GiB on 64. It is twice RFC 9106's second choice, which is argon2-cffi's default, too.
_ARGON2_KIB_LIMIT: Final = 128 * 1024
# KiB of memory times passes over it, which is what the time goes by: 1 GiB is as long as bcrypt
# between 13 and 14; RFC 9106's second choice (64 MiB, 3 passes) takes a fifth of it.
_ARGON2_WORK_LIMIT: Final = 1024 * 1024
# The smallest product in OWASP's list of what is enough: 7 MiB with 5 passes.
_ARGON2_WORK_WEAK: Final = 7 * 1024 * 5
# Threads that libargon2 starts for one password; RFC 9106 takes 4.
_ARGON2_LANES_LIMIT: Final = 16

_CONTEXT = CryptContext(
    schemes=[
        "bcrypt",
        "argon2",
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
# Base64 without "=": whole fours, and what a rest of one or two bytes makes.
_BASE64_REST = r"(?:[+/0-9A-Za-z][AQgw]|[+/0-9A-Za-z]{2}[048AEIMQUYcgkosw])?"
# Version 1.3, 8 to 64 bytes of salt and 16 to 64 of digest; no "keyid" or "data", which
# argon2-cffi cannot do.
_ARGON2 = (
    r"\$argon2(?:id|i|d)\$v=19\$m=(?P<memory>[1-9][0-9]{0,9}),t=(?P<passes>[1-9][0-9]{0,9}),"
    r"p=(?P<lanes>[1-9][0-9]{0,7})\$(?=[^$]{11,86}\$)(?:[+/0-9A-Za-z]{4})*"
    + _BASE64_REST
    + r"\$(?=.{22,86}\Z)(?:[+/0-9A-Za-z]{4})*"
    + _BASE64_REST
)
_SCHEMES = tuple(
    (name, re.compile(pattern).fullmatch)
    for name, pattern in (
        ("bcrypt", _BCRYPT),
        ("argon2", _ARGON2),
        ("apr1", r"\$apr1\$[./0-9A-Za-z]{0,8}\$[./0-9A-Za-z]{22}"),
        ("{SHA}", r"\{SHA\}[+/0-9A-Za-z]{27}="),
        ("{SSHA}", _SSHA),
        ("sha256-crypt", r"\$5\$" + _SHA_CRYPT + r"{43}"),
        ("sha512-crypt", r"\$6\$" + _SHA_CRYPT + r"{86}"),
    )
)
# What a file may hold instead, so that the error can say more than "unknown".
_REFUSED = tuple(
    (re.compile(pattern).match, reason)
    for pattern, reason in (
        (r"\Z", "no hash behind the colon"),
        (r"[!*]", "a locked password; to lock a user out, delete the line"),
        (r"\$1\$", "MD5-crypt ($1$), which is too weak"),
        (r"\$2x?\$", "bcrypt of a faulty kind ($2$ or $2x$)"),
        (r"[./0-9A-Za-z]{13}\Z", "DES-crypt, which is too weak, or a password in plain text"),
    )
)


def argon2_is_installed() -> bool:
    """Whether the library for argon2 (the extra ``argon2``) is there."""
    # Not libpass's other one, which is pure Python and takes minutes for a password.
    return bool(_CONTEXT.handler("argon2").has_backend("argon2_cffi"))


@dataclass(frozen=True, slots=True, repr=False)
class StoredHash:
    """A hash as it stands in a password file.

    ``cost`` is the scheme's own measure (bcrypt: the exponent; argon2: KiB times passes;
    sha-crypt: rounds; else 0).
    """

    scheme: str
    cost: int
    text: str

    @classmethod
    def parse(cls, text: str) -> StoredHash:
        """Recognise a hash.

        :raises ValueError: with the reason, and without the hash itself, which may be somebody's
            password in plain text.
        """
        scheme, found = next(
            ((name, match) for name, matches in _SCHEMES if (match := matches(text))), ("", None)
        )
        if found is None:
            for matches, reason in _REFUSED:
                if matches(text):
                    raise ValueError(reason)
            raise ValueError(
                "not a password hash that is known here "
                "(bcrypt, argon2, $5$, $6$, apr1, {SHA}, {SSHA})"
            )
        return cls(scheme, _cost(scheme, found), text)

    @classmethod
    def make(cls, password: bytes, cost: int = BCRYPT_COST) -> StoredHash:
        """Hash a new password of at most :data:`BCRYPT_BYTES` with bcrypt."""
        # $2y$ is what Apache's htpasswd writes and everybody reads; $2b$ would be the same.
        handler = _CONTEXT.handler("bcrypt").using(rounds=cost, ident="2y")
        return cls("bcrypt", cost, handler.hash(password))

    @property
    def kind(self) -> str:
        """Scheme and cost in words, for operators."""
        if self.scheme == "bcrypt":
            return f"bcrypt cost {self.cost}"
        if self.scheme == "argon2":
            _, variant, _, parameters, *_ = self.text.split("$")
            return f"{variant} {parameters}"
        if self.cost:
            return f"{self.scheme} with {self.cost} rounds"
        return self.scheme

    @property
    def weak(self) -> bool:
        """Whether who steals the file can try passwords much faster than with bcrypt 10."""
        if self.scheme == "bcrypt":
            return self.cost < BCRYPT_COST_WEAK
        if self.scheme == "argon2":
            return self.cost < _ARGON2_WORK_WEAK
        return self.cost < _SHA_ROUNDS_WEAK

    def matches(self, password: bytes) -> bool:
        """Whether this is the password's hash; blocks for as long as the cost says."""
        if self.scheme == "bcrypt" and len(password) > BCRYPT_BYTES:
            # The work is done all the same, so that time does not tell of a known user.
            _CONTEXT.verify(password[:BCRYPT_BYTES], self.text)
            return False
        try:
            return bool(_CONTEXT.verify(password, self.text))
        except PasswordValueError:
            # NUL, or more than libpass's 4096 bytes: no scheme here can hold it.
            return False
        except Exception as error:
            # No memory for argon2, say. libpass puts the hash into the message.
            raise RuntimeError(f"{self.kind}: {type(error).__name__}") from None

    def __repr__(self) -> str:
        return f"<{self.scheme} hash>"


def _cost(scheme: str, found: re.Match[str]) -> int:
    """The cost of a recognised hash.

    :raises ValueError: when it could freeze or eat the machine, or its library is missing.
    """
    if scheme == "bcrypt":
        cost = int(found["cost"])
        if not 4 <= cost <= BCRYPT_COST_LIMIT:
            raise ValueError(f"bcrypt cost {cost}, but it goes from 4 to {BCRYPT_COST_LIMIT} here")
        return cost
    if scheme in ("sha256-crypt", "sha512-crypt"):
        cost = int(found["cost"] or _SHA_ROUNDS_DEFAULT)
        if cost > _SHA_ROUNDS_LIMIT:
            raise ValueError(f"{scheme} with {cost} rounds, but {_SHA_ROUNDS_LIMIT} are the most")
        return cost
    if scheme == "argon2":
        memory, passes, lanes = (int(found[name]) for name in ("memory", "passes", "lanes"))
        if not 8 * lanes <= memory <= _ARGON2_KIB_LIMIT:
            raise ValueError(
                f"argon2 with m={memory}, but memory goes from 8 per lane "
                f"to {_ARGON2_KIB_LIMIT} KiB here"
            )
        if memory * passes > _ARGON2_WORK_LIMIT:
            raise ValueError(
                f"argon2 with m={memory},t={passes}, but m times t is {_ARGON2_WORK_LIMIT} at most"
            )
        if lanes > _ARGON2_LANES_LIMIT:
            raise ValueError(f"argon2 with p={lanes}, but {_ARGON2_LANES_LIMIT} is the most")
        if not argon2_is_installed():
            raise ValueError("argon2, whose library is not installed: pip install argon2-cffi")
        return memory * passes
    return 0

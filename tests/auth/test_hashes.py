"""regguard.auth.hashes: every scheme of htpasswd, and nothing that could pass for one."""

from __future__ import annotations

import subprocess
from shutil import which

import pytest
from passlib.hash import (
    apr_md5_crypt,
    bcrypt,
    ldap_salted_sha1,
    ldap_sha1,
    sha256_crypt,
    sha512_crypt,
)

from regguard.auth import hashes
from regguard.auth.hashes import StoredHash

# What Apache's htpasswd 2.4 wrote for the password "pw" (-B, -m, -s, -5, -2), and slappasswd.
BCRYPT = "$2y$05$icV43BblU.rvcNLp7K41ROza1Z3vXo89DnOlaOhu.NgSJjZPWTXju"
APR1 = "$apr1$yyYZxrSA$KHjLChlaSzJUE83dzwr971"
SHA = "{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM="
SSHA = "{SSHA}3l4R1j+VXZJgDQk36srol2jwH9Of01pr"
SHA256 = "$5$1i5omOw7rHKOF3iF$CGXNeDzSZm964U9Aq5fNxV2ko8kmukhKey9cBP/4rt/"
SHA512 = (
    "$6$iLIRDFajuYbs.t9O$UQMBTSt9XPCOb8eKsgsNJap7YAWm6D3qg.ePwm60FQ3BzGqmoRd9kVJD9NyrGluI7oKAnL"
    "zsVnpVb5Q8crjUn1"
)


@pytest.mark.parametrize(
    ("text", "scheme", "cost"),
    [
        (BCRYPT, "bcrypt", 5),
        (BCRYPT.replace("$2y$", "$2a$"), "bcrypt", 5),
        (BCRYPT.replace("$2y$", "$2b$"), "bcrypt", 5),
        (APR1, "apr1", 0),
        (SHA, "SHA", 0),
        (SSHA, "SSHA", 0),
        (SHA256, "sha256-crypt", 5000),
        (SHA512, "sha512-crypt", 5000),
        (sha512_crypt.using(rounds=1001).hash("pw"), "sha512-crypt", 1001),
    ],
)
def test_each_scheme_accepts_its_password_and_no_other(text: str, scheme: str, cost: int) -> None:
    """A hash is known by scheme and cost, and matches the password that it was made of."""
    stored = StoredHash.parse(text)

    assert (stored.scheme, stored.cost, stored.text) == (scheme, cost, text)
    assert stored.matches(b"pw")
    for wrong in (b"PW", b"pw ", b"p", b"", text.encode()):
        assert not stored.matches(wrong)


@pytest.mark.parametrize(
    "handler",
    [bcrypt.using(rounds=4), apr_md5_crypt, ldap_sha1, sha256_crypt.using(rounds=1000),
     sha512_crypt.using(rounds=1000), ldap_salted_sha1.using(salt_size=4),
     ldap_salted_sha1.using(salt_size=8), ldap_salted_sha1.using(salt_size=16)],
)  # fmt: skip
def test_what_libpass_writes_is_read(handler: object) -> None:
    """The grammars here take in every salt that libpass draws."""
    for number in range(8):
        password = f"pä{number}".encode()
        assert StoredHash.parse(handler.hash(password)).matches(password)  # type: ignore[attr-defined]


@pytest.mark.skipif(which("htpasswd") is None, reason="apache2-utils is not installed")
@pytest.mark.parametrize("option", ["-B", "-m", "-s", "-2", "-5"])
def test_what_htpasswd_writes_is_read(option: str) -> None:
    """Lines of the real tool work."""
    line = subprocess.run(
        ["htpasswd", "-nb", option, "ci", "s:cret"], capture_output=True, check=True, text=True
    ).stdout.strip()

    assert StoredHash.parse(line.partition(":")[2]).matches(b"s:cret")


@pytest.mark.parametrize(
    "text",
    ["", "!", "*", "x", "pw", "secret", "MGpivg5KPf1eI", "$1$yyYZxrSA$KHjLChlaSzJUE83dzwr971",
     BCRYPT.replace("$2y$", "$2x$"), BCRYPT.replace("$2y$", "$2$"), BCRYPT[:-1], BCRYPT + "x",
     BCRYPT + " ", " " + BCRYPT, BCRYPT + "\n", BCRYPT.replace("$05$", "$5$"), BCRYPT[:-1] + "v",
     BCRYPT.replace("icV43BblU", "icV43Bbl!"), BCRYPT.replace("icV4", "icé4"), BCRYPT + ":x",
     "$apr1$", APR1[:-1], APR1 + "x", "$apr1$toolongsalt$KHjLChlaSzJUE83dzwr971",
     "{SHA}", SHA[:-1], SHA + "=", "{sha}GpHWL3ymc5liWkNopqtdSjuqYHM=", "{SHA}secret", "{SSHA}x",
     "{SSHA}GpHWL3ymc5liWkNopqtdSjuqYHM=", "{PLAIN}secret", "{CLEARTEXT}pw", SHA256[:-1], "$5$x",
     SHA512 + "x", "$6$rounds=999$a$" + "x" * 86, "$6$rounds=05000$a$" + "x" * 86,
     "$argon2id$v=19$m=65536,t=3,p=4$x$y", "$pbkdf2$x"],
)  # fmt: skip
def test_e15_what_is_no_known_hash_is_refused(text: str) -> None:
    """A line's second half never acts as a password, and is never repeated in an error."""
    with pytest.raises(ValueError, match="htpasswd -B") as caught:
        StoredHash.parse(text)

    assert len(text) < 6 or text not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BCRYPT.replace("$05$", "$31$"), "bcrypt cost 31"),
        (BCRYPT.replace("$05$", "$15$"), "bcrypt cost 15"),
        (BCRYPT.replace("$05$", "$03$"), "bcrypt cost 3"),
        (BCRYPT.replace("$05$", "$99$"), "bcrypt cost 99"),
        (SHA512.replace("$6$", "$6$rounds=999999999$"), "999999999 rounds"),
        (SHA256.replace("$5$", "$5$rounds=1000001$"), "1000001 rounds"),
    ],
)
def test_e15_costs_that_would_freeze_the_machine_are_refused(text: str, reason: str) -> None:
    """One line of the file must not be able to block a processor for hours (htpasswDoS)."""
    with pytest.raises(ValueError, match=reason):
        StoredHash.parse(text)


def test_e15_bcrypt_cost_14_is_taken() -> None:
    """The greatest cost that Caddy's own tool writes is fine."""
    assert StoredHash.parse(BCRYPT.replace("$05$", "$14$")).cost == 14


def test_e06_password_of_73_bytes_is_refused_at_the_same_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """bcrypt sees 72 bytes; a longer password is wrong even if those match, and takes as long."""
    stored = StoredHash.parse(bcrypt.using(rounds=4).hash(b"x" * 72))
    context = hashes._CONTEXT
    hashed: list[int] = []

    class Counting:
        def verify(self, password: bytes, text: str) -> bool:
            hashed.append(len(password))
            return bool(context.verify(password, text))

    monkeypatch.setattr(hashes, "_CONTEXT", Counting())

    assert stored.matches(b"x" * 72)
    assert not stored.matches(b"x" * 73)
    assert not stored.matches("é".encode() * 37)
    assert not stored.matches(b"x" * 5000)
    assert hashed == [72] * 4


@pytest.mark.parametrize("text", [BCRYPT, APR1, SHA, SSHA, SHA256, SHA512])
def test_e07_a_password_with_nul_matches_nothing(text: str) -> None:
    """No scheme takes the part before a NUL for the password, or breaks down over it."""
    assert not StoredHash.parse(text).matches(b"pw\0")
    assert not StoredHash.parse(text).matches(b"pw\0x")


@pytest.mark.parametrize("text", [BCRYPT, APR1, SHA, SSHA, SHA256, SHA512])
def test_e05_a_huge_password_matches_nothing(text: str) -> None:
    """Thousands of bytes are wrong, without an exception."""
    assert not StoredHash.parse(text).matches(b"pw" * 4096)


def test_f01_the_repr_shows_no_hash() -> None:
    """A stored hash prints as its scheme."""
    assert repr(StoredHash.parse(BCRYPT)) == "<bcrypt hash>"

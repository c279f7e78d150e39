"""regguard.auth.hashes: every scheme of htpasswd, and nothing that could pass for one."""

from __future__ import annotations

import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from passlib.hash import (
    apr_md5_crypt,
    argon2,
    bcrypt,
    ldap_salted_sha1,
    ldap_sha1,
    sha256_crypt,
    sha512_crypt,
)

import regguard
from regguard.auth import hashes
from regguard.auth.hashes import StoredHash
from tests.e2e.programs import binary

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


# Of "pw" and the salt "saltsalt", by the reference implementation.
ARGON2ID = "$argon2id$v=19$m=8192,t=2,p=1$c2FsdHNhbHQ$1Ovr5QCXP71RmzJJWz+daaIhiX6q+k7dluUofWQDbn4"
ARGON2I = "$argon2i$v=19$m=8192,t=2,p=1$c2FsdHNhbHQ$tt5+riBYOqpwLihkAp1mixpU6ca1D2JHPVsXBvQCUBw"
ARGON2D = "$argon2d$v=19$m=8192,t=2,p=1$c2FsdHNhbHQ$pTpmBJNWCS4YsdPD7RIwkjB7hk2t9yK1EVo2J61JxfU"
ALL = [BCRYPT, ARGON2ID, ARGON2I, ARGON2D, APR1, SHA, SSHA, SHA256, SHA512]


@pytest.mark.parametrize(
    ("text", "scheme", "cost", "kind"),
    [
        (BCRYPT, "bcrypt", 5, "bcrypt cost 5"),
        (BCRYPT.replace("$2y$", "$2a$"), "bcrypt", 5, "bcrypt cost 5"),
        (BCRYPT.replace("$2y$", "$2b$"), "bcrypt", 5, "bcrypt cost 5"),
        (ARGON2ID, "argon2", 16384, "argon2id m=8192,t=2,p=1"),
        (ARGON2I, "argon2", 16384, "argon2i m=8192,t=2,p=1"),
        (ARGON2D, "argon2", 16384, "argon2d m=8192,t=2,p=1"),
        (APR1, "apr1", 0, "apr1"),
        (SHA, "{SHA}", 0, "{SHA}"),
        (SSHA, "{SSHA}", 0, "{SSHA}"),
        (SHA256, "sha256-crypt", 5000, "sha256-crypt with 5000 rounds"),
        (SHA512, "sha512-crypt", 5000, "sha512-crypt with 5000 rounds"),
        (
            sha512_crypt.using(rounds=1001).hash("pw"),
            "sha512-crypt",
            1001,
            "sha512-crypt with 1001 rounds",
        ),
    ],
)
def test_each_scheme_accepts_its_password_and_no_other(
    text: str, scheme: str, cost: int, kind: str
) -> None:
    """A hash is known by scheme and cost, and matches the password that it was made of."""
    stored = StoredHash.parse(text)

    assert (stored.scheme, stored.cost, stored.text) == (scheme, cost, text)
    assert stored.kind == kind
    assert stored.matches(b"pw")
    for wrong in (b"PW", b"pw ", b"p", b"", text.encode()):
        assert not stored.matches(wrong)


@pytest.mark.parametrize(
    "handler",
    [bcrypt.using(rounds=4), apr_md5_crypt, ldap_sha1, sha256_crypt.using(rounds=1000),
     sha512_crypt.using(rounds=1000), ldap_salted_sha1.using(salt_size=4),
     ldap_salted_sha1.using(salt_size=8), ldap_salted_sha1.using(salt_size=16),
     *(argon2.using(type="id", memory_cost=64, time_cost=1, salt_size=size, digest_size=3 * size)
       for size in (8, 16, 17, 18)),
     argon2.using(type="i", memory_cost=64, digest_size=64, salt_size=64),
     argon2.using(type="d", memory_cost=64, parallelism=2)],
)  # fmt: skip
def test_what_libpass_writes_is_read(handler: object) -> None:
    """The grammars here take in every salt that libpass draws."""
    for number in range(8):
        password = f"pä{number}".encode()
        assert StoredHash.parse(handler.hash(password)).matches(password)  # type: ignore[attr-defined]


@pytest.mark.parametrize("option", ["-B", "-m", "-s", "-2", "-5"])
def test_what_htpasswd_writes_is_read(option: str) -> None:
    """Lines of the real tool work."""
    line = subprocess.run(
        [binary("htpasswd"), "-nb", option, "ci", "s:cret"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()

    assert StoredHash.parse(line.partition(":")[2]).matches(b"s:cret")


UNKNOWN = "not a password hash that is known here"
DES = "DES-crypt, which is too weak, or a password in plain text"


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([""], "no hash behind the colon"),
        (["!", "*", "!!", "*LK*", "!" + BCRYPT], "locked"),
        (["$1$yyYZxrSA$KHjLChlaSzJUE83dzwr971"], "MD5-crypt"),
        ([BCRYPT.replace("$2y$", "$2x$"), BCRYPT.replace("$2y$", "$2$")], "faulty"),
        (["MGpivg5KPf1eI", "plainpassword"], DES),
        (["x", "pw", "secret", "correct horse battery staple"], UNKNOWN),
        ([BCRYPT[:-1], BCRYPT + "x", BCRYPT + " ", " " + BCRYPT, BCRYPT + "\n", BCRYPT + ":x",
          BCRYPT.replace("$05$", "$5$"), BCRYPT[:-1] + "v",
          BCRYPT.replace("icV43BblU", "icV43Bbl!"), BCRYPT.replace("icV4", "icé4")], UNKNOWN),
        (["$apr1$", APR1[:-1], APR1 + "x", "$apr1$toolongsalt$KHjLChlaSzJUE83dzwr971"], UNKNOWN),
        (["{SHA}", SHA[:-1], SHA + "=", "{sha}GpHWL3ymc5liWkNopqtdSjuqYHM=", "{SHA}secret",
          "{SSHA}x", "{SSHA}GpHWL3ymc5liWkNopqtdSjuqYHM="], UNKNOWN),
        (["{PLAIN}secret", "{CLEARTEXT}pw", "{CRYPT}MGpivg5KPf1eI"], UNKNOWN),
        ([SHA256[:-1], "$5$x", SHA512 + "x", "$6$rounds=999$a$" + "x" * 86,
          "$6$rounds=05000$a$" + "x" * 86], UNKNOWN),
        ([ARGON2ID[:-1], ARGON2ID + "AA", ARGON2ID[:-1] + "B", ARGON2ID + "=", ARGON2ID + "\n",
          ARGON2ID.replace("v=19", "v=16"), ARGON2ID.replace("$v=19", ""),
          ARGON2ID.replace("p=1", "p=1,data=AAAA"), ARGON2ID.replace("p=1", "p=1,keyid=AA"),
          ARGON2ID.replace("m=", "m=0"), ARGON2ID.replace("t=2", "t=0"),
          ARGON2ID.replace("c2FsdHNhbHQ", "c2FsdA"), ARGON2ID.replace("c2FsdHNhbHQ", "c2FsdHNhbHR"),
          ARGON2ID.replace("argon2id", "argon2x"), ARGON2ID.rpartition("$")[0] + "$AAAA",
          "$argon2id$v=19$m=65536,t=3,p=4$x$y"], UNKNOWN),
        (["$pbkdf2$x", "$y$j9T$x$y", "$scrypt$x"], UNKNOWN),
    ],
)  # fmt: skip
def test_e15_what_is_no_known_hash_is_refused(texts: list[str], reason: str) -> None:
    """A line's second half never acts as a password, and is never repeated in an error."""
    for text in texts:
        with pytest.raises(ValueError, match=re.escape(reason)) as caught:
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
        (ARGON2ID.replace("m=8192", "m=131073"), "m=131073"),
        (ARGON2ID.replace("m=8192", "m=4194304"), "m=4194304"),
        (ARGON2ID.replace("m=8192", "m=7"), "m=7,"),
        (ARGON2ID.replace("t=2", "t=129"), "m=8192,t=129"),
        (ARGON2ID.replace("t=2", "t=4294967295"), "t=4294967295"),
        (ARGON2ID.replace("p=1", "p=17"), "p=17"),
    ],
)
def test_e15_costs_that_would_freeze_the_machine_are_refused(text: str, reason: str) -> None:
    """One line must not block a processor for hours or take all memory (htpasswDoS)."""
    with pytest.raises(ValueError, match=reason):
        StoredHash.parse(text)


def test_e15_the_largest_argon2_is_taken() -> None:
    """128 MiB, 8 passes and 16 lanes are each the most."""
    for parameters in ("m=131072,t=8,p=1", "m=8192,t=128,p=1", "m=8192,t=2,p=16", "m=64,t=1,p=8"):
        StoredHash.parse(ARGON2ID.replace("m=8192,t=2,p=1", parameters))


def test_argon2_without_its_library_is_refused() -> None:
    """At load and with the cure, not at the first log-in; everything else works."""
    check = (
        "import sys; sys.modules['argon2'] = None\n"
        "from regguard.auth.hashes import StoredHash\n"
        f"assert StoredHash.parse({BCRYPT!r}).matches(b'pw')\n"
        f"StoredHash.parse({ARGON2ID!r})"
    )

    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=Path(regguard.__path__[0]).parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "ValueError: argon2, whose library is not installed" in done.stderr
    assert "pip install argon2-cffi" in done.stderr


@pytest.mark.parametrize(
    ("text", "weak"),
    [
        (SHA, True),
        (SSHA, True),
        (APR1, True),
        (SHA256, True),
        (SHA512, True),
        (SHA512.replace("$6$", "$6$rounds=499999$"), True),
        (SHA512.replace("$6$", "$6$rounds=500000$"), False),
        (BCRYPT, True),
        (BCRYPT.replace("$05$", "$09$"), True),
        (BCRYPT.replace("$05$", "$10$"), False),
        (ARGON2ID, True),
        (ARGON2ID.replace("m=8192,t=2", "m=19456,t=1"), True),
        (ARGON2ID.replace("m=8192,t=2", "m=19456,t=2"), False),
        (ARGON2ID.replace("m=8192,t=2", "m=7168,t=5"), False),
    ],
)
def test_e15_weak_hashes_are_told_from_strong_ones(text: str, weak: bool) -> None:
    """Weak is what a thief of the file guesses much faster than bcrypt 10."""
    assert StoredHash.parse(text).weak is weak


def test_a_new_hash_is_bcrypt_12_as_htpasswd_writes_it() -> None:
    """What is made here is what Apache and nginx read, too."""
    stored = StoredHash.make("pä".encode(), 4)

    assert stored.text.startswith("$2y$04$")
    assert StoredHash.parse(stored.text) == stored
    assert stored.matches("pä".encode())
    assert StoredHash.make(b"x").cost == 12


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


@pytest.mark.parametrize("text", ALL)
def test_e07_a_password_with_nul_matches_nothing(text: str) -> None:
    """No scheme takes the part before a NUL for the password, or breaks down over it."""
    assert not StoredHash.parse(text).matches(b"pw\0")
    assert not StoredHash.parse(text).matches(b"pw\0x")


@pytest.mark.parametrize("text", ALL)
def test_e05_a_huge_password_matches_nothing(text: str) -> None:
    """Thousands of bytes are wrong, without an exception."""
    assert not StoredHash.parse(text).matches(b"pw" * 4096)


@pytest.mark.parametrize("text", ALL)
def test_e08_a_colon_is_part_of_the_password(text: str) -> None:
    """What stands behind a second colon counts."""
    assert not StoredHash.parse(text).matches(b"pw:")
    assert StoredHash.make(b"a:b:", 4).matches(b"a:b:")


@pytest.mark.parametrize(
    "stored", [StoredHash.make("pä".encode(), 4), StoredHash.parse(sha512_crypt.hash("pä"))]
)
def test_e09_each_spelling_is_another_password(stored: StoredHash) -> None:
    """Bytes are compared: NFC, NFD and Latin-1 of one password are three."""
    assert stored.matches("p\u00e4".encode())
    assert not stored.matches("pa\u0308".encode())
    assert not stored.matches("p\u00e4".encode("latin-1"))


def test_f01_a_fault_in_the_library_tells_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """libpass quotes the hash when argon2 finds no memory; the log must not."""

    class Failing:
        def verify(self, password: bytes, text: str) -> bool:
            raise ValueError(f"no memory: hash={text!r}")

    stored = StoredHash.parse(ARGON2ID)
    monkeypatch.setattr(hashes, "_CONTEXT", Failing())
    with pytest.raises(RuntimeError, match="argon2id m=8192,t=2,p=1: ValueError") as caught:
        stored.matches(b"pw")

    assert "c2FsdHNhbHQ" not in "".join(traceback.format_exception(caught.value))


def test_f01_the_repr_shows_no_hash() -> None:
    """A stored hash prints as its scheme."""
    assert repr(StoredHash.parse(BCRYPT)) == "<bcrypt hash>"

"""regguard.options: words to settings, and every complaint in one line with its cure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from twisted.python.usage import UsageError

from regguard.access import Freeze, Grant, Who, parse_access
from regguard.addresses import TrustedProxies
from regguard.options import _KEYS, Options, Settings

TLS = ["--tls-cert", "domain.crt"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults that look for files look into an empty folder."""
    monkeypatch.chdir(tmp_path)


def settings(*words: str, file: str | None = None) -> Settings:
    """What the words, and a file that holds this TOML, come to."""
    options = Options()
    if file is not None:
        Path("regguard.toml").write_text(file, "utf-8", "surrogateescape")
        words = ("--config", "regguard.toml", *words)
    options.parseOptions(words)
    return options.settings


def complaint(*words: str, file: str | None = None) -> str:
    """What is said about words that can't be used: one line."""
    with pytest.raises(UsageError) as caught:
        settings(*words, file=file)
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    return text


# -- defaults --------------------------------------------------------------------------------


def test_a_certificate_alone_is_a_complete_call() -> None:
    """twist regguard --tls-cert domain.crt, and everything else by default."""
    assert settings(*TLS) == Settings(
        listen=("tcp:5043",),
        certificates=((Path("domain.crt"), None),),
        tls_client_ca=None,
        upstream=("http://127.0.0.1:5000",),
        upstream_ca=None,
        auth=("htpasswd:auth/htpasswd",),
        minimum_hash="any",
        throttle=(10, 300),
        groups=None,
        pull=Who.parse("valid-user"),
        push=Who.parse("group:pusher"),
        delete=Who.parse("group:pusher"),
        catalog=Who.parse("valid-user"),
        rules=(),
        hide=False,
        freeze=None,
        freeze_file=None,
        realm="Registry",
        trusted_proxies=TrustedProxies(),
        public_url=None,
        max_connections=(20_000, None),
        read_timeout=900,
        drain_timeout=900,
        access_log="-",
        access_log_format="combined",
        admin=None,
        workers=1,
        said={"tls-cert": "command line", "tls-key": "command line"},
        check=False,
    )


def test_the_groups_file_is_used_where_it_exists() -> None:
    """auth/groups by default, and only if it is there."""
    Path("auth").mkdir()
    Path("auth/groups").touch()

    assert settings(*TLS).groups == Path("auth/groups")
    assert settings(*TLS, "--groups", "other").groups == Path("other")


def test_a_named_groups_file_is_kept_even_if_it_is_not_there() -> None:
    """Whoever loads it complains."""
    assert settings(*TLS, "--groups", "nowhere").groups == Path("nowhere")


def test_settings_do_not_change() -> None:
    """They are one immutable value."""
    with pytest.raises(AttributeError):
        settings(*TLS).realm = "x"  # type: ignore[misc]


# -- the command line and the file say the same ----------------------------------------------

SAID: list[tuple[list[str], str, str, Any]] = [
    (["--listen", "tcp:1"], 'listen = "tcp:1"', "listen", ("tcp:1",)),
    (["-l", "tcp:1", "-l", "unix:/a"], 'listen = ["tcp:1", "unix:/a"]', "listen",
     ("tcp:1", "unix:/a")),
    (["--upstream", "http://r"], 'upstream = "http://r"', "upstream", ("http://r",)),
    (["--upstream", "http://a", "--upstream", "http://b"],
     'upstream = ["http://a", "http://b"]', "upstream", ("http://a", "http://b")),
    (["--tls-client-ca", "ca.pem"], 'tls-client-ca = "ca.pem"', "tls_client_ca", Path("ca.pem")),
    (["--upstream-ca", "ca.pem"], 'upstream-ca = "ca.pem"', "upstream_ca", Path("ca.pem")),
    (["--htpasswd", "f"], 'htpasswd = "f"', "auth", ("htpasswd:f",)),
    (["--auth", "ldap:x"], 'auth = "ldap:x"', "auth", ("ldap:x",)),
    (["--auth", "ldap:x", "--htpasswd", "f"], 'auth = ["ldap:x"]\nhtpasswd = "f"', "auth",
     ("ldap:x", "htpasswd:f")),
    (["--minimum-hash", "bcrypt"], 'minimum-hash = "bcrypt"', "minimum_hash", "bcrypt"),
    (["--throttle", "3/1h"], 'throttle = "3/1h"', "throttle", (3, 3600)),
    (["--throttle", "off"], 'throttle = "off"', "throttle", None),
    (["--trusted-proxy", "10.0.0.5"], 'trusted-proxy = "10.0.0.5"', "trusted_proxies",
     TrustedProxies((IPv4Network("10.0.0.5/32"),))),
    (["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "2001:db8::/32", "--trusted-proxy",
      "unix:"], 'trusted-proxy = ["10.0.0.0/8", "2001:db8::/32", "unix:"]', "trusted_proxies",
     TrustedProxies((IPv4Network("10.0.0.0/8"), IPv6Network("2001:db8::/32")), unix=True)),
    (["--max-connections", "500"], "max-connections = 500", "max_connections", (500, None)),
    (["--max-connections", "500/20"], 'max-connections = "500/20"', "max_connections", (500, 20)),
    (["--groups", "g"], 'groups = "g"', "groups", Path("g")),
    (["--pull", "nobody"], 'pull = "nobody"', "pull", Who.parse("nobody")),
    (["--push", "valid-user"], 'push = "valid-user"', "push", Who.parse("valid-user")),
    (["--delete", "user:a,group:b"], 'delete = "user:a,group:b"', "delete",
     Who.parse("user:a, group:b")),
    (["--catalog", "group:b"], 'catalog = "group:b"', "catalog", Who.parse("group:b")),
    (["--hide"], "hide = true", "hide", True),
    (["--freeze", "moving"], 'freeze = "moving"', "freeze", "moving"),
    (["--freeze-file", "f"], 'freeze-file = "f"', "freeze_file", Path("f")),
    (["--realm", "Ünïcode \"x\""], "realm = 'Ünïcode \"x\"'", "realm", 'Ünïcode "x"'),
    (["--public-url", "https://h"], 'public-url = "https://h"', "public_url", "https://h"),
    (["--read-timeout", "2.5"], "read-timeout = 2.5", "read_timeout", 2.5),
    (["--drain-timeout", "7"], "drain-timeout = 7", "drain_timeout", 7.0),
    (["--access-log", "/var/log/x"], 'access-log = "/var/log/x"', "access_log", "/var/log/x"),
    (["--access-log-format", "common"], 'access-log-format = "common"', "access_log_format",
     "common"),
    (["--admin", "unix:/run/a.sock"], 'admin = "unix:/run/a.sock"', "admin", "unix:/run/a.sock"),
    (["--admin", "tcp:127.0.0.1:9180"], 'admin = "tcp:127.0.0.1:9180"', "admin",
     "tcp:9180:interface=127.0.0.1"),
    (["--workers", "3"], "workers = 3", "workers", 3),
    (["--workers", "auto"], 'workers = "auto"', "workers", len(os.sched_getaffinity(0))),
]  # fmt: skip


@pytest.mark.parametrize(("words", "toml", "name", "value"), SAID)
def test_every_option_has_the_same_name_in_the_file(
    words: list[str], toml: str, name: str, value: Any
) -> None:
    """And means the same."""
    assert getattr(settings(*TLS, *words), name) == value
    assert getattr(settings(*TLS, file=toml), name) == value


def test_the_table_above_misses_no_key() -> None:
    """An option that nobody tries is an option that nobody knows."""
    tried = {re.split(r"\s*=", line)[0] for _, toml, _, _ in SAID for line in toml.splitlines()}

    assert tried | {"tls-cert", "tls-key", "no-tls"} == set(_KEYS)


@pytest.mark.parametrize(
    ("words", "toml", "name", "value"),
    [
        (["--realm", "a"], 'realm = "b"', "realm", "a"),
        (["--listen", "tcp:1"], 'listen = ["tcp:2", "tcp:3"]', "listen", ("tcp:1",)),
        (["--read-timeout", "1"], "read-timeout = 2", "read_timeout", 1.0),
        (["--pull", "nobody"], 'pull = "valid-user"', "pull", Who.parse("nobody")),
        (["--htpasswd", "a"], 'htpasswd = "b"', "auth", ("htpasswd:a",)),
        (["--htpasswd", "a"], 'auth = ["ldap:b"]', "auth", ("htpasswd:a",)),
        (["--auth", "ldap:a"], 'htpasswd = "b"', "auth", ("ldap:a",)),
        (["--auth", "ldap:a"], 'auth = "ldap:b"\nhtpasswd = "c"', "auth", ("ldap:a",)),
        (
            ["--upstream", "http://a"],
            'upstream = ["http://b", "http://c"]',
            "upstream",
            ("http://a",),
        ),
    ],
)
def test_the_command_line_wins(words: list[str], toml: str, name: str, value: Any) -> None:
    """Whole options, never a mixture of both."""
    assert getattr(settings(*TLS, *words, file=toml), name) == value


def test_a_bad_word_in_the_file_does_not_matter_where_the_command_line_wins() -> None:
    """It is not used."""
    assert settings(*TLS, "--pull", "nobody", file='pull = "nonsense"').pull.text == "nobody"


# -- certificates ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "toml", "pairs"),
    [
        (["--tls-cert", "a"], "", [("a", None)]),
        (["--tls-cert", "a", "--tls-key", "k"], "", [("a", "k")]),
        (["--tls-cert", "a", "--tls-cert", "b", "--tls-key", "k"], "", [("a", None), ("b", "k")]),
        (["--tls-cert", "a", "--tls-key", "k", "--tls-cert", "b"], "", [("a", "k"), ("b", None)]),
        ([], 'tls-cert = "a"', [("a", None)]),
        ([], 'tls-cert = "a"\ntls-key = "k"', [("a", "k")]),
        ([], 'tls-cert = ["a", "b"]\ntls-key = ["k"]', [("a", "k"), ("b", None)]),
        ([], 'tls-key = ["k", "l"]\ntls-cert = ["a", "b"]', [("a", "k"), ("b", "l")]),
        (["--tls-cert", "a"], 'tls-cert = "b"\ntls-key = "k"', [("a", None)]),
        (["--tls-cert", "a"], "no-tls = true", [("a", None)]),
        (["--no-tls"], "", []),
        (["--no-tls"], 'tls-cert = "a"\ntls-key = "k"', []),
        ([], "no-tls = true", []),
        ([], 'no-tls = false\ntls-cert = "a"', [("a", None)]),
    ],
)
def test_keys_belong_to_the_certificates_before_them(
    words: list[str], toml: str, pairs: list[tuple[str, str | None]]
) -> None:
    """On the command line by order, in the file by place in the list."""
    expected = tuple((Path(chain), Path(key) if key else None) for chain, key in pairs)

    assert settings(*words, file=toml).certificates == expected


@pytest.mark.parametrize(
    ("words", "toml", "text"),
    [
        ([], "", "--tls-cert: missing; name the certificate chain (PEM), or say --no-tls where"),
        ([], "no-tls = false", "--tls-cert: missing"),
        ([], 'tls-key = "k"', "--tls-cert: missing"),
        (["--tls-key", "k"], "", "--tls-key k: stands after the --tls-cert it belongs to"),
        (["--tls-key", "k", "--tls-cert", "a"], "", "--tls-key k: stands after"),
        (["--tls-key", "k"], 'tls-cert = "a"', "--tls-key k: stands after"),
        (
            ["--tls-cert", "a", "--tls-key", "k", "--tls-key", "l"],
            "",
            "--tls-key l: the --tls-cert before it has a key already",
        ),
        (
            [],
            'tls-cert = "a"\ntls-key = ["k", "l"]',
            "regguard.toml:2: tls-key: more keys than certificates; give each chain one key",
        ),
        (
            ["--no-tls", "--tls-cert", "a"],
            "",
            "--no-tls: contradicts --tls-cert; say one of them",
        ),
        (
            [],
            'no-tls = true\ntls-cert = "a"',
            "regguard.toml:1: no-tls: contradicts regguard.toml:2: tls-cert; say one of them",
        ),
        (
            ["--no-tls", "--tls-client-ca", "ca.pem"],
            "",
            "--tls-client-ca: contradicts --no-tls; without TLS nobody shows a certificate",
        ),
        (
            [],
            'no-tls = true\ntls-client-ca = "ca.pem"',
            "regguard.toml:2: tls-client-ca: contradicts regguard.toml:1: no-tls",
        ),
    ],
)
def test_certificates_that_do_not_fit_are_refused(words: list[str], toml: str, text: str) -> None:
    """Which option, and what to do."""
    assert complaint(*words, file=toml).startswith(text)


def test_no_tls_wins_over_the_file_s_authority_of_clients() -> None:
    """As it does over the file's certificates; passwords are asked for all the same."""
    assert settings("--no-tls", file='tls-client-ca = "ca.pem"').tls_client_ca is None


@pytest.mark.parametrize("name", ["tls-cert", "listen", "auth", "tls-key"])
def test_an_empty_list_is_refused(name: str) -> None:
    """No certificate at all must not come to mean plain HTTP, nor no listener a daemon."""
    text = complaint(*([] if name == "tls-cert" else TLS), file=f"{name} = []")

    assert text == f"regguard.toml:1: {name}: takes a string or a list of strings, not an empty one"


# -- words that can't be used ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--push", "pusher"],
         "--push: 'pusher' is not understood: write user:pusher or group:pusher, valid-user or"),
        (["--pull", ""], "--pull: nothing between two commas"),
        (["--delete", "nobody,user:a"], "--delete: nobody stands alone"),
        (["--catalog", "role:a"], "--catalog: 'role:a' is not understood"),
        (["--read-timeout", "soon"], "--read-timeout: 'soon' is no number of seconds"),
        (["--read-timeout", ""], "--read-timeout: '' is no number of seconds"),
        (["--read-timeout", "0"], "--read-timeout: 0 is out of range"),
        (["--workers", "0"], "--workers: '0' is no number of processes; write 1 to 256, or auto"),
        (["--workers", "257"], "--workers: '257' is no number of processes"),
        (["--workers", "many"], "--workers: 'many' is no number of processes"),
        (["--drain-timeout", "-1"], "--drain-timeout: -1 is out of range"),
        (["--drain-timeout", "nan"], "--drain-timeout: nan is out of range"),
        (["--drain-timeout", "inf"], "--drain-timeout: inf is out of range"),
        (["--drain-timeout", "9" * 400], "--drain-timeout: inf is out of range"),
        (["--throttle", "10"], "--throttle: '10' is no throttle; write tries/time with s, m or h"),
        (["--throttle", "0/5m"], "--throttle: '0/5m' is no throttle; write"),
        (["--throttle", "1001/5m"], "--throttle: '1001/5m' is no throttle; write"),
        (["--throttle", "10/0s"], "--throttle: '10/0s' is no throttle; write"),
        (["--throttle", "10/25h"], "--throttle: '10/25h' is no throttle; write"),
        (["--throttle", "10/5d"], "--throttle: '10/5d' is no throttle; write"),
        (["--trusted-proxy", "10.0.0.5/8"],
         "--trusted-proxy: '10.0.0.5/8' has bits set behind the network; write 10.0.0.0/8"),
        (["--trusted-proxy", "elb.example"],
         "--trusted-proxy: 'elb.example' is no network; write 10.0.0.5, 10.0.0.0/24, 2001:db8::"),
        (["--trusted-proxy", "a\n" * 100], "--trusted-proxy: 'a"),
        (["--listen", "tcp:1", "--listen", "haproxy:tcp:2"],
         "--listen: haproxy:tcp:2: a PROXY header may come from trusted proxies only, and there"),
        (["--trusted-proxy", "::1", "--listen", "haproxy:unix:/a"],
         "--listen: haproxy:unix:/a: a PROXY header comes over TCP; write haproxy:tcp:5043"),
        (["--max-connections", "0"],
         "--max-connections: '0' is no number of connections; write 5000, or 5000/1000 with those"),
        (["--max-connections", "9/"], "--max-connections: '9/' is no number of connections"),
        (["--max-connections", "99999999"], "--max-connections: '99999999' is no number"),
        (["--realm", "a\nb"], "--realm: must be one line of printable text"),
        (["--realm", "a\x7fb"], "--realm: must be one line of printable text"),
        (["--realm", "\udc80"], "--realm: must be one line of printable text"),
        (["--access-log-format", "fancy"],
         "--access-log-format: 'fancy' is none of common, combined, combinedio"),
        (["--admin", "9180"], "--admin: 9180: is no plain endpoint; write tcp:127.0.0.1:9180, "),
        (["--admin", "haproxy:tcp:9180"], "--admin: haproxy:tcp:9180: is no plain endpoint; "),
        (["--admin", "ssl:9180"], "--admin: ssl:9180: is no plain endpoint; "),
        (["domain.crt"], "domain.crt: is no option; options begin with --, see --help"),
        (["--listn", "tcp:1"], "option --listn not recognized"),
        (["--listen"], "option --listen requires argument"),
        (["--no-tls=yes"], "option --no-tls must not have an argument"),
    ],
)  # fmt: skip
def test_a_bad_word_is_refused_in_one_line(words: list[str], text: str) -> None:
    """The option and the cure."""
    assert complaint(*TLS, *words).startswith(text)


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ('realms = "x"', "realms: unknown key; did you mean realm?"),
        ('tls_cert = "x"', "tls_cert: unknown key; did you mean tls-cert?"),
        ('lisen = "x"', "lisen: unknown key; did you mean listen?"),
        ("[push]\na = 1", "push: takes a string"),
        (
            "frobnicate = 1",
            "frobnicate: unknown key; known keys: access-log, access-log-format, admin, ",
        ),
        ('config = "x"', "config: unknown key"),
        ("check = true", "check: unknown key"),
        ('push = "pusher"', "push: 'pusher' is not understood: write user:pusher or group:pusher"),
        ('push = ["group:a"]', "push: takes a string"),
        ("push = true", "push: takes a string"),
        ("realm = 1", "realm: takes a string"),
        ('realm = "a\\nb"', "realm: must be one line of printable text"),
        ("listen = 5043", "listen: takes a string or a list of strings"),
        ('listen = ["tcp:1", 2]', "listen: takes a string or a list of strings"),
        ("upstream = []", "upstream: takes a string or a list of strings"),
        ('read-timeout = "9"', "read-timeout: takes a number of seconds"),
        ("read-timeout = true", "read-timeout: takes a number of seconds"),
        ("read-timeout = 0", "read-timeout: 0 is out of range"),
        ("read-timeout = -inf", "read-timeout: -inf is out of range"),
        ("read-timeout = nan", "read-timeout: nan is out of range"),
        ("read-timeout = " + "9" * 400, "read-timeout: 99999999999999999999 is no number of"),
        ("read-timeout = 1979-05-27", "read-timeout: takes a number of seconds"),
        ('no-tls = "yes"', "no-tls: takes true or false"),
        ("no-tls = 1", "no-tls: takes true or false"),
        ('access-log-format = "xml"', "access-log-format: 'xml' is none of common, combined"),
        ('freeze = " "', "freeze: say why"),
        ('freeze = "a\\nb"', "freeze: must be one line of printable text"),
        ('hide = "yes"', "hide: takes true or false"),
    ],
)
def test_a_bad_line_of_the_file_is_refused_in_one_line(toml: str, text: str) -> None:
    """The file, the key and the cure."""
    assert complaint(*TLS, file=toml).startswith(f"regguard.toml:1: {text}")


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("realm = ", ""),
        ("\n\nrealm = \n", ":3"),
        ('realm = "a"\nrealm = "b"', ""),
        ('realm = "a"\nrealm = "b"\n', ":2"),
        ("realm", ""),
        ("\0", ":1"),
        ("a = '(at line 7, column 1)'\n\n!", ":3"),
    ],
)
def test_what_is_no_toml_is_refused_in_one_line(toml: str, line: str) -> None:
    """With the reason of Python's own reader, and the line unless the file ended too early."""
    assert complaint(*TLS, file=toml).startswith(f"regguard.toml{line}: is no TOML: ")


def test_a_file_that_is_no_utf_8_is_refused() -> None:
    """In one line, too."""
    Path("x.toml").write_bytes(b"\n# one\nrealm = '\xff'\n")

    assert complaint("--config", "x.toml").startswith("x.toml:3: is no TOML: ")


def test_a_file_that_cannot_be_read_is_refused() -> None:
    """With the reason and the cure."""
    assert complaint("-c", "nowhere.toml") == (
        "--config nowhere.toml: cannot be read (No such file or directory); "
        "check the path and its mode"
    )
    Path("folder").mkdir()
    assert complaint("-c", "folder").startswith(
        "--config folder: cannot be read (Is a directory); "
    )


def test_f01_passwords_in_words_are_not_shown() -> None:
    """Neither by the settings, which a traceback may print, nor by a complaint."""
    words = (*TLS, "--upstream", "https://rg:canary@r", "--auth", "ldap:bind:canary")

    assert "canary" in settings(*words).upstream[0]
    assert "canary" not in repr(settings(*words))
    assert "canary" not in complaint(*words, "--realm", "two\nlines")


# -- where it was said, and what comes of it -------------------------------------------------

RULES = """\
[[repository]]
match = "team/*"
push = "group:team"
[[repository]]
match = "secret"
pull = "nobody"
hide = true
immutable = "v*"
"""


def test_every_word_knows_where_it_was_said() -> None:
    """The file's line, or the command line where that wins; nothing for a default."""
    said = settings(
        *("--tls-cert", "a", "--push", "nobody", "--hide"),
        file='realm = "x"\n\npush = "valid-user"\ndelete = "nobody"\nhide = false\n' + RULES,
    ).said

    assert said == {
        "realm": "regguard.toml:1",
        "delete": "regguard.toml:4",
        **dict.fromkeys(("push", "hide", "tls-cert", "tls-key"), "command line"),
    }


def test_rules_stand_in_the_file_only_and_in_their_order() -> None:
    """With the lines of their words."""
    found = settings(*TLS, file=f'realm = "x"\n{RULES}')

    assert [rule.match for rule in found.rules] == [("team/*",), ("secret",)]
    assert found.rules[1].said["pull"] == "regguard.toml:7"
    assert str(found) == "2 [[repository]] tables"
    assert "repository" in complaint(*TLS, "--repository", "x")


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("[repository]\nmatch = 'a'", "regguard.toml:1: repository: write each rule below a line"),
        ("[[repositry]]\nmatch = 'a'", "regguard.toml:1: repositry: unknown key; did you mean rep"),
        ("[[repository]]\npull = 'nobody'", "regguard.toml:1: repository: no match; say"),
        (
            RULES + "catalog = 'nobody'\n",
            "regguard.toml:9: catalog: holds for all repositories; move it above the first",
        ),
        (RULES + "freeze = 'now'", "regguard.toml:9: freeze: holds for all repositories; move"),
        ('"a\\nb" = 1', "regguard.toml: 'a\\nb': unknown key; known keys: "),
        ('push = """\ngroup:a\ngroup:b"""', "regguard.toml:1: push: a name of two lines; is there"),
        ("read-timeout = " + "9" * 5000, "regguard.toml: is no TOML: Exceeds the limit"),
        ("freeze = true", "regguard.toml:1: freeze: takes a string"),
        ("freeze-file = []", "regguard.toml:1: freeze-file: takes a string"),
    ],
)
def test_a_mistake_about_rules_is_refused_in_one_line(toml: str, text: str) -> None:
    """The file, the line, the key and the cure."""
    assert complaint(*TLS, file=toml).startswith(text)


def test_a_freeze_needs_a_reason() -> None:
    """On the command line, too."""
    assert complaint(*TLS, "--freeze", " ").startswith("--freeze: say why")
    assert complaint(*TLS, "--freeze", "a\nb").startswith("--freeze: must be one line")


def decided(found: Settings, method: bytes, path: bytes) -> str:
    """The rule by which ann, who is in no group, may do this, or may not."""
    verdict = found.policy.decide("ann", frozenset(), parse_access(method, path))
    return f"{'may' if isinstance(verdict, Grant) else 'may not'} by {verdict.rule}"


@pytest.mark.parametrize(
    ("words", "toml", "rule"),
    [
        ([], "", "may not by push = group:pusher"),
        ([], 'push = "user:ann"', "may by regguard.toml:1: push = user:ann"),
        (["--push", "user:bob"], 'push = "user:ann"', "may not by command line: push = user:bob"),
        ([], RULES, "may not by regguard.toml:3: push = group:team"),
        (["--push", "user:ann"], RULES, "may not by regguard.toml:3: push = group:team"),
        ([], 'freeze = "x"\n' + RULES, "may not by regguard.toml:1: freeze"),
        (["--freeze", "x"], 'freeze = "y"', "may not by command line: freeze"),
    ],
)
def test_a_verdict_names_the_words_that_gave_it(words: list[str], toml: str, rule: str) -> None:
    """As they were said, and where; a default without a place."""
    assert decided(settings(*TLS, *words, file=toml), b"PUT", b"/v2/team/a/manifests/v1") == rule


def test_a_policy_has_all_the_words() -> None:
    """The four global ones, the rules with theirs, hiding, and the freeze."""
    found = settings(
        *TLS, "--pull", "user:ann", "--delete", "nobody", "--catalog", "user:bob", file=RULES
    )
    policy = found.policy

    assert (policy.pull, policy.push, policy.delete, policy.catalog) == (
        *(found.pull, found.push, found.delete, found.catalog),
    )
    assert decided(found, b"GET", b"/v2/a/tags/list") == "may by command line: pull = user:ann"
    assert decided(found, b"GET", b"/v2/_catalog") == (
        "may not by command line: catalog = user:bob"
    )
    assert decided(found, b"GET", b"/v2/secret/tags/list") == (
        "may not by regguard.toml:6: pull = nobody"
    )
    assert (policy.hides, policy.freeze) == (True, None)
    assert settings(*TLS, "--hide").policy.hides
    assert not settings(*TLS).policy.hides
    freeze = settings(*TLS, "--freeze", "moving").policy.freeze
    assert freeze == Freeze("moving", "command line: freeze")


def test_another_text_of_the_file_gives_other_settings() -> None:
    """The same words of the call; what was read before stays as it was."""
    options = Options()
    Path("regguard.toml").write_text('push = "nobody"\nrealm = "x"\n')
    options.parseOptions([*TLS, "-c", "regguard.toml", "--realm", "mine", "--auth", "a", "--hide"])
    before = options.settings
    after = options.settings_with(RULES.encode())

    assert (before.push, after.push) == (Who.parse("nobody"), Who.parse("group:pusher"))
    assert (before.rules, len(after.rules)) == ((), 2)
    for name in ("realm", "auth", "hide", "certificates"):
        assert getattr(before, name) == getattr(after, name)
    assert options.settings_with(b'push = "nobody"\nrealm = "x"\n') == before


def test_who_serves_nothing_needs_no_certificate() -> None:
    """The rules can be tried where there are none."""

    class Trying(Options):
        def serves(self) -> bool:
            return False

    options = Trying()
    options.parseOptions(["--push", "nobody"])  # type: ignore[no-untyped-call]

    assert options.settings.certificates == ()


# -- help ------------------------------------------------------------------------------------


def test_help_names_every_option_with_readable_spacing() -> None:
    """Each once, with a text, and no text torn by the source's line ends."""
    text = Options().getUsage(100)

    for name in (*_KEYS, "config", "check", "version", "help", "help-auth"):
        assert len(re.findall(rf"^ +(?:-\w, )?--{name}[= ] +\S", text, re.MULTILINE)) == 1, name
    for line in text.splitlines():
        assert not re.search(r"\S {2,}\S", re.sub(r"^ +(-\w, )?--\S+ +", "", line)), line
        assert "\t" not in line
        assert len(line) <= 100


def test_help_says_the_defaults() -> None:
    """Those that are in force."""
    text = " ".join(Options().getUsage(10_000).split())

    for default in (
        "tcp:5043",
        "http://127.0.0.1:5000",
        "auth/htpasswd",
        "auth/groups",
        "valid-user",
        "group:pusher",
        "Registry",
        "900",
        "combined",
    ):
        assert f"[default: {default}]" in text


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else happens."""
    with pytest.raises(SystemExit) as caught:
        settings("--version")

    assert caught.value.code == 0
    assert re.fullmatch(r"regguard \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_words_are_understood_without_a_reactor() -> None:
    """twist chooses it later (``--reactor``)."""
    code = "import sys, regguard.options; sys.exit('twisted.internet.reactor' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=_HERE).returncode == 0


_HERE = Path(__file__).resolve().parents[2]

"""The ``regguard explain`` command: what the guard would answer, and by which rule."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regguard import options
from regguard.access import Grant, Refusal, parse_access
from regguard.explain import Judge
from tests.test_passwd import CALL_SECONDS, environment

Explain = Callable[..., subprocess.CompletedProcess[str]]

DIGEST = "sha256:" + "0" * 64
MOUNT = f"/v2/{{}}/blobs/uploads/?mount={DIGEST}&from={{}}"

CONFIG = """\
push = "group:pusher"
catalog = "group:pusher"
[[repository]]
match = ["team-a/**", "{user}/*"]
pull = "group:devs"
push = "group:devs, user:ci"
delete = "group:devs"
immutable = ["v*"]
[[repository]]
match = "secret/*"
pull = "nobody"
hide = true
[[repository]]
match = "directory"
push = 'group:"cn=devs,ou=groups,dc=example"'
delete = "nobody"
"""


@pytest.fixture
def explain(tmp_path: Path) -> Explain:
    """Call it in a folder with a configuration and groups, and nothing else."""
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / "groups").write_text("devs: alice\npusher: alice zoe\n")
    (tmp_path / "r.toml").write_text(CONFIG)

    def explain(
        *request: str, words: tuple[str, ...] = ("-c", "r.toml")
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "regguard.cli", "explain", *words, *request],
            cwd=tmp_path,
            env={**environment(), "PYTHONIOENCODING": "utf-8:strict"},
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return explain


@pytest.mark.parametrize(
    ("request_", "status", "lines"),
    [
        (
            ("alice", "GET", "/v2/team-a/app/manifests/v1"),
            0,
            [
                "alice, in the groups devs, pusher",
                "GET /v2/team-a/app/manifests/v1: pull team-a/app",
                "allowed by r.toml:5: pull = group:devs",
            ],
        ),
        (
            ("bob", "GET", "/v2/team-a/app/manifests/v1"),
            1,
            [
                "bob, in no group",
                "GET /v2/team-a/app/manifests/v1: pull team-a/app",
                "denied: user bob may not pull team-a/app: pull needs group:devs",
                "  by r.toml:5: pull = group:devs",
            ],
        ),
        (
            ("bob:devs,  admins", "GET", "/v2/bob/x/tags/list"),
            0,
            [
                "bob, in the groups admins, devs",
                "GET /v2/bob/x/tags/list: pull bob/x",
                "allowed by r.toml:5: pull = group:devs",
            ],
        ),
        (
            ("bob", "GET", "/v2/else/manifests/latest"),
            0,
            [
                "bob, in no group",
                "GET /v2/else/manifests/latest: pull else",
                "allowed by pull = valid-user",
            ],
        ),
        (
            ("bob", "PUT", "/v2/else/manifests/latest"),
            1,
            [
                "bob, in no group",
                "PUT /v2/else/manifests/latest: push else",
                "denied: user bob may pull but not push else: push needs group:pusher",
                "  by r.toml:1: push = group:pusher",
            ],
        ),
        (
            ("ci", "PUT", "/v2/team-a/app/manifests/v1"),
            0,
            [
                "ci, in no group",
                "PUT /v2/team-a/app/manifests/v1: push team-a/app",
                "allowed by r.toml:6: push = group:devs, user:ci",
                "  unless there is a tag v1 already that stands for another manifest",
                "  by r.toml:8: immutable = v*",
            ],
        ),
        (
            ("ci", "PUT", "/v2/team-a/app/manifests/latest"),
            0,
            [
                "ci, in no group",
                "PUT /v2/team-a/app/manifests/latest: push team-a/app",
                "allowed by r.toml:6: push = group:devs, user:ci",
            ],
        ),
        (
            ("alice", "DELETE", "/v2/team-a/app/manifests/v1"),
            1,
            [
                "alice, in the groups devs, pusher",
                "DELETE /v2/team-a/app/manifests/v1: delete team-a/app",
                "denied: user alice may not delete team-a/app:v1: the tag is immutable",
                "  by r.toml:8: immutable = v*",
            ],
        ),
        (
            ("alice", "DELETE", f"/v2/team-a/app/manifests/{DIGEST}"),
            0,
            [
                "alice, in the groups devs, pusher",
                f"DELETE /v2/team-a/app/manifests/{DIGEST}: delete team-a/app",
                "allowed by r.toml:7: delete = group:devs",
                "  unless an immutable tag stands for it",
                "  by r.toml:8: immutable = v*",
            ],
        ),
        (
            ("zoe", "GET", "/v2/secret/x/manifests/v1"),
            1,
            [
                "zoe, in the groups pusher",
                "GET /v2/secret/x/manifests/v1: pull secret/x",
                (
                    "denied: user zoe may push and delete but not pull secret/x: "
                    "pull is open to nobody"
                ),
                "  by r.toml:11: pull = nobody",
                "  and answered like a missing repository: hide = true",
            ],
        ),
        (
            ("zoe", "POST", MOUNT.format("app", "team-a/app")),
            0,
            [
                "zoe, in the groups pusher",
                (
                    f"POST {MOUNT.format('app', 'team-a/app')}: push app, "
                    "with a layer mounted from team-a/app"
                ),
                "allowed by r.toml:1: push = group:pusher",
                (
                    "  without the mount: no right to pull team-a/app; the client "
                    "uploads the layer instead"
                ),
            ],
        ),
        (
            ("alice", "POST", MOUNT.format("app", "team-a/app")),
            0,
            [
                "alice, in the groups devs, pusher",
                (
                    f"POST {MOUNT.format('app', 'team-a/app')}: push app, "
                    "with a layer mounted from team-a/app"
                ),
                "allowed by r.toml:1: push = group:pusher",
            ],
        ),
        (
            ("bob", "GET", "/v2/_catalog"),
            1,
            [
                "bob, in no group",
                "GET /v2/_catalog: catalog",
                "denied: user bob may not list the catalog: catalog needs group:pusher",
                "  by r.toml:2: catalog = group:pusher",
            ],
        ),
        (
            ("bob", "GET", "/v2/"),
            0,
            ["bob, in no group", "GET /v2/: login", "allowed by login = valid-user"],
        ),
        (
            ("bob", "GET", "/"),
            0,
            ["GET /", "allowed, whoever asks: a line that says what is here"],
        ),
        (
            ("bob", "PUT", "/"),
            1,
            ["PUT /", "refused, whoever asks: 404 NAME_UNKNOWN: nothing is served outside /v2/"],
        ),
        (
            ("bob", "get", "/v2/"),
            1,
            [
                "get /v2/",
                "refused, whoever asks: 405 UNSUPPORTED: allowed here: GET, HEAD",
            ],
        ),
    ],
)
def test_the_verdict_names_the_rule(
    explain: Explain, request_: tuple[str, ...], status: int, lines: list[str]
) -> None:
    """User with groups, what the request means, what is said to it, and by which line."""
    done = explain(*request_)

    assert done.stdout.splitlines() == lines
    assert (done.returncode, done.stderr) == (status, "")


def test_groups_of_a_directory_may_have_commas(explain: Explain) -> None:
    """A DN stands in quotes, as in the rules, and is spelled as one likes."""
    put = ("PUT", "/v2/directory/manifests/v1")

    assert explain('bob:admins,"CN=devs, ou=groups,dc=example"', *put).returncode == 0
    assert explain("bob:cn=devs,ou=groups,dc=example", *put).returncode == 1
    assert explain("bob:devs", *put).returncode == 1
    done = explain('bob:devs,"CN=devs', *put)
    assert done.returncode == 64
    assert done.stderr.endswith('CN=devs holds a quote that is not closed: add "\n')


def test_a_freeze_is_told(explain: Explain, tmp_path: Path) -> None:
    """By word and by file; pulls go on."""
    put = ("alice", "PUT", "/v2/x/manifests/v1")
    (tmp_path / "frozen").write_text("moving\nhouse")
    words = ("-c", "r.toml", "--freeze-file", "frozen")
    done = explain(*put, words=words)

    assert done.returncode == 1
    assert done.stdout.splitlines()[2:] == [
        "denied: user alice may not push x now: the registry is frozen: moving house",
        "  by freeze-file frozen",
    ]
    assert explain("alice", "GET", "/v2/x/manifests/v1", words=words).returncode == 0

    (tmp_path / "frozen").unlink()
    assert explain(*put, words=words).returncode == 0

    (tmp_path / "r.toml").write_text('freeze = "for good"\n')
    assert explain(*put).stdout.splitlines()[2:] == [
        "denied: user alice may not push x now: the registry is frozen: for good",
        "  by r.toml:1: freeze",
    ]
    done = explain(*put, words=("-c", "r.toml", "--freeze", "now"))
    assert done.stdout.splitlines()[3] == "  by command line: freeze"


def test_odd_characters_are_shown_and_not_sent(explain: Explain) -> None:
    """Neither a terminal nor a strict encoding minds what stands in a request."""
    done = explain(os.fsdecode(b"b\xff\x1b[1mb"), "GET", os.fsdecode(b"/v2/\xff\n"))
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, r"GET /v2/\udcff\n")

    done = explain("Jürgen\x1b[1m", "GET", "/v2/")
    assert done.stdout.splitlines()[0] == r"J\xfcrgen\x1b[1m, in no group"
    assert explain("Jürgen", "GET", "/v2/").stdout.splitlines()[0] == "Jürgen, in no group"


def test_the_daemons_words_are_taken(explain: Explain) -> None:
    """Those that do not matter need not even be there."""
    words = (
        *("-c", "r.toml", "--tls-cert", "nowhere", "--htpasswd", "nowhere", "--listen", "tcp:1"),
        *("--auth", "ldap:nowhere", "--upstream", "http://nowhere", "--check"),
    )
    assert explain("alice", "GET", "/v2/", words=words).returncode == 0
    assert explain("alice", "PUT", "/v2/x/manifests/v1", words=()).returncode == 0


@pytest.mark.parametrize(
    ("words", "request_", "reason"),
    [
        ((), (), "write regguard explain --config FILE USER METHOD PATH, such as"),
        ((), ("bob", "GET"), "write regguard explain "),
        ((), ("bob", "GET", "/v2/", "-c", "r.toml"), "write regguard explain "),
        ((), ("", "GET", "/v2/"), "'' has no name: write NAME or NAME:GROUP,GROUP"),
        ((), (":devs", "GET", "/v2/"), "':devs' has no name: write NAME or"),
        (("--frob",), ("bob", "GET", "/v2/"), "option --frob not recognized"),
        (("--push", "devs"), ("bob", "GET", "/v2/"), "--push: 'devs' is not understood: "),
        (("--freeze", ""), ("bob", "GET", "/v2/"), "--freeze: say why"),
        (("--groups", "none"), ("bob", "GET", "/v2/"), "--groups none: No such file"),
        (("-c", "none"), ("bob", "GET", "/v2/"), "--config none: cannot be read (No such file"),
        (("-c", "bad"), ("bob", "GET", "/v2/"), "bad:2: match: 'A': repository names have no"),
    ],
)
def test_words_that_cannot_be_used_are_one_line_and_status_64(
    explain: Explain,
    tmp_path: Path,
    words: tuple[str, ...],
    request_: tuple[str, ...],
    reason: str,
) -> None:
    """No verdict is not the same as a bad one."""
    (tmp_path / "bad").write_text("[[repository]]\nmatch = 'A'\n")
    done = explain(*request_, words=words)

    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith(f"regguard: {reason}")
    assert done.stderr.count("\n") == 1


def test_help_lists_what_matters(explain: Explain) -> None:
    """Nothing that a verdict does not depend on."""
    done = explain("--help", words=())
    listed = {line.split("--")[1].split()[0].rstrip("=") for line in done.stdout.splitlines()
              if line.lstrip().startswith(("--", "-c"))}  # fmt: skip

    assert done.returncode == 0
    assert done.stdout.startswith("Usage: regguard explain [options] USER METHOD PATH\n")
    assert listed == {
        *("config", "groups", "pull", "push", "delete", "catalog", "hide", "freeze"),
        *("freeze-file", "help", "version"),
    }


# -- the guard's own decision ----------------------------------------------------------------

_NAMES = st.sampled_from(["alice", "bob", "ci", "zoe", "team-a"])
_REPOSITORIES = st.sampled_from(
    ["team-a/app", "team-a", "alice/x", "bob/x", "secret/x", "directory", "a/b/c", "tags/list"]
)
_ENDPOINTS = st.sampled_from(
    ["manifests/v1", "manifests/latest", f"manifests/{DIGEST}", f"manifests/{DIGEST}?tag=v1",
     f"blobs/{DIGEST}", "blobs/uploads/", "blobs/uploads/id", "tags/list", f"referrers/{DIGEST}"]
)  # fmt: skip
_PATHS = st.one_of(
    st.builds(
        lambda repository, endpoint: f"/v2/{repository}/{endpoint}", _REPOSITORIES, _ENDPOINTS
    ),
    st.builds(MOUNT.format, _REPOSITORIES, _REPOSITORIES),
    st.sampled_from(["/v2/", "/v2/_catalog", "/v2", "/v1/", "/v2/%2e/", "//"]),
)
_METHODS = st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "TRACE"])
_GROUPS = st.frozensets(st.sampled_from(["devs", "pusher", "others"]))


@given(
    name=_NAMES, groups=_GROUPS, method=_METHODS, path=_PATHS, hide=st.booleans(),
    frozen=st.booleans(),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500)
def test_it_says_what_the_guard_decides(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str,
    groups: frozenset[str],
    method: str,
    path: str,
    hide: bool,
    frozen: bool,
) -> None:
    """From the same settings, for whatever request of whomever."""
    monkeypatch.chdir(tmp_path)
    words = options.Options()
    (tmp_path / "r.toml").write_text(CONFIG)
    words.parseOptions(
        [*("-c", "r.toml", "--no-tls"), *["--hide"] * hide, *(["--freeze", "x"] if frozen else ())]
    )
    verdict = Judge(words.settings).verdict(f"{name}:{','.join(groups)}", method, path)
    try:
        access = parse_access(method.encode(), path.encode())
    except Refusal:
        assert not verdict.allowed
        return
    decision = words.settings.policy.decide(name, groups, access)

    assert verdict.allowed == isinstance(decision, Grant)
    assert any(line.endswith(f"by {decision.rule}") for line in verdict.lines)

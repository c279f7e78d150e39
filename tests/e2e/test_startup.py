"""The daemon's start: what it needs, and what it says when something is wrong."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.e2e.clients import curl
from tests.e2e.programs import (
    FAULTS,
    Ground,
    Guard,
    Program,
    Registry,
    accepts,
    binary,
    free_port,
    run,
    twist,
)

START_SECONDS = 30


@pytest.fixture
def place(ground: Ground, tmp_path: Path) -> Path:
    """A folder as the README describes it: domain.crt, domain.key, auth/htpasswd, auth/groups."""
    for name in ("domain.crt", "domain.key"):
        shutil.copy2(ground.folder / name, tmp_path)
    shutil.copytree(ground.folder / "auth", tmp_path / "auth")
    return tmp_path


def test_one_option_is_a_complete_call(place: Path, ground: Ground) -> None:
    """``twist regguard --tls-cert domain.crt`` beside a key and auth/htpasswd just runs."""
    (place / "auth" / "groups").unlink()
    port, words = 5043, ["--tls-cert", "domain.crt"]
    if accepts(port):  # by something else on this machine
        port = free_port()
        words += ["--listen", f"tcp:{port}"]
    program = Program(twist(*words), place / "log", place)
    try:
        program.wait_until("the guard to listen", lambda: accepts(port))
        done = subprocess.run(
            [
                *(binary("curl"), "--silent", "--cacert", str(ground.ca), "--output", os.devnull),
                *("--write-out", "%{http_code}", f"https://localhost:{port}/v2/"),
            ],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=True,
        )
        assert done.stdout == "401"
    finally:
        program.stop()
    log = program.output()
    assert not FAULTS.search(log), log


def test_start_up_says_what_is_guarded_and_where(guard: Guard, registry: Registry) -> None:
    """The first lines name the listening port, the upstream and the files."""
    for part in (str(guard.port), registry.url, str(guard.ground.htpasswd)):
        guard.wait_for_line(part)


def test_sigterm_ends_it_cleanly(guard: Guard, ground: Ground, tmp_path: Path) -> None:
    """With nothing under way the end comes at once, with status 0."""
    other = Guard(ground, tmp_path, "http://127.0.0.1:5000")
    assert curl(other, "/v2/").status == 401

    assert other.program.stop(signal.SIGTERM) == 0
    other.check_log()
    assert not accepts(other.port)


def refusal(place: Path, *words: str, through: Sequence[str] = ()) -> str:
    """Start with these words, which must fail; the one line that says why."""
    done = run([*through, *twist(*words)], place)
    said = done.stderr + done.stdout
    assert done.returncode != 0, said
    assert not FAULTS.search(said), said
    (line,) = said.splitlines()
    return line


def _mismatched_key(place: Path) -> list[str]:
    Authority().issue().write(place, "other")
    return ["--tls-cert", "domain.crt", "--tls-key", "other.key"]


def _no_key(place: Path) -> list[str]:
    (place / "domain.key").unlink()
    return ["--tls-cert", "domain.crt"]


def _garbage_certificate(place: Path) -> list[str]:
    (place / "garbage.crt").write_text("this is no certificate\n")
    return ["--tls-cert", "garbage.crt", "--tls-key", "domain.key"]


def _key_for_all(place: Path) -> list[str]:
    (place / "domain.key").chmod(0o644)
    return ["--tls-cert", "domain.crt"]


def _no_htpasswd(place: Path) -> list[str]:
    (place / "auth" / "htpasswd").unlink()
    return ["--tls-cert", "domain.crt"]


def _bad_htpasswd(place: Path) -> list[str]:
    with (place / "auth" / "htpasswd").open("a") as file:
        file.write("a line without a colon\n")
    return ["--tls-cert", "domain.crt"]


def _bad_groups(place: Path) -> list[str]:
    (place / "auth" / "groups").write_text("pusher: testuserpush\nno colon here\n")
    return ["--tls-cert", "domain.crt"]


def with_good_certificate(*words: str) -> Callable[[Path], list[str]]:
    """These words after a certificate that is in order."""
    return lambda _place: ["--tls-cert", "domain.crt", *words]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        pytest.param(lambda _: [], ["--tls-cert", "--no-tls"], id="no-certificate-named"),
        pytest.param(
            lambda _: ["--tls-cert", "nowhere.crt"], ["--tls-cert", "nowhere.crt"], id="no-cert"
        ),
        pytest.param(
            lambda _: ["--tls-cert", "auth"], ["--tls-cert", "auth"], id="certificate-is-a-folder"
        ),
        pytest.param(_garbage_certificate, ["--tls-cert", "garbage.crt"], id="garbage-cert"),
        pytest.param(
            _key_for_all, ["--tls-key domain.key", "chmod 640 domain.key"], id="g09-key-for-all"
        ),
        pytest.param(
            with_good_certificate("--tls-client-ca", "auth/groups"),
            ["--tls-client-ca auth/groups: holds no PEM certificate"],
            id="garbage-client-ca",
        ),
        pytest.param(_no_key, ["--tls-key", "domain.key"], id="no-key"),
        pytest.param(
            _mismatched_key, ["--tls-key", "other.key", "domain.crt"], id="key-of-another"
        ),
        pytest.param(_no_htpasswd, ["--htpasswd", "auth/htpasswd"], id="no-htpasswd"),
        pytest.param(_bad_htpasswd, ["auth/htpasswd:3"], id="bad-htpasswd-line"),
        pytest.param(
            with_good_certificate("--htpasswd", "auth"),
            ["--htpasswd", "auth"],
            id="htpasswd-folder",
        ),
        pytest.param(
            with_good_certificate("--groups", "nowhere"), ["--groups", "nowhere"], id="no-groups"
        ),
        pytest.param(_bad_groups, ["auth/groups:2", "colon"], id="bad-groups-line"),
        pytest.param(
            with_good_certificate("--push", "group:pushers"),
            ["--push", "pushers", "auth/groups"],
            id="unknown-group",
        ),
        pytest.param(
            with_good_certificate("--push", "everybody"),
            ["--push", "everybody", "valid-user"],
            id="unknown-who",
        ),
        pytest.param(
            with_good_certificate("--upstream", "http://"), ["--upstream", "http://"], id="no-host"
        ),
        pytest.param(
            with_good_certificate("--upstream", "ftp://registry:5000"),
            ["--upstream", "ftp"],
            id="upstream-scheme",
        ),
        pytest.param(
            with_good_certificate("--upstream", "http://a:80", "--upstream", "http://u:p@A"),
            ["--upstream http://A: given twice", "name each registry once"],
            id="upstream-twice",
        ),
        pytest.param(
            with_good_certificate("--upstream", "http://a", "--upstream-ca", "ca.pem"),
            ["--upstream-ca ca.pem", "https://"],
            id="upstream-ca-for-nothing",
        ),
        pytest.param(
            with_good_certificate("--listen", "5043"), ["--listen", "5043"], id="bad-endpoint"
        ),
        pytest.param(
            with_good_certificate("--config", "nowhere.toml"),
            ["--config", "nowhere.toml"],
            id="no-config",
        ),
        pytest.param(
            with_good_certificate("--read-timeout", "soon"),
            ["--read-timeout", "soon"],
            id="no-number",
        ),
    ],
)
def test_bad_input_is_one_line_that_names_option_and_file(
    place: Path, words: Callable[[Path], list[str]], parts: list[str]
) -> None:
    """No start, an exit status that is not 0, no traceback, and a line that says what to mend."""
    line = refusal(place, *words(place))
    for part in parts:
        assert part in line


def test_g08_an_expired_certificate_is_said_and_serves(place: Path, ground: Ground) -> None:
    """A restart is not the moment to take down a registry that some clients may still use."""
    Authority().issue(days=-1).write(place)
    guard = Guard(ground, place / "guard", "http://127.0.0.1:5000", "--tls-cert", "../domain.crt")
    try:
        guard.wait_for_line("#warn]", "../domain.crt: the certificate expired on ")
        assert curl(guard, "/v2/", "--insecure").status == 401
    finally:
        guard.stop()


def test_check_says_who_signs_the_certificates_of_clients(place: Path) -> None:
    """And until when, beside the certificates of our own."""
    authority = Authority("users")
    (place / "clients.pem").write_bytes(
        authority.certificate + authority.revoke(authority.issue_client("ci"))
    )
    words = ("--tls-cert", "domain.crt", "--tls-client-ca", "clients.pem", "--check")
    done = run(twist(*words), place)

    assert done.returncode == 0, done.stderr
    assert "\ncertificate domain.crt: localhost; until 20" in done.stdout
    assert "\nclient certificates by clients.pem: CN=users; until 20" in done.stdout
    assert "; 1 revoked\n" in done.stdout


def test_busy_port_ends_the_start(place: Path) -> None:
    """Not to listen is not to serve: the process ends and names option and port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refusal(
            place, "--tls-cert", "domain.crt", "--listen", f"tcp:{port}:interface=127.0.0.1"
        )
    assert "--listen" in line
    assert str(port) in line


# Root without these two capabilities heeds file modes like anyone else.
HEEDING_MODES = (
    *("setpriv", "--bounding-set", "-dac_override,-dac_read_search"),
    *("--inh-caps", "-dac_override,-dac_read_search"),
)


@pytest.mark.parametrize(
    ("name", "option"), [("domain.key", "--tls-key"), ("auth/htpasswd", "--htpasswd")]
)
def test_unreadable_file_is_named(place: Path, name: str, option: str) -> None:
    """A file that this user may not read is named together with option and reason."""
    (place / name).chmod(0)
    line = refusal(
        place, "--tls-cert", "domain.crt", through=HEEDING_MODES if os.geteuid() == 0 else ()
    )
    for part in (name, option, "denied"):
        assert part in line

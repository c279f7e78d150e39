"""The parts of ``regguard demo`` that need no running program."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import ssl
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import bcrypt
import pytest

from regguard import cli, demo
from regguard.demo import page
from regguard.demo.image import digest, random_image
from regguard.demo.processes import Program
from regguard.demo.stage import Stage, User, prepare


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A folder made ready for a demo on ports that nobody opens."""
    folder = tmp_path / "stage"
    folder.mkdir(mode=0o700)
    return prepare(folder, port=5043, registry_port=5000)


def test_passwords_match_their_hashes_and_differ_each_time(stage: Stage, tmp_path: Path) -> None:
    """The htpasswd file holds both users, hashed with bcrypt."""
    lines = (stage.folder / "auth" / "htpasswd").read_text().splitlines()
    hashes = dict(line.split(":") for line in lines)

    assert set(hashes) == {"testuser", "testuserpush"}
    for user in (stage.reader, stage.pusher):
        assert bcrypt.checkpw(user.password.encode(), hashes[user.name].encode())
    other = tmp_path / "other"
    other.mkdir()
    again = prepare(other, port=5043, registry_port=5000)
    passwords = {user.password for user in (stage.reader, stage.pusher, again.reader, again.pusher)}
    assert len(passwords) == 4


def test_secrets_are_readable_by_their_owner_alone(stage: Stage) -> None:
    """The key and the hashes, even if the folder were opened to others."""
    for name in ("domain.key", "auth/htpasswd"):
        assert stat.S_IMODE((stage.folder / name).stat().st_mode) == 0o600


def test_no_secret_in_a_command_or_a_repr(stage: Stage) -> None:
    """Every user of the machine can read a process's words."""
    for password in (stage.reader.password, stage.pusher.password):
        assert not any(password in word for word in stage.guard_command())
        assert password not in repr(stage)


def test_certificate_serves_localhost_and_its_address_under_the_ca(stage: Stage) -> None:
    """A client that trusts trust/ca.crt alone takes it, under each name the page uses."""
    for name in ("localhost", "127.0.0.1"):
        trusting, serving = ssl.create_default_context(cafile=stage.ca), _server(stage)
        if sys.version_info >= (3, 13):
            assert trusting.verify_flags & ssl.VERIFY_X509_STRICT
        trusting.verify_flags |= ssl.VERIFY_X509_STRICT
        _shake_hands(trusting, serving, name)


def test_certificate_serves_no_other_name(stage: Stage) -> None:
    """The check above can fail."""
    with pytest.raises(ssl.SSLCertVerificationError, match="example"):
        _shake_hands(ssl.create_default_context(cafile=stage.ca), _server(stage), "example.com")


def test_ca_key_is_never_written(stage: Stage) -> None:
    """Who trusts the demo's CA trusts nothing else by it."""
    keys = [
        path
        for path in stage.folder.rglob("*")
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes()
    ]
    assert keys == [stage.folder / "domain.key"]
    assert [path.name for path in stage.trust.iterdir()] == ["ca.crt"]


def _server(stage: Stage) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(stage.folder / "domain.crt", stage.folder / "domain.key")
    return context


def _shake_hands(trusting: ssl.SSLContext, serving: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"


def test_page_names_users_and_passwords_and_where_they_count(stage: Stage) -> None:
    """Everything that a person needs stands on the page, for each of the four tools."""
    text = page.welcome(stage)

    for user in (stage.reader, stage.pusher):
        assert f"{user.name:<14}  {user.password}" in text
    for part in ("https://localhost:5043", str(stage.ca), "/etc/docker/certs.d/localhost:5043"):
        assert part in text
    for tool in ("curl", "skopeo", "podman", "docker"):
        assert f"\n  {tool} " in text


def test_image_is_valid_and_its_digests_hold(tmp_path: Path) -> None:
    """Layers unpack to the files in them, and every name is the hash of its content."""
    image = random_image((10, 5_000))
    image.write_layout(tmp_path, "v1")

    manifest = json.loads(image.manifest)
    assert [part["digest"] for part in manifest["layers"]] == [digest(it) for it in image.layers]
    assert manifest["config"]["digest"] == digest(image.config)
    for layer, size in zip(image.layers, (10, 5_000), strict=True):
        with tarfile.open(fileobj=io.BytesIO(layer), mode="r:gz") as archive:
            assert [entry.size for entry in archive] == [size]
    for path in (tmp_path / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_program_tells_its_end_and_its_last_lines(tmp_path: Path) -> None:
    """What a demo says of a program that died."""
    program = Program("guard", ["sh", "-c", "seq 100; exit 3"], tmp_path)
    while program.ended() is None:
        time.sleep(0.01)

    assert program.ended() == "exit status 3"
    lines = program.last_lines().splitlines()
    assert (lines[0], lines[-1]) == ("The last lines of the guard:", "  100")
    program.stop()


def test_program_that_will_not_stop_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM asks; after a while SIGKILL does not ask."""
    monkeypatch.setattr("regguard.demo.processes.STOP_SECONDS", 0.2)
    program = Program(
        "guard", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], tmp_path
    )
    while "ready" not in program.last_lines():
        time.sleep(0.01)
    program.stop()

    assert program.ended() == f"signal {signal.SIGKILL.name}"


@pytest.mark.parametrize("word", ["-1", "65536", "http", "5_043", "\u0665"])
def test_port_that_is_none_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what a port is."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", f"--port={word}"])

    assert stopped.value.code == 2
    assert "no port number" in capsys.readouterr().err


def test_cli_hands_over_to_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's words reach the demo, and its status comes back."""
    monkeypatch.setattr(demo, "serve", lambda port: port)
    monkeypatch.setattr(demo, "smoke_test", lambda: 1)

    assert cli.main(["demo"]) == 5043
    assert cli.main(["demo", "--port", "7"]) == 7
    assert cli.main(["demo", "--smoke"]) == 1


def test_output_that_nobody_reads_is_no_traceback(tmp_path: Path) -> None:
    """``regguard demo | head`` ends quietly."""
    script = (
        "import sys; from regguard import cli, demo\n"
        "def serve(port):\n    while True: print('line', flush=True)\n"
        "demo.serve = serve; sys.exit(cli.main(['demo']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 1


def test_user_does_not_show_its_password() -> None:
    """Neither in a traceback nor in a log."""
    assert "secret" not in repr(User("name", "secret"))

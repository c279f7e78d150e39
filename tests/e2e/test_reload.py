"""The operator's files change under a running guard: who is out is out, who is in is in."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path

import bcrypt
import pytest

from regguard.auth.editing import delete_user, set_hash
from regguard.auth.hashes import StoredHash
from tests.canary import CANARY, secret
from tests.e2e.clients import curl
from tests.e2e.conftest import BCRYPT_COST
from tests.e2e.programs import PATIENCE, Ground, Guard, Registry, binary

# What the README promises.
REACTION_SECONDS = 1.0

StartOn = Callable[..., Guard]


def stored(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()


@pytest.fixture
def own(ground: Ground, tmp_path: Path) -> Ground:
    """Files of this test's own, with the same users."""
    shutil.copytree(ground.htpasswd.parent, tmp_path / "auth")
    return dataclasses.replace(
        ground,
        htpasswd=tmp_path / "auth" / ground.htpasswd.name,
        groups=tmp_path / "auth" / ground.groups.name,
    )


@pytest.fixture
def own_guard(own: Ground, registry: Registry, tmp_path: Path) -> Iterator[Guard]:
    """A guard on them."""
    guard = Guard(own, tmp_path / "guard", registry.url)
    yield guard
    guard.stop()


class Loop:
    """A client that sends one request after the other on one kept connection."""

    def __init__(self, guard: Guard, credentials: str) -> None:
        token = b64encode(credentials.encode())
        self._request = (
            b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic " + token + b"\r\n\r\n"
        )
        self._guard = guard
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        #: Status and time of each answer.
        self.answers: list[tuple[int, float]] = []
        self.connections = 0

    def _run(self) -> None:
        with self._guard.connection() as connection:
            self.connections += 1
            while not self._stop.is_set():
                connection.sendall(self._request)
                self.answers.append((_status(connection), time.monotonic()))
                time.sleep(0.005)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def wait_for(self, status: int, since: float = 0.0) -> float:
        """When this status was first seen after ``since``."""

        def times() -> list[float]:
            return [when for code, when in list(self.answers) if code == status and when > since]

        self._guard.program.wait_until(f"an answer {status}", lambda: bool(times()))
        return times()[0]


def _status(connection: ssl.SSLSocket | socket.socket) -> int:
    """Read one answer of known length."""

    def more() -> bytes:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the guard closed the connection")
        return piece

    data = b""
    while b"\r\n\r\n" not in data:
        data += more()
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += more()
    return int(head.split()[1])


def regguard_passwd(*words: str, given: str = "") -> None:
    """The command beside the guard, under the Python that runs the tests."""
    subprocess.run(
        [sys.executable, "-m", "regguard.cli", "passwd", *words],
        input=given,
        text=True,
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )


def test_e13_a_deleted_user_is_out_within_a_second_and_back_as_soon(own_guard: Guard) -> None:
    """On a kept connection, with a credential that was verified a moment ago."""
    name, password = own_guard.ground.reader
    file = str(own_guard.ground.htpasswd)
    with Loop(own_guard, own_guard.ground.as_reader) as loop:
        loop.wait_for(200)

        delete_user(file, name)
        deleted = time.monotonic()
        refused = loop.wait_for(401)

        set_hash(file, name, StoredHash.make(password.encode(), 10))
        added = time.monotonic()
        admitted = loop.wait_for(200, since=refused)

    assert loop.connections == 1
    assert refused - deleted < REACTION_SECONDS
    assert admitted - added < REACTION_SECONDS
    # The first refusal is the change of sides: nobody slips through after it.
    codes = [code for code, when in loop.answers if when < admitted]
    assert 200 not in codes[codes.index(401) :]


def test_e13_a_changed_password_ends_the_old_one(own_guard: Guard) -> None:
    """The old one is out at once though it is cached, and the new one is in."""
    name, changed_to = own_guard.ground.reader[0], secret("another one")
    with Loop(own_guard, own_guard.ground.as_reader) as loop:
        loop.wait_for(200)
        regguard_passwd(
            *(str(own_guard.ground.htpasswd), name, "--stdin", "--cost", "10"), given=changed_to
        )
        changed = time.monotonic()

        assert loop.wait_for(401) - changed < REACTION_SECONDS
    assert curl(own_guard, "/v2/", credentials=f"{name}:{changed_to}").status == 200


def test_the_last_user_can_be_deleted(own_guard: Guard) -> None:
    """The guard takes a table of nobody over, and does not keep the last user for ever."""
    with Loop(own_guard, own_guard.ground.as_pusher) as loop:
        loop.wait_for(200)
        for name, _ in (own_guard.ground.reader, own_guard.ground.pusher):
            regguard_passwd(str(own_guard.ground.htpasswd), name, "--delete")
        loop.wait_for(401)

    own_guard.wait_for_line(str(own_guard.ground.htpasswd), "loaded anew, 0 users")


def test_e16_a_half_written_file_changes_nothing_and_logs_one_line(own_guard: Guard) -> None:
    """Both users stay in while the file is damaged; the whole file counts when it is there."""
    file = own_guard.ground.htpasswd
    whole = file.read_bytes()
    with Loop(own_guard, own_guard.ground.as_reader) as loop:
        loop.wait_for(200)
        file.write_bytes(whole[: len(whole) * 2 // 3])
        own_guard.wait_for_line(f"{file}:2: user testuserpush: ", "stays in force")
        # The watcher looks at both files each time: it has nothing to add to the line.
        for number, users in enumerate(("0 users", "1 user", "2 users")):
            own_guard.ground.groups.write_text("pusher: " + " ".join("xyz"[:number]))
            own_guard.wait_for_line(
                str(own_guard.ground.groups), f"loaded anew, 1 group of {users}"
            )
        assert curl(own_guard, "/v2/", credentials=own_guard.ground.as_pusher).status == 200

        file.write_bytes(whole + f"third:{stored(secret('3'))}\n".encode())
        own_guard.wait_for_line(str(file), "loaded anew, 3 users")

    assert {code for code, _ in loop.answers} == {200}
    # Not any "stays in force": a look may fall between a file's truncation and its new content.
    assert own_guard.program.output().count(f"{file}:2: user testuserpush: ") == 1
    assert curl(own_guard, "/v2/", credentials=f"third:{secret('3')}").status == 200


def test_e16_a_swapped_symlink_is_noticed(own: Ground, registry: Registry, tmp_path: Path) -> None:
    """As Kubernetes replaces mounted secrets: ..data leads to another folder at one stroke."""
    mount = tmp_path / "mount"
    for version, text in (
        ("..1", own.htpasswd.read_text()),
        ("..2", f"testuser:{stored(secret('second'))}\n"),
    ):
        (mount / version).mkdir(parents=True)
        (mount / version / "htpasswd").write_text(text)
    (mount / "..data").symlink_to("..1")
    (mount / "htpasswd").symlink_to("..data/htpasswd")
    guard = Guard(
        dataclasses.replace(own, htpasswd=mount / "htpasswd"), tmp_path / "guard", registry.url
    )
    try:
        with Loop(guard, own.as_reader) as loop:
            loop.wait_for(200)
            (mount / "..new").symlink_to("..2")
            (mount / "..new").rename(mount / "..data")
            swapped = time.monotonic()

            assert loop.wait_for(401) - swapped < REACTION_SECONDS
        assert curl(guard, "/v2/", credentials=f"testuser:{secret('second')}").status == 200
    finally:
        guard.stop()


def test_e17_a_rewrite_of_the_same_size_and_time_is_noticed(own_guard: Guard) -> None:
    """Nothing but the content tells the versions apart for who looks at size and mtime only."""
    file = own_guard.ground.htpasswd
    before = file.stat()
    with Loop(own_guard, own_guard.ground.as_reader) as loop:
        loop.wait_for(200)
        line = f"testuser:{stored(secret('second'))}\n"
        file.write_text(line + file.read_text()[len(line) :])
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        after, changed = file.stat(), time.monotonic()
        assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
            before.st_size,
            before.st_mtime_ns,
            before.st_ino,
        )

        assert loop.wait_for(401) - changed < REACTION_SECONDS


def test_sighup_reads_all_anew_at_once(own_guard: Guard) -> None:
    """Even what did not change, and what was refused is told again."""
    guard, file, groups = own_guard, own_guard.ground.htpasswd, own_guard.ground.groups
    assert "loaded anew" not in guard.program.output()
    os.kill(guard.program.pid, signal.SIGHUP)
    guard.wait_for_line(str(file), "loaded anew, 2 users")
    guard.wait_for_line(str(groups), "loaded anew, 1 group of 1 user")

    file.write_text("half")
    refusal = f"{file}:1: no colon"
    guard.wait_for_line(refusal, "stays in force")
    os.kill(guard.program.pid, signal.SIGHUP)
    guard.program.wait_until("a second line", lambda: guard.program.output().count(refusal) == 2)
    assert curl(guard, "/v2/", credentials=guard.ground.as_reader).status == 200


def may_push(guard: Guard) -> bool:
    answer = curl(
        *(guard, "/v2/reload/blobs/uploads/", "--request", "POST", "--data", ""),
        credentials=guard.ground.as_reader,
    )
    assert answer.status in (202, 403)
    return answer.status == 202


@contextmanager
def within_reaction() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < REACTION_SECONDS


def test_e18_groups_count_from_the_next_request_on(own_guard: Guard) -> None:
    """In and out of the group by the groups file alone; half a file changes nothing."""
    groups = own_guard.ground.groups
    assert not may_push(own_guard)

    with within_reaction():
        groups.write_text("pusher: testuserpush testuser\n")
        own_guard.program.wait_until("the right to push", lambda: may_push(own_guard))

    groups.write_text("pusher: testuserpush testuser\npu")
    own_guard.wait_for_line(f"{groups}:2: no colon", "stays in force")
    assert may_push(own_guard)

    with within_reaction():
        groups.write_text("pusher: testuserpush\n")
        own_guard.program.wait_until("no right to push", lambda: not may_push(own_guard))


def test_e15_a_weak_line_keeps_the_old_version_where_weak_ones_are_refused(
    own: Ground, registry: Registry, tmp_path: Path
) -> None:
    """--minimum-hash bcrypt holds at a reload, too, with file, line, user and cure."""
    own.htpasswd.write_text("# nobody yet\n")
    (name, password), weak = own.reader, secret("weak")
    regguard_passwd(str(own.htpasswd), name, "--stdin", "--cost", "10", given=password)
    guard = Guard(own, tmp_path / "guard", registry.url, "--minimum-hash", "bcrypt")
    try:
        with own.htpasswd.open("a") as file:
            file.write(f"weak:{{SHA}}{b64encode(sha1(weak.encode()).digest()).decode()}\n")
        line = guard.wait_for_line(f"{own.htpasswd}:3: user weak: {{SHA}} is weaker")

        assert "regguard passwd" in line
        assert curl(guard, "/v2/", credentials=f"weak:{weak}").status == 401
        assert curl(guard, "/v2/", credentials=own.as_reader).status == 200
    finally:
        guard.stop()


def test_e15_weak_hashes_are_warned_of_once(own_guard: Guard) -> None:
    """At start, by name; and after a reload for those that are new."""
    log, file = own_guard.program.output, own_guard.ground.htpasswd
    assert log().count("weak hashes") == 1
    assert "testuser (bcrypt cost 5), testuserpush (bcrypt cost 5)" in log()

    with file.open("a") as htpasswd:
        htpasswd.write("third:{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM=\n")
    own_guard.wait_for_line("weak hashes", "file: third ({SHA}); ")
    os.kill(own_guard.program.pid, signal.SIGHUP)
    own_guard.program.wait_until("the reload", lambda: log().count("loaded anew, 3 users") == 2)
    assert log().count("weak hashes") == 2


def test_files_of_htpasswd_work(own: Ground, registry: Registry, tmp_path: Path) -> None:
    """One user for each way in which Apache's htpasswd hashes: the right password, a wrong one."""
    options = {"bcrypt": "-B", "md5": "-m", "sha": "-s", "sha256": "-2", "sha512": "-5"}
    own.htpasswd.unlink()
    for name, option in options.items():
        create = () if own.htpasswd.exists() else ("-c",)
        subprocess.run(
            [binary("htpasswd"), "-i", *create, option, str(own.htpasswd), name],
            input=f"pass: {name} ü {CANARY}\n".encode(),
            check=True,
            capture_output=True,
        )
    guard = Guard(own, tmp_path / "guard", registry.url)
    try:
        for name in options:
            right, wrong = (f"{name}:pass: {name} {each} {CANARY}" for each in "üu")
            assert curl(guard, "/v2/", credentials=right).status == 200, name
            assert curl(guard, "/v2/", credentials=wrong).status == 401, name
    finally:
        guard.stop()


def test_e15_des_and_plain_passwords_of_htpasswd_stop_the_start(own: Ground) -> None:
    """``htpasswd -d`` and ``-p`` make lines that nobody shall log in with."""
    for option in ("-d", "-p"):
        own.htpasswd.unlink(missing_ok=True)
        subprocess.run(
            [binary("htpasswd"), "-b", "-c", option, str(own.htpasswd), "ci", "canarypasswd"],
            check=True,
            capture_output=True,
        )
        done = subprocess.run(
            [
                *(sys.executable, "-m", "regguard.cli", "check", "--no-tls"),
                *("--htpasswd", str(own.htpasswd)),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

        assert done.returncode == 1
        assert done.stderr.startswith(f"regguard: --htpasswd {own.htpasswd}:1: user ci: ")
        assert "canary" not in done.stderr

"""Certificates change under a running guard: nobody is dropped, and nothing bad is taken."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from regguard.demo.image import random_image
from tests.certificates import Authority, Issued
from tests.e2e.clients import Skopeo
from tests.e2e.programs import PATIENCE, Ground, Guard, Registry, run, twist
from tests.e2e.stage import basic
from tests.e2e.test_reload import Loop

SIZE = 60_000_000


class Served:
    """A guard with a certificate of its own, of an authority that stays."""

    def __init__(self, ground: Ground, folder: Path, upstream: str) -> None:
        self.authority = Authority()
        self.chain = self.authority.issue("localhost").write(folder)
        (folder / "trust").mkdir()
        (folder / "trust" / "ca.crt").write_bytes(self.authority.certificate)
        own = dataclasses.replace(ground, ca=folder / "trust" / "ca.crt", trust=folder / "trust")
        self.words = ("--tls-cert", str(self.chain))
        self.guard = Guard(own, folder / "guard", upstream, *self.words)

    def renew(self, days: float = 90) -> Issued:
        """Put another certificate there, as an operator does: one file after the other."""
        issued = self.authority.issue("localhost", days=days)
        issued.write(self.chain.parent)
        return issued

    def presented(self) -> bytes:
        """The certificate that a new connection is shown, as PEM."""
        context = ssl.create_default_context(cafile=self.guard.ground.ca)
        with (
            socket.create_connection(("127.0.0.1", self.guard.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            octets = secured.getpeercert(binary_form=True)
        assert octets is not None
        return ssl.DER_cert_to_PEM_cert(octets).encode()

    def wait_until_presented(self, issued: Issued) -> None:
        """Return when new connections see this one."""
        self.guard.program.wait_until(
            "the new certificate", lambda: self.presented() == issued.certificate
        )


@pytest.fixture
def served(ground: Ground, registry: Registry, tmp_path: Path) -> Iterator[Served]:
    """Stopped in the end, and with no fault in its log."""
    served = Served(ground, tmp_path, registry.url)
    yield served
    served.guard.stop()


def read_head(connection: ssl.SSLSocket) -> tuple[bytes, bytes]:
    """The head of an answer, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        assert piece
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def test_g08_a_renewal_drops_nobody(served: Served, tmp_path: Path) -> None:
    """A kept connection and a long download go on; new handshakes see the new certificate."""
    guard = served.guard
    image = random_image((SIZE,))
    image.write_layout(tmp_path / "in", "v1")
    pusher = guard.ground.as_pusher
    assert Skopeo(guard, tmp_path).push(tmp_path / "in", "v1", "renewed/app:v1", pusher) == ""
    (layer,) = image.layers
    old = served.presented()
    with Loop(guard, guard.ground.as_reader) as loop, guard.connection() as download:
        download.sendall(
            b"GET /v2/renewed/app/blobs/%s HTTP/1.1\r\nHost: localhost\r\n" % image_digest(layer)
            + b"Authorization: %s\r\n\r\n" % basic(guard.ground.reader)
        )
        head, rest = read_head(download)
        assert head.startswith(b"HTTP/1.1 200 ")
        loop.wait_for(200)
        for _ in range(3):
            served.wait_until_presented(served.renew())
            os.kill(guard.program.pid, signal.SIGHUP)
        answered = len(loop.answers)
        content = sha256(rest)
        length = len(rest)
        while length < len(layer):
            piece = download.recv(1 << 20)
            assert piece, length
            content.update(piece)
            length += len(piece)
        guard.program.wait_until("more answers", lambda: len(loop.answers) > answered + 10)

    assert b"sha256:" + content.hexdigest().encode() == image_digest(layer)
    assert {status for status, _ in loop.answers} == {200}
    assert loop.connections == 1
    assert served.presented() != old


def image_digest(layer: bytes) -> bytes:
    """A layer's name."""
    return b"sha256:" + sha256(layer).hexdigest().encode()


@pytest.mark.parametrize("fault", ["expired", "truncated", "mismatched", "readable"])
def test_g08_i16_a_bad_pair_changes_nothing_and_fails_the_check(
    served: Served, fault: str, tmp_path: Path
) -> None:
    """One line says what to do; ``--check`` ends with 1, or warns of an expired one."""
    old = served.presented()
    key = served.chain.with_suffix(".key")
    if fault == "expired":
        served.renew(days=-1)
    elif fault == "truncated":
        os.truncate(served.chain, 100)
    elif fault == "mismatched":
        served.chain.write_bytes(served.authority.issue("localhost").certificate)
    else:
        key.chmod(0o644)
    words = {
        "expired": f"--tls-cert {served.chain}: expired on ",
        "truncated": f"--tls-cert {served.chain}: holds no PEM certificate",
        "mismatched": f"--tls-key {key}: the key does not belong to the certificate",
        "readable": f"chmod 640 {key}",
    }[fault]
    line = served.guard.wait_for_line(words, "the version read before stays in force")
    assert "#error]" in line
    os.kill(served.guard.program.pid, signal.SIGHUP)
    assert served.presented() == old

    ground = served.guard.ground
    files = ("--htpasswd", str(ground.htpasswd), "--groups", str(ground.groups))
    checked = run(twist(*served.words, *files, "--check"), tmp_path)
    if fault == "expired":
        assert checked.returncode == 0
        assert f"warning: {served.chain}: the certificate expired on " in checked.stdout
    else:
        assert checked.returncode == 1
        assert words in checked.stderr
        assert checked.stderr.count("\n") == 1

    key.unlink()
    served.wait_until_presented(served.renew())


def test_g08_a_folder_that_is_swapped_is_noticed(
    ground: Ground, registry: Registry, tmp_path: Path
) -> None:
    """Kubernetes swaps a symlink to a folder, so chain and key change in one moment."""
    served = Served(ground, tmp_path, registry.url)
    served.guard.stop()
    for name in ("one", "two"):
        served.authority.issue("localhost").write(tmp_path / name)
    (tmp_path / "data").symlink_to("one")
    own = served.guard.ground
    served.guard = Guard(
        own, tmp_path / "again", registry.url, "--tls-cert", str(tmp_path / "data" / "domain.crt")
    )
    try:
        assert served.presented() == (tmp_path / "one" / "domain.crt").read_bytes()
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").rename(tmp_path / "data")
        two = Issued((tmp_path / "two" / "domain.crt").read_bytes(), b"")
        served.wait_until_presented(two)
        shutil.rmtree(tmp_path / "one")
        assert served.presented() == two.certificate
    finally:
        served.guard.stop()

"""Certificates that change under the daemon: good pairs are taken, bad ones change nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from regguard.files import POLL_INTERVAL, FileWatcher
from regguard.front.certificates import CertificateFiles, Certificates, WatchedCertificate
from tests.certificates import Authority, Issued
from tests.front.tls import client_context, finish_handshake, load, pump, shake_hands, subjects

OLD, NEW = "old.example", "new.example"


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A chain on disk, with its key beside it."""
    return Authority().issue(OLD).write(tmp_path)


@pytest.fixture
def certificates(chain: Path, watcher: FileWatcher) -> Certificates:
    """What the door has, watched."""
    certificates = Certificates([load(chain)])
    for each in certificates.files:
        watcher.watch(each)
    return certificates


def presented(certificates: Certificates) -> str:
    """Who a new connection shows itself as."""
    client = SSL.Connection(client_context(), None)
    shake_hands(client, certificates.serverConnectionForTLS(None))  # type: ignore[arg-type]
    return subjects(client)[0]


def complaint(clock: Clock) -> str:
    """The one line that is logged about what has changed, and no other one later."""
    with capturedLogs() as logs:
        clock.pump([POLL_INTERVAL] * 4)
    assert [event["log_level"] for event in logs] == [LogLevel.error]
    text: str = logs[0]["fault"]
    assert "\n" not in text
    return text


def test_g08_a_good_pair_is_for_new_handshakes_only(
    certificates: Certificates, chain: Path, clock: Clock
) -> None:
    """Running connections go on as they began; nothing is to be restarted."""
    client = SSL.Connection(client_context(), None)
    server = certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
    shake_hands(client, server)
    Authority().issue(NEW).write(chain.parent)
    with capturedLogs() as logs:
        clock.advance(POLL_INTERVAL)

    assert presented(certificates) == NEW
    assert [event["log_level"] for event in logs] == [LogLevel.info]
    assert subjects(client) == [OLD]
    client.send(b"still here")
    pump(client, server)
    assert server.recv(100) == b"still here"


def test_g08_a_handshake_that_has_begun_is_finished_with_what_it_began(
    certificates: Certificates, chain: Path, clock: Clock
) -> None:
    """The files change between its two flights."""
    client = SSL.Connection(client_context(), None)
    server = certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    Authority().issue(NEW).write(chain.parent)
    clock.advance(POLL_INTERVAL)
    pump(client, server)
    server.set_accept_state()
    finish_handshake(client, server)

    assert subjects(client) == [OLD]
    assert presented(certificates) == NEW


@pytest.mark.parametrize("first", ["domain.crt", "domain.key"])
def test_g08_files_that_change_one_after_the_other_end_well(
    certificates: Certificates, chain: Path, clock: Clock, first: str
) -> None:
    """Between the two they don't belong together, which is said; then they do."""
    new = Authority().issue(NEW)
    files = {chain: new.certificate, chain.with_suffix(".key"): new.key}
    (chain.parent / first).write_bytes(files.pop(chain.parent / first))
    assert "does not belong to the certificate" in complaint(clock)
    assert presented(certificates) == OLD
    for path, content in files.items():
        path.write_bytes(content)
    clock.advance(POLL_INTERVAL)

    assert presented(certificates) == NEW
    assert [each.fault for each in certificates.files] == [None]


def encrypted(chain: Path) -> None:
    """The key behind a passphrase."""
    path = chain.with_suffix(".key")
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )


def truncated(path: Path) -> None:
    """Half a file."""
    os.truncate(path, path.stat().st_size // 2)


def replaced(chain: Path, issued: Issued) -> None:
    """Both files, by others."""
    issued.write(chain.parent)


BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "expired": (lambda chain: replaced(chain, Authority().issue(NEW, days=-1)),
                "--tls-cert {}/domain.crt: expired on ", "get a new one"),
    "not-yet": (lambda chain: replaced(chain, Authority().issue(NEW, begins=1)),
                "--tls-cert {}/domain.crt: not valid before ", "check this machine's clock"),
    "mismatched": (lambda chain: chain.write_bytes(Authority().issue(NEW).certificate),
                   "--tls-key {}/domain.key: the key does not belong", "--tls-key"),
    "truncated": (truncated, "--tls-cert {}/domain.crt: holds no PEM certificate",
                  "-----BEGIN CERTIFICATE-----"),
    "empty": (lambda chain: truncated(chain) or truncated(chain) or chain.write_bytes(b""),
              "--tls-cert {}/domain.crt: holds no PEM certificate", "-----BEGIN CERTIFICATE-----"),
    "truncated-key": (lambda chain: truncated(chain.with_suffix(".key")),
                      "--tls-key {}/domain.key: holds no PEM private key", "PRIVATE KEY-----"),
    "encrypted": (encrypted, "--tls-key {}/domain.key: the key is encrypted", "openssl pkey"),
    "no-certificate": (lambda chain: chain.unlink(), "--tls-cert {}/domain.crt: cannot be read",
                       "check the path"),
    "no-key": (lambda chain: chain.with_suffix(".key").unlink(),
               "--tls-cert {}/domain.crt: no private key in the file", "--tls-key"),
    "g09-key-for-all": (lambda chain: chain.with_suffix(".key").chmod(0o604),
                        "--tls-key {}/domain.key: anybody on this machine may get at the key",
                        "chmod 640 {}/domain.key"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "fault", "cure"), BAD.values(), ids=BAD)
def test_g08_a_bad_pair_changes_nothing(
    certificates: Certificates,
    chain: Path,
    clock: Clock,
    spoil: Callable[[Path], object],
    fault: str,
    cure: str,
) -> None:
    """One line names the file and the cure; a good pair after it is taken."""
    spoil(chain)
    text = complaint(clock)
    assert text.startswith(fault.format(chain.parent))
    assert cure.format(chain.parent) in text
    assert presented(certificates) == OLD
    assert certificates.files[0].fault == text

    for path in (chain, chain.with_suffix(".key")):
        path.unlink(missing_ok=True)
    Authority().issue(NEW).write(chain.parent)
    clock.advance(POLL_INTERVAL)
    assert presented(certificates) == NEW
    assert certificates.files[0].fault is None


def test_g08_an_expired_certificate_is_no_reason_not_to_start(tmp_path: Path) -> None:
    """A restart must not make of it a registry that is down; it is warned of instead."""
    expired = load(Authority().issue(OLD, days=-1).write(tmp_path))

    assert presented(Certificates([expired])) == OLD


def test_g08_a_pair_is_judged_by_the_time_of_the_look(
    chain: Path, watcher: FileWatcher, clock: Clock
) -> None:
    """Ten days from now on, what is good for five has expired."""
    certificate = WatchedCertificate(
        CertificateFiles(chain), lambda: time.time() + 10 * 86_400 + clock.seconds()
    )
    watcher.watch(certificate)
    Authority().issue(NEW, days=5).write(chain.parent)

    assert "expired on" in complaint(clock)
    Authority().issue(NEW, days=15).write(chain.parent)
    clock.advance(POLL_INTERVAL)
    assert certificate.content.names == {NEW}


def test_g08_sighup_says_what_is_wrong_again(
    certificates: Certificates, chain: Path, clock: Clock, watcher: FileWatcher
) -> None:
    """Who asks gets an answer; without a change a good pair is loaded anew, and serves on."""
    truncated(chain)
    complaint(clock)
    with capturedLogs() as logs:
        watcher.reload()
    assert [event["log_level"] for event in logs] == [LogLevel.error]
    Authority().issue(NEW).write(chain.parent)
    with capturedLogs() as logs:
        watcher.reload()
        watcher.reload()
    assert [event["log_level"] for event in logs] == [LogLevel.info] * 2
    assert presented(certificates) == NEW


def test_g08_a_hundred_sighups_make_nothing_anew(
    certificates: Certificates, watcher: FileWatcher
) -> None:
    """Where nothing has changed, connections go on to begin with what is there."""
    context = certificates.context
    for _ in range(100):
        watcher.reload()

    assert certificates.context is context


def test_g08_each_of_several_certificates_changes_by_itself(
    tmp_path: Path, watcher: FileWatcher, clock: Clock
) -> None:
    """The one that is chosen by name, and the one for everybody else."""
    first, second = (
        Authority().issue(name).write(tmp_path / name) for name in ("a.example", "b.example")
    )
    certificates = Certificates([load(first), load(second)])
    for each in certificates.files:
        watcher.watch(each)

    def shown(asked: bytes) -> list[str]:
        client = SSL.Connection(client_context(), None)
        client.set_tlsext_host_name(asked)
        shake_hands(client, certificates.serverConnectionForTLS(None))  # type: ignore[arg-type]
        return subjects(client)

    Authority().issue("new.example", "b.example").write(second.parent)
    truncated(first)
    clock.advance(POLL_INTERVAL)
    assert shown(b"b.example") == ["new.example"]
    assert shown(b"a.example") == ["a.example"]
    Authority().issue("a.example", "c.example").write(first.parent)
    clock.advance(POLL_INTERVAL)
    assert shown(b"c.example") == ["a.example"]
    assert shown(b"b.example") == ["new.example"]


# -- G09: who may read the key ------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o440, 0o660])
def test_g09_a_key_for_owner_and_group_loads(chain: Path, mode: int) -> None:
    """0600, or root:regguard 0640."""
    chain.with_suffix(".key").chmod(mode)

    assert load(chain).content.names == {OLD}


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o666])
def test_g09_a_key_for_others_is_refused(chain: Path, mode: int) -> None:
    """With the command that mends it."""
    key = chain.with_suffix(".key")
    key.chmod(mode)

    with pytest.raises(ValueError, match=f"^--tls-key {key}: .*mode {mode:o}.*chmod 640 {key}$"):
        load(chain)


def test_g09_a_key_within_the_chain_makes_a_secret_of_the_file(chain: Path) -> None:
    """And a chain without one is nobody's secret."""
    assert chain.stat().st_mode & 0o004
    assert load(chain)
    chain.write_bytes(chain.read_bytes() + chain.with_suffix(".key").read_bytes())

    with pytest.raises(ValueError, match=f"^--tls-cert {chain}: .*chmod 640 {chain}$"):
        load(chain)
    chain.chmod(0o640)
    assert load(chain).content.names == {OLD}


def test_g09_a_chmod_mends_a_running_daemon(
    certificates: Certificates, chain: Path, clock: Clock
) -> None:
    """The mode changes no octet, and is noticed all the same."""
    Authority().issue(NEW).write(chain.parent)
    chain.with_suffix(".key").chmod(0o644)
    assert "chmod 640" in complaint(clock)
    chain.with_suffix(".key").chmod(0o640)
    clock.advance(POLL_INTERVAL)

    assert presented(certificates) == NEW


def test_expires_tells_each_file_and_its_time(certificates: Certificates, chain: Path) -> None:
    """In seconds since the epoch, for whoever measures."""
    ((path, at),) = certificates.expires()

    assert path == str(chain)
    assert at == pytest.approx(time.time() + 90 * 86_400, abs=60)

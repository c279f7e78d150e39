"""Users who show a certificate: real clients, a real registry, and what may be wrong with it."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from regguard.demo.image import random_image
from tests.canary import secret
from tests.certificates import Authority, Issued
from tests.e2e.clients import Skopeo, curl
from tests.e2e.programs import PATIENCE, Ground, Guard, Registry
from tests.e2e.recorder import Recorder

GET = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Users:
    """A guard that takes the certificates of an authority, and these."""

    def __init__(self, ground: Ground, folder: Path, upstream: str, *words: str) -> None:
        self.authority = Authority("users of the tests", path_length=None)
        self.file = folder / "clients.pem"
        self.file.write_bytes(self.authority.certificate)
        self.folder = folder
        # skopeo and docker look here for CAs and for a client's certificate.
        shutil.copytree(ground.trust, folder / "trust")
        self.guard = Guard(
            dataclasses.replace(ground, trust=folder / "trust"),
            folder / "guard",
            upstream,
            *("--tls-client-ca", str(self.file)),
            *words,
        )

    def as_client(self, issued: Issued) -> tuple[str, ...]:
        """curl's words for a certificate."""
        chain = issued.write(self.folder, "client")
        return "--cert", str(chain), "--key", str(chain.with_suffix(".key"))

    def status(self, issued: Issued, *words: str, credentials: str | None = None) -> int:
        """What a client with this certificate gets for /v2/."""
        target = "/v2/"
        client = self.as_client(issued)
        return curl(self.guard, target, *client, *words, credentials=credentials).status

    @contextlib.contextmanager
    def connection(self, issued: Issued, version: ssl.TLSVersion) -> Iterator[ssl.SSLSocket]:
        """A raw connection with a certificate."""
        context = ssl.create_default_context(cafile=self.guard.ground.ca)
        context.minimum_version = context.maximum_version = version
        chain = issued.write(self.folder, "raw")
        context.load_cert_chain(chain, chain.with_suffix(".key"))
        with (
            socket.create_connection(("127.0.0.1", self.guard.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            yield secured

    def meets_alert(self, issued: Issued, version: ssl.TLSVersion) -> str:
        """The alert by which the guard refuses a certificate; fails where it answers."""
        try:
            with self.connection(issued, version) as connection:
                connection.sendall(GET)
                answer = connection.recv(65536)
        except ssl.SSLError as alert:
            return alert.reason or repr(alert)
        raise AssertionError(answer)


@pytest.fixture(scope="module")
def _shared_users(
    ground: Ground, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Users]:
    words = ("--push", "user:ci, group:pusher", "--throttle", "3/1h")
    users = Users(ground, tmp_path_factory.mktemp("users"), registry.url, *words)
    yield users
    users.guard.stop()


@pytest.fixture
def users(_shared_users: Users) -> Iterator[Users]:
    """ci may push; nobody has a password for that name."""
    yield _shared_users
    _shared_users.guard.check_log()


def test_g07_skopeo_pushes_and_pulls_with_a_certificate_and_no_password(
    users: Users, tmp_path: Path
) -> None:
    """As docker does with /etc/docker/certs.d; by the rules of the certificate's user."""
    trust = users.guard.ground.trust
    random_image((50_000,)).write_layout(tmp_path / "in", "v1")
    skopeo = Skopeo(users.guard, tmp_path)
    for user in ("cd", "ci"):
        chain = users.authority.issue_client(user).write(tmp_path, "client")
        shutil.copy(chain, trust / "client.cert")
        shutil.copy(chain.with_suffix(".key"), trust / "client.key")
        complaint = skopeo.push(tmp_path / "in", "v1", "certified/app:v1", None)
        assert bool(complaint) is (user == "cd"), complaint

    assert skopeo.pull("certified/app:v1", tmp_path / "out", "v1", None) == ""
    assert users.guard.wait_for_line(" ci [", '"PUT /v2/certified/app/manifests/v1 HTTP/1.1" 201')
    for name in ("client.cert", "client.key"):
        (trust / name).unlink()


def test_g07_an_authorization_header_decides_for_its_request(users: Users) -> None:
    """A right password is its user; a wrong one is wrong, certificate or not."""
    issued = users.authority.issue_client("ci")
    ground = users.guard.ground

    assert users.status(issued) == 200
    assert users.status(issued, credentials=ground.as_reader) == 200
    assert users.status(issued, credentials=f"{ground.reader[0]}:{secret('no')}") == 401
    assert users.status(issued, "--header", "Authorization: Bearer x") == 401
    assert curl(users.guard, "/v2/").status == 401
    assert curl(users.guard, "/v2/", credentials=ground.as_reader).status == 200


def test_g07_guesses_of_a_password_do_not_stop_a_certificate(users: Users) -> None:
    """The throttle counts passwords; a certificate can't be guessed."""
    statuses = {
        curl(users.guard, "/v2/", credentials=f"ci:{secret(str(number))}").status
        for number in range(5)
    }

    assert statuses == {401, 429}
    assert users.status(users.authority.issue_client("ci")) == 200


def too_deep(authority: Authority) -> Issued:
    """Five authorities between."""
    chain = b""
    for number in range(5):
        authority = Authority(f"CA {number}", authority, path_length=None)
        chain = authority.certificate + chain
    issued = authority.issue_client("ci")
    return Issued(issued.certificate + chain, issued.key)


BAD: dict[str, tuple[Callable[[Authority], Issued], str, str]] = {
    "expired": (lambda ca: ca.issue_client("ci", days=-1), "CERTIFICATE_EXPIRED",
                "cert has expired"),
    "wrong-ca": (lambda _: Authority("other").issue_client("ci"), "UNKNOWN_CA",
                 "unable to get issuer cert locally"),
    "wrong-eku": (lambda ca: ca.issue_client("ci", usage=ExtendedKeyUsageOID.SERVER_AUTH),
                  "UNSUPPORTED_CERTIFICATE", "invalid purpose"),
    "too-deep": (too_deep, "UNKNOWN_CA", "cert chain too long"),
}  # fmt: skip


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("issue", "alert", "fault"), BAD.values(), ids=BAD)
def test_g07_a_bad_certificate_is_an_alert_and_a_line(
    users: Users,
    issue: Callable[[Authority], Issued],
    alert: str,
    fault: str,
    version: ssl.TLSVersion,
) -> None:
    """No answer, also not to ask for a password; the log tells who and why, once a minute."""
    assert alert in users.meets_alert(issue(users.authority), version)

    users.guard.wait_for_line("#warn]", f"refused the client certificate of 127.0.0.1: {fault}")
    users.guard.check_log()
    assert curl(users.guard, "/v2/").status == 401


def test_g07_a_revoked_certificate_is_out_at_once(
    ground: Ground, registry: Registry, tmp_path: Path
) -> None:
    """The list is put into the file while its connection is open: that one ends, too."""
    users = Users(ground, tmp_path, registry.url)
    try:
        revoked, other = users.authority.issue_client("ci"), users.authority.issue_client("cd")
        with users.connection(revoked, ssl.TLSVersion.TLSv1_3) as connection:
            connection.sendall(GET)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            users.file.write_bytes(users.authority.certificate + users.authority.revoke(revoked))
            users.guard.wait_for_line(str(users.file), "loaded anew", "1 revoked")
            assert connection.recv(65536) == b""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert "CERTIFICATE_REVOKED" in users.meets_alert(revoked, version)
        assert users.status(other) == 200
        assert "refused the client certificate of 127.0.0.1: cert revoked" in (
            users.guard.program.output()
        )
    finally:
        users.guard.stop()


def test_g07_the_registry_is_told_the_user(ground: Ground, tmp_path: Path) -> None:
    """The one of the certificate, whatever the client says of itself."""
    with Recorder() as recorder:
        users = Users(ground, tmp_path, recorder.url)
        try:
            issued = users.authority.issue_client("ci")
            assert users.status(issued, "--header", "X-Forwarded-User: admin") == 200
        finally:
            users.guard.stop()
        [asked] = recorder.requests
        names = [value for name, value in asked.fields if name.lower() == b"x-forwarded-user"]
        assert names == [b"ci"]

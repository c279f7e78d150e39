"""The real parts that end-to-end tests share: one registry, one guard, one set of files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from tests.certificates import Authority, rsa_key
from tests.e2e.asking import Connect
from tests.e2e.programs import Ground, Guard, Registry, StartGuard
from tests.e2e.recorder import ok
from tests.e2e.slapd import Slapd
from tests.e2e.stage import Stage, staging
from tests.e2e.wire import Client

# The cheapest that ``htpasswd -B`` makes by itself.
BCRYPT_COST = 5


def make_ground(folder: Path) -> Ground:
    """Certificates, htpasswd and groups in this folder."""
    authority = Authority()
    trust = folder / "trust"
    trust.mkdir()
    (trust / "ca.crt").write_bytes(authority.certificate)
    (folder / "auth").mkdir()
    ground = Ground(
        folder=folder,
        ca=trust / "ca.crt",
        trust=trust,
        certificate=authority.issue().write(folder),
        rsa_certificate=authority.issue(key=rsa_key()).write(folder, "rsa"),
        htpasswd=folder / "auth" / "htpasswd",
        groups=folder / "auth" / "groups",
    )
    ground.htpasswd.write_text(
        "".join(
            f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()}\n"
            for name, password in (ground.reader, ground.pusher)
        )
    )
    ground.htpasswd.chmod(0o600)
    ground.groups.write_text(f"pusher: {ground.pusher[0]}\n")
    return ground


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Certificates, htpasswd and groups."""
    return make_ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The real registry, up for the whole session."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="session")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """The real directory, up for the whole session."""
    slapd = Slapd(tmp_path_factory.mktemp("slapd"))
    yield slapd
    slapd.stop()


@pytest.fixture(scope="session")
def _shared_guard(
    ground: Ground, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    guard = Guard(ground, tmp_path_factory.mktemp("guard"), registry.url)
    yield guard
    guard.stop()


@pytest.fixture
def guard(_shared_guard: Guard) -> Iterator[Guard]:
    """A guard with defaults in front of the registry; a fault in its log fails the test."""
    _shared_guard.check_log()
    yield _shared_guard
    _shared_guard.check_log()


@pytest.fixture
def start_guard(ground: Ground, tmp_path: Path) -> Iterator[StartGuard]:
    """Starts guards of the test's own: ``start_guard(upstream, *words)``."""
    started: list[Guard] = []

    def start(upstream: str, *words: str) -> Guard:
        guard = Guard(ground, tmp_path / f"guard-{len(started)}", upstream, *words)
        started.append(guard)
        return guard

    yield start
    for guard in started:
        guard.stop()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connects to a guard, or through another port to it."""
    with contextlib.ExitStack() as stack:

        def connect(guard: Guard, port: int | None = None, window: int | None = None) -> Client:
            client = Client(port or guard.port, guard.ground.ca, guard.ground.pusher, window)
            stack.callback(client.close)
            return client

        yield connect


@pytest.fixture(scope="session", params=["tls", "plain"])
def _shared_stage(
    request: pytest.FixtureRequest, ground: Ground, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp(f"stage-{request.param}")
    with staging(ground, folder, secure=request.param == "tls") as stage:
        yield stage


@pytest.fixture
def stage(_shared_stage: Stage) -> Iterator[Stage]:
    """A guard before a recorder, with TLS and without: nothing recorded yet, and no fault after."""
    _shared_stage.recorder.answer = ok
    _shared_stage.recorder.forget()
    yield _shared_stage
    _shared_stage.check()

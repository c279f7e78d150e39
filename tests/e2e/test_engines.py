"""Engines log in, push and pull, as users of a password file and of a directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.canary import secret
from tests.e2e.engines import Containerd, Docker, Engine, Podman, Refused
from tests.e2e.programs import Ground, Guard, Registry
from tests.e2e.slapd import GROUPS, PASSWORDS, Slapd

# They mount file systems and make namespaces.
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def engines_guard(
    ground: Ground, registry: Registry, slapd: Slapd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """A guard for users of the password file and of the directory; a group of each may push."""
    guard = Guard(
        ground,
        tmp_path_factory.mktemp("guard"),
        registry.url,
        *("--auth", f"htpasswd:{ground.htpasswd}", "--auth", slapd.searching()),
        *("--push", f'group:pusher, group:"cn=devs,{GROUPS}"'),
    )
    yield guard
    guard.stop()


@pytest.fixture(scope="module", params=[Docker, Podman, Containerd], ids=lambda kind: kind.__name__)
def engine(
    request: pytest.FixtureRequest,
    engines_guard: Guard,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    """One engine after the other, with empty folders."""
    folder = tmp_path_factory.mktemp("engine") / "state"
    engine: Engine = request.param(engines_guard, folder)
    yield engine
    engine.stop()


def test_user_of_the_password_file_logs_in_pushes_and_pulls(engine: Engine, ground: Ground) -> None:
    """testuserpush is in the groups file."""
    name = f"{type(engine).__name__.lower()}/by-file:v1"
    engine.login(*ground.pusher)
    engine.push(name)
    engine.login(*ground.reader)
    engine.pull(name)


def test_user_of_the_directory_logs_in_pushes_and_pulls(engine: Engine) -> None:
    """alice is in a group of the directory."""
    name = f"{type(engine).__name__.lower()}/by-directory:v1"
    engine.login("alice", PASSWORDS["alice"])
    engine.push(name)
    engine.login("bob", PASSWORDS["bob"])
    engine.pull(name)


def test_refused_push_says_why(engine: Engine) -> None:
    """bob is in another group of the same CN: docker and podman print what he lacks."""
    engine.login("bob", PASSWORDS["bob"])

    with pytest.raises(Refused) as refused:
        engine.push("team/refused:v1")

    said = str(refused.value)
    assert engine.denied in said
    if "denied" in engine.denied:
        assert "bob may pull but not push team/refused: push needs group:pusher, group:" in said


def test_wrong_password_is_told_so(engine: Engine) -> None:
    """No credential that was good before helps."""

    def log_in_and_push() -> None:
        engine.login("alice", secret("wrong"))
        engine.push("team/refused:v1")

    with pytest.raises(Refused) as refused:
        log_in_and_push()

    assert engine.unauthorized in str(refused.value)

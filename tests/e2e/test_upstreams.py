"""Several registries behind one guard: real ones, killed and started again under real clients."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regguard.demo.image import digest, random_image
from tests.certificates import Authority
from tests.e2e.clients import Answer, Skopeo, curl
from tests.e2e.programs import Ground, Guard, Registry, StartGuard

START = "/v2/team/app/blobs/uploads/"
StartRegistry = Callable[..., Registry]


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[StartRegistry]:
    """Starts registries of the test's own; those that still run are stopped at its end."""
    started: list[Registry] = []

    def start(**words: Path) -> Registry:
        registry = Registry(tmp_path / f"registry-{len(started)}", **words)
        registry.start()
        started.append(registry)
        return registry

    yield start
    for registry in started:
        registry.stop()


def in_front_of(start_guard: StartGuard, *registries: Registry) -> Guard:
    """A guard that asks these registries in this order."""
    first, *others = [each.url for each in registries]
    return start_guard(first, *(word for url in others for word in ("--upstream", url)))


def push(guard: Guard, method: str, target: str, *words: str) -> Answer:
    """One request of the pusher's."""
    return curl(guard, target, "--request", method, *words, credentials=guard.ground.as_pusher)


def location(guard: Guard, answer: Answer) -> str:
    """Where an upload goes on."""
    assert answer.status == 202, answer.body
    (value,) = answer.headers("Location")
    return value.removeprefix(guard.url)


def blob_status(guard: Guard, content: bytes) -> int:
    """Whether the registry that a guard asks has a blob."""
    target = f"/v2/team/app/blobs/{digest(content)}"
    return curl(guard, target, "--head", credentials=guard.ground.as_reader).status


def test_pushes_and_pulls_go_on_when_a_registry_is_killed(
    start_guard: StartGuard, start_registry: StartRegistry, tmp_path: Path
) -> None:
    """Two registries share their storage; while one of them is there, nobody sees a difference."""
    ones = [start_registry(storage=tmp_path / "shared") for _ in range(2)]
    guard = in_front_of(start_guard, *ones)
    skopeo = Skopeo(guard, tmp_path)
    as_pusher, as_reader = guard.ground.as_pusher, guard.ground.as_reader
    for number in range(2):
        random_image((10_000, 300_000)).write_layout(tmp_path / f"in-{number}", "v1")

    assert not skopeo.push(tmp_path / "in-0", "v1", "team/zero:v1", as_pusher)
    ones[0].stop(signal.SIGKILL)
    assert not skopeo.pull("team/zero:v1", tmp_path / "out-0", "v1", as_reader)
    assert not skopeo.push(tmp_path / "in-1", "v1", "team/one:v1", as_pusher)
    ones[0].start()
    guard.wait_for_line(ones[0].url, "is back")
    ones[1].stop(signal.SIGKILL)
    assert not skopeo.pull("team/one:v1", tmp_path / "out-1", "v1", as_reader)
    assert guard.program.output().count("is down") == 1
    ones[1].start()


def test_i01_a_killed_registry_costs_a_reader_nothing(
    start_guard: StartGuard, start_registry: StartRegistry, tmp_path: Path
) -> None:
    """Not one of many GETs fails, and the log has a line when it goes and one when it is back."""
    ones = [start_registry(storage=tmp_path / "shared") for _ in range(2)]
    guard = in_front_of(start_guard, *ones)
    statuses = []

    def lines() -> list[str]:
        return [line for line in guard.program.output().splitlines() if ones[0].url + " is" in line]

    for number in range(30):
        if number in (5, 20):
            ones[0].stop(signal.SIGKILL)
        elif number in (10, 25):
            ones[0].start()
            guard.program.wait_until("it to be back", lambda: len(lines()) % 2 == 0)
        statuses.append(curl(guard, "/v2/", credentials=guard.ground.as_reader).status)

    assert statuses == [200] * 30
    assert ["is down" in line for line in lines()] == [True, False, True, False]


def test_an_upload_stays_with_its_registry(
    start_guard: StartGuard, start_registry: StartRegistry, tmp_path: Path
) -> None:
    """The two share nothing, so every step proves where it went; docker sorts the query."""
    first, second = start_registry(), start_registry()
    guard = in_front_of(start_guard, first, second)
    behind = in_front_of(start_guard, second)
    content = os.urandom(200_000)
    source = tmp_path / "blob"
    source.write_bytes(content)
    first.stop()
    target = location(guard, push(guard, "POST", START))
    first.start()
    guard.wait_for_line(first.url, "is back")

    target = location(
        guard, push(guard, "PATCH", target, "--upload-file", str(source), "--header", "Expect:")
    )
    path, _, query = target.partition("?")
    assert "&_upstream=" in query
    words = sorted([*query.split("&"), f"digest={digest(content).replace(':', '%3A')}"])
    stored = push(guard, "PUT", f"{path}?{'&'.join(words)}")

    assert stored.status == 201, stored.body
    assert stored.headers("Docker-Content-Digest") == [digest(content)]
    assert blob_status(behind, content) == 200
    assert blob_status(guard, content) == 404


def test_another_guard_goes_on_with_an_upload_where_it_began(
    start_guard: StartGuard, start_registry: StartRegistry
) -> None:
    """On another machine, as it were: it finds the registry by the mark in the URL alone."""
    first, second = start_registry(), start_registry()
    one, other = (in_front_of(start_guard, first, second) for _ in range(2))
    behind = in_front_of(start_guard, second)
    content = b"a small layer"
    first.stop()
    target = location(one, push(one, "POST", START))
    first.start()

    path, _, query = target.partition("?")
    target = f"{path}?{query}&digest={digest(content)}"
    assert push(other, "PUT", target, "--data-binary", content.decode()).status == 201

    assert blob_status(behind, content) == 200
    assert blob_status(other, content) == 404


def test_a_whole_push_stays_with_one_of_two_registries_that_share_nothing(
    start_guard: StartGuard, start_registry: StartRegistry, tmp_path: Path
) -> None:
    """skopeo sends the marked URLs back, whichever of the two serves."""
    first, second = start_registry(), start_registry()
    guard = in_front_of(start_guard, first, second)
    skopeo = Skopeo(guard, tmp_path)
    random_image((1_000, 50_000)).write_layout(tmp_path / "in", "v1")

    assert not skopeo.push(tmp_path / "in", "v1", "team/a:v1", guard.ground.as_pusher)
    first.stop()
    assert "unknown" in skopeo.pull("team/a:v1", tmp_path / "x", "v1", guard.ground.as_reader)
    assert not skopeo.push(tmp_path / "in", "v1", "team/b:v1", guard.ground.as_pusher)
    assert not skopeo.pull("team/b:v1", tmp_path / "out", "v1", guard.ground.as_reader)
    first.start()


def test_an_upload_goes_on_at_another_registry_when_its_own_is_killed(
    start_guard: StartGuard, start_registry: StartRegistry, tmp_path: Path
) -> None:
    """They share storage and http.secret: what was sent is there, and the next one goes on."""
    ones = [start_registry(storage=tmp_path / "shared") for _ in range(2)]
    guard = in_front_of(start_guard, *ones)
    content = os.urandom(100_000)
    for name, part in (("one", content[:60_000]), ("two", content[60_000:])):
        (tmp_path / name).write_bytes(part)
    target = location(guard, push(guard, "POST", START))
    target = location(guard, push(guard, "PATCH", target, "-T", str(tmp_path / "one")))
    before = target.rpartition("_upstream=")[2]
    ones[0].stop(signal.SIGKILL)
    words = ("-T", str(tmp_path / "two"), "--header", "Content-Range: 60000-99999")
    target = location(guard, push(guard, "PATCH", target, *words))

    assert target.rpartition("_upstream=")[2] != before
    stored = push(guard, "PUT", f"{target}&digest={digest(content)}")
    assert stored.status == 201, stored.body
    ones[0].start()


def test_g12_a_registrys_certificate_is_checked(
    start_guard: StartGuard, start_registry: StartRegistry, ground: Ground, tmp_path: Path
) -> None:
    """By --upstream-ca and by name; where it is bad nothing is sent, and the next one serves."""
    authority = Authority("the registries' CA")
    ca = tmp_path / "registries.crt"
    ca.write_bytes(authority.certificate)
    good = start_registry(certificate=authority.issue().write(tmp_path, "good"))
    other = start_registry(certificate=authority.issue("other.example").write(tmp_path, "other"))
    expired = start_registry(certificate=authority.issue(days=-1).write(tmp_path, "expired"))
    plain = start_registry()

    guard: Guard

    def status(*urls: str, ca: Path = ca) -> int:
        nonlocal guard
        words = [word for url in urls[1:] for word in ("--upstream", url)]
        guard = start_guard(urls[0], *words, "--upstream-ca", str(ca))
        return curl(guard, "/v2/", credentials=ground.as_reader).status

    assert status(good.url) == 200
    assert status(good.url.replace("127.0.0.1", "localhost")) == 200
    assert status(good.url, ca=ground.ca) == 502
    guard.wait_for_line(good.url, "is down: TLS: certificate verify failed; check --upstream-ca")
    assert status(other.url) == 502
    guard.wait_for_line(other.url, "is down: its certificate is for another name or address")
    assert status(expired.url) == 502
    guard.wait_for_line(expired.url, "is down: TLS: certificate verify failed; check")
    assert status(plain.url.replace("http:", "https:")) == 502
    guard.wait_for_line("is down: TLS: ")
    assert status(other.url, expired.url, good.url) == 200


def test_a_registry_on_a_socket_serves(
    start_guard: StartGuard, start_registry: StartRegistry, tmp_path: Path
) -> None:
    """http+unix, alone and as the one that steps in; and uploads come back to the guard."""
    on_socket = start_registry(path=tmp_path / "s")
    for guard in (
        in_front_of(start_guard, on_socket),
        in_front_of(start_guard, Registry(tmp_path / "never-started"), on_socket),
    ):
        assert curl(guard, "/v2/", credentials=guard.ground.as_reader).status == 200
        target = location(guard, push(guard, "POST", START))
        assert target.startswith(START)
        assert push(guard, "DELETE", target).status == 204


def test_i22_a_registrys_name_is_looked_up(
    start_guard: StartGuard, start_registry: StartRegistry, ground: Ground
) -> None:
    """By the system's resolver; a name that nobody knows is a registry that is down."""
    url = start_registry().url.replace("127.0.0.1", "localhost")
    guard = start_guard("http://nobody.invalid:5000", "--upstream", url)

    assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
    guard.wait_for_line("cannot look up nobody.invalid", "no address is known")
    guard.wait_for_line("http://nobody.invalid:5000 is down")

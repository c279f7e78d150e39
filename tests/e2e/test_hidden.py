"""Hidden repositories of the real registry, as clients see them: like missing ones."""

from __future__ import annotations

import json
import re
import socket
import ssl
import statistics
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from regguard.demo.image import Image, digest, random_image
from tests.e2e.clients import Skopeo, curl
from tests.e2e.engines import Docker, Refused
from tests.e2e.programs import Ground, Guard, Registry

POLICY = """\
[[repository]]
match = ["hidden/**"]
pull = "user:testuserpush"
push = "user:testuserpush"
hide = true
"""

# Of the same length, so that the answers are of the same length.
HIDDEN, ABSENT = "hidden/app", "absent/app"

TRIES = 400
"""Of each kind, one after the other in turn."""


@pytest.fixture(scope="module")
def image() -> Image:
    return random_image((500, 2_000))


@pytest.fixture(scope="module")
def hiding(
    ground: Ground, registry: Registry, image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """A guard that hides a repository that is there."""
    folder = tmp_path_factory.mktemp("hiding")
    (folder / "regguard.toml").write_text(POLICY)
    guard = Guard(
        ground,
        folder,
        registry.url,
        *("--config", "regguard.toml", "--access-log", "access.log"),
    )
    image.write_layout(folder / "image", "v1")
    skopeo = Skopeo(guard, folder)
    for name in (HIDDEN, "public/app"):
        assert not skopeo.push(folder / "image", "v1", f"{name}:v1", ground.as_pusher)
    yield guard
    guard.stop()


@pytest.fixture
def skopeo(hiding: Guard, tmp_path: Path) -> Skopeo:
    return Skopeo(hiding, tmp_path)


def targets(image: Image) -> list[tuple[str, str]]:
    """Ways to look for the image, or for something in its repository."""
    here, config = digest(image.manifest), digest(image.config)
    return [
        ("GET", "manifests/v1"),
        ("HEAD", "manifests/v1"),
        ("GET", "manifests/v2"),
        ("GET", f"manifests/{here}"),
        ("GET", f"blobs/{config}"),
        ("HEAD", f"blobs/{config}"),
        ("GET", f"blobs/sha256:{'0' * 64}"),
        ("GET", "tags/list"),
        ("GET", "tags/list?n=1&last=a"),
        ("GET", f"referrers/{here}"),
        # What registry 2.8 answers with 400, or with 500 and the name of a folder.
        ("GET", f"blobs/sha256:{'0' * 40}"),
        ("GET", f"manifests/sha512:{'0' * 64}"),
        ("GET", f"blobs/unheard-of:{'0' * 64}"),
        ("PUT", "manifests/v1"),
        ("POST", "blobs/uploads/"),
        ("DELETE", f"manifests/{here}"),
    ]


class Line:
    """One kept connection, over which requests go one after the other."""

    def __init__(self, connection: ssl.SSLSocket | socket.socket, credentials: str) -> None:
        self._connection = connection
        self._token = b64encode(credentials.encode()).decode()

    def ask(self, method: str, target: str, *lines: str) -> bytes:
        """All octets of the answer."""
        head = [
            f"{method} {target} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Basic {self._token}",
            *lines,
            "\r\n",
        ]
        self._connection.sendall("\r\n".join(head).encode())
        octets = b""
        while not (whole := _length(octets, method)) or len(octets) < whole:
            piece = self._connection.recv(65536)
            assert piece, octets
            octets += piece
        return octets


def _length(octets: bytes, method: str) -> int:
    """The length of a whole answer; 0 while it is not known."""
    end = octets.find(b"\r\n\r\n") + 4
    if end < 4:
        return 0
    found = re.search(rb"\r\ncontent-length: *(\d+)", octets[:end], re.IGNORECASE)
    assert found, octets
    return end + (0 if method == "HEAD" else int(found[1]))


def without_date(octets: bytes) -> bytes:
    assert octets.count(b"\r\nDate: ") == 1
    return re.sub(rb"\r\nDate: [^\r]*", b"", octets)


ACCEPT = ("Accept: application/vnd.oci.image.manifest.v1+json", "Accept: */*")


@pytest.mark.parametrize("lines", [(), ACCEPT, ("Range: bytes=0-1", 'If-None-Match: "x"')])
def test_d25_the_octets_are_the_same(hiding: Guard, image: Image, lines: tuple[str, ...]) -> None:
    """But for the time and the name that was asked for; nothing that is there is told."""
    with hiding.connection() as connection:
        line = Line(connection, hiding.ground.as_reader)
        for method, rest in targets(image):
            if method in ("PUT", "POST", "DELETE"):
                continue
            hidden = without_date(line.ask(method, f"/v2/{HIDDEN}/{rest}", *lines))
            absent = without_date(line.ask(method, f"/v2/{ABSENT}/{rest}", *lines))
            assert hidden.replace(HIDDEN.encode(), ABSENT.encode()) == absent, (method, rest)
            assert hidden.startswith(b"HTTP/1.1 404 ")


def test_d25_whoever_may_pull_finds_it(hiding: Guard, image: Image) -> None:
    """The targets above lead somewhere, and the rest is the registry's own 404."""
    as_pusher = hiding.ground.as_pusher
    for rest in (f"manifests/{digest(image.manifest)}", f"blobs/{digest(image.config)}"):
        found = curl(hiding, f"/v2/{HIDDEN}/{rest}", "--header", ACCEPT[0], credentials=as_pusher)
        assert found.status == 200
    for name, credentials in ((HIDDEN, as_pusher), ("public/app", hiding.ground.as_reader)):
        lacking = curl(hiding, f"/v2/{name}/manifests/v2", credentials=credentials)
        [error] = json.loads(lacking.body)["errors"]
        assert (lacking.status, error["code"]) == (404, "MANIFEST_UNKNOWN")
        lacking = curl(hiding, f"/v2/{name}/blobs/sha256:{'0' * 64}", credentials=credentials)
        [error] = json.loads(lacking.body)["errors"]
        assert (lacking.status, error["code"]) == (404, "BLOB_UNKNOWN")


def test_d25_writes_find_nothing_hidden(hiding: Guard, image: Image) -> None:
    """404 for what is there and for what is not, below the same rule."""
    for method, rest in targets(image)[-3:]:
        seen = set()
        for name in (HIDDEN, "hidden/not"):
            answer = curl(
                hiding,
                f"/v2/{name}/{rest}",
                *("--request", method),
                credentials=hiding.ground.as_reader,
            )
            seen.add((answer.status, answer.body.replace(name, "")))
        [(status, body)] = seen
        assert (status, json.loads(body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


def test_d25_clients_say_the_same(
    hiding: Guard, skopeo: Skopeo, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """skopeo and docker print the same words for both."""
    said = []
    for name in (HIDDEN, ABSENT):
        words = skopeo.pull(f"{name}:v1", tmp_path / "out", "v1", hiding.ground.as_reader)
        assert "repository name not known to registry" in words
        said.append(re.sub(r'time="[^"]*"', "", words).replace(name, ""))
    assert said[0] == said[1]

    docker = Docker(hiding, tmp_path_factory.mktemp("docker") / "d")
    try:
        docker.login(*hiding.ground.reader)
        said = []
        for name in (HIDDEN, ABSENT):
            with pytest.raises(Refused) as refused:
                docker._docker("pull", f"{hiding.host}/{name}:v1")
            said.append(str(refused.value).replace(name, ""))
    finally:
        docker.stop()
    assert "not found" in said[0] or "not known" in said[0]
    assert said[0] == said[1]


def test_the_operator_finds_the_incident(hiding: Guard) -> None:
    """In the access log and, by its id, with the rule in the log."""
    access_log = hiding.program.log.parent / "access.log"
    with hiding.connection() as connection:
        octets = Line(connection, hiding.ground.as_reader).ask(
            "GET", f"/v2/{HIDDEN}/tags/list?n=77"
        )
    hiding.program.wait_until("the access log", lambda: "n=77" in access_log.read_text())
    [entry] = [line for line in access_log.read_text().splitlines() if "n=77" in line]
    incident = entry.split()[1]

    assert re.fullmatch("[0-9a-f]{8}", incident)
    assert incident.encode() not in octets
    assert "pull = user:testuserpush (hidden)" in hiding.wait_for_line(f"incident {incident}: ")


@pytest.mark.parametrize(
    ("method", "rest"),
    [("GET", "manifests/v1"), ("HEAD", "blobs/sha256:" + "0" * 64), ("GET", "tags/list")],
)
def test_d25_the_times_are_told(
    hiding: Guard, method: str, rest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Medians, for people to compare: no timing gates a test."""
    times: dict[str, list[float]] = {HIDDEN: [], ABSENT: []}
    with hiding.connection() as connection:
        line = Line(connection, hiding.ground.as_reader)
        for number in range(TRIES):
            # Neither is always the one behind the other.
            for name in (HIDDEN, ABSENT) if number % 2 else (ABSENT, HIDDEN):
                begin = time.perf_counter()
                octets = line.ask(method, f"/v2/{name}/{rest}")
                times[name].append(time.perf_counter() - begin)
                assert octets.startswith(b"HTTP/1.1 404 ")
    medians = {name: statistics.median(each) * 1e6 for name, each in times.items()}
    spread = {name: statistics.quantiles(each, n=4)[2] * 1e6 for name, each in times.items()}
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{method} {rest[:12]}: median hidden {medians[HIDDEN]:.0f} us, missing "
            f"{medians[ABSENT]:.0f} us; upper quartile {spread[HIDDEN]:.0f}, {spread[ABSENT]:.0f}"
        )

"""Immutable tags in front of the real registry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regguard.demo.image import LAYER_TYPE, MANIFEST_TYPE, Image, digest, random_image
from tests.e2e.clients import Answer, Skopeo, curl
from tests.e2e.engines import Docker, Refused
from tests.e2e.programs import Ground, Guard, Registry

POLICY = """\
delete = "group:pusher"

[[repository]]
match = ["locked/**"]
immutable = ["v*", "release-*"]
"""
RULE = "regguard.toml:5: immutable = v*, release-*"

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@pytest.fixture(scope="module")
def locked(
    ground: Ground, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """A guard whose release tags below locked/ are immutable."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "regguard.toml").write_text(POLICY)
    guard = Guard(ground, folder, registry.url, "--config", "regguard.toml")
    yield guard
    guard.stop()


@pytest.fixture
def skopeo(locked: Guard, tmp_path: Path) -> Skopeo:
    return Skopeo(locked, tmp_path)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of this test's own."""
    words = re.findall("[a-z0-9]+", request.node.name.lower())
    return "locked/" + "-".join(words)


def layout(folder: Path, image: Image) -> Path:
    image.write_layout(folder, "v1")
    return folder


def put(guard: Guard, folder: Path, reference: str, kind: str, content: bytes) -> Answer:
    """PUT of a manifest under ``repository:tag`` or ``repository@digest``."""
    file = folder / digest(content)[7:]
    file.write_bytes(content)
    repository, _, tag = reference.rpartition("@" if "@" in reference else ":")
    return curl(
        guard,
        f"/v2/{repository}/manifests/{tag}",
        *("--request", "PUT", "--header", f"Content-Type: {kind}"),
        *("--data-binary", f"@{file}"),
        credentials=guard.ground.as_pusher,
    )


def delete(guard: Guard, target: str) -> Answer:
    return curl(guard, target, "--request", "DELETE", credentials=guard.ground.as_pusher)


def check_denied(answer: Answer, *parts: str) -> None:
    assert answer.status == 403
    [error] = json.loads(answer.body)["errors"]
    assert error["code"] == "DENIED"
    assert error["detail"]["rule"] == RULE
    for part in parts:
        assert part in error["message"]


def index_of(kind: str, child_kind: str, *children: bytes) -> bytes:
    """An index, or manifest list, of some manifests."""
    entries = [
        {
            "mediaType": child_kind,
            "size": len(child),
            "digest": digest(child),
            "platform": {"architecture": "amd64", "os": "linux", "variant": f"v{number}"},
        }
        for number, child in enumerate(children)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()


def docker_manifest(image: Image) -> bytes:
    """The same image as docker writes it."""
    manifest = image.manifest.decode().replace(MANIFEST_TYPE, DOCKER_MANIFEST)
    manifest = manifest.replace(LAYER_TYPE, "application/vnd.docker.image.rootfs.diff.tar.gzip")
    return manifest.replace(
        "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"
    ).encode()


def test_d12_skopeo_pushes_the_same_again_and_nothing_else(
    locked: Guard, skopeo: Skopeo, tmp_path: Path, name: str
) -> None:
    """The refusal that a person reads names the tag, and what it stands for."""
    one, other = random_image((500,)), random_image((600,))
    first, second = layout(tmp_path / "one", one), layout(tmp_path / "other", other)
    as_pusher = locked.ground.as_pusher

    assert not skopeo.push(first, "v1", f"{name}:v1", as_pusher)
    assert not skopeo.push(first, "v1", f"{name}:v1", as_pusher)
    said = skopeo.push(second, "v1", f"{name}:v1", as_pusher)
    assert "denied: " in said
    for part in (f"{name}:v1", "the tag is immutable", digest(one.manifest), "incident "):
        assert part in said
    # Another tag is free, and stays so.
    assert not skopeo.push(second, "v1", f"{name}:latest", as_pusher)
    assert not skopeo.push(first, "v1", f"{name}:latest", as_pusher)
    assert not skopeo.pull(f"{name}:v1", tmp_path / "out", "v1", locked.ground.as_reader)
    assert (tmp_path / "out/blobs/sha256" / digest(one.manifest)[7:]).exists()


def test_d12_docker_is_told(
    locked: Guard,
    skopeo: Skopeo,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
) -> None:
    """docker prints the message, too, and pushes to a tag that is free."""
    first = layout(tmp_path / "one", random_image((500,)))
    assert not skopeo.push(first, "v1", f"{name}:v1", locked.ground.as_pusher)
    docker = Docker(locked, tmp_path_factory.mktemp("docker") / "d")
    try:
        docker.login(*locked.ground.pusher)
        with pytest.raises(Refused) as refused:
            docker.push(f"{name}:v1")
        docker.push(f"{name}:v2")
        docker.push(f"{name}:v2")
    finally:
        docker.stop()

    assert "denied: user testuserpush may not push" in str(refused.value)
    assert "the tag is immutable" in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "child_kind"), [(INDEX, MANIFEST_TYPE), (DOCKER_LIST, DOCKER_MANIFEST)]
)
def test_d12_indexes_and_lists_are_compared_as_they_are(
    locked: Guard, skopeo: Skopeo, tmp_path: Path, name: str, kind: str, child_kind: str
) -> None:
    """Registry 2.8 rewrites a list, and hides an OCI manifest, from who does not accept it."""
    image = random_image((500,))
    assert not skopeo.push(
        layout(tmp_path / "one", image), "v1", f"{name}:part", locked.ground.as_pusher
    )
    child = image.manifest if child_kind == MANIFEST_TYPE else docker_manifest(image)
    assert put(locked, tmp_path, f"{name}@{digest(child)}", child_kind, child).status == 201
    one, other = index_of(kind, child_kind, child), index_of(kind, child_kind, child, child)

    assert put(locked, tmp_path, f"{name}:v1", kind, one).status == 201
    assert put(locked, tmp_path, f"{name}:v1", kind, one).status == 201
    for what, its_kind in ((other, kind), (child, child_kind)):
        check_denied(put(locked, tmp_path, f"{name}:v1", its_kind, what), ":v1: ", digest(one))
    found = curl(
        locked, f"/v2/{name}/manifests/v1", "--header", f"Accept: {kind}",
        credentials=locked.ground.as_reader,
    )  # fmt: skip
    assert found.body.encode() == one

    # What it lists is needed, however many tags there are that do not say so.
    check_denied(delete(locked, f"/v2/{name}/manifests/{digest(child)}"), "v1 needs it")
    assert put(locked, tmp_path, f"{name}:free", kind, other).status == 201
    assert delete(locked, f"/v2/{name}/manifests/{digest(other)}").status == 202


def test_d11_deletions(locked: Guard, skopeo: Skopeo, tmp_path: Path, name: str) -> None:
    """What v1 stands for stays, by whatever name; another manifest goes."""
    one, other = random_image((500,)), random_image((600,))
    for image, tag in ((one, "v1"), (one, "alias"), (other, "latest")):
        folder = layout(tmp_path / tag, image)
        assert not skopeo.push(folder, "v1", f"{name}:{tag}", locked.ground.as_pusher)

    check_denied(delete(locked, f"/v2/{name}/manifests/v1"), f"{name}:v1: the tag is immutable")
    check_denied(
        delete(locked, f"/v2/{name}/manifests/{digest(one.manifest)}"),
        "the immutable tag v1 stands for it",
    )
    check_denied(delete(locked, f"/v2/{name}/blobs/{digest(one.layers[0])}"), "blob")
    # Registry 2.8 deletes no tags; it is asked, and that is its own answer.
    assert delete(locked, f"/v2/{name}/manifests/latest").status in (400, 405)
    assert delete(locked, f"/v2/{name}/manifests/{digest(other.manifest)}").status == 202
    assert not skopeo.pull(f"{name}:v1", tmp_path / "out", "v1", locked.ground.as_reader)


def test_of_many_first_pushes_one_wins(
    locked: Guard, skopeo: Skopeo, tmp_path: Path, name: str
) -> None:
    """All at once; what the winner pushed is what the tag stands for."""
    image = random_image((500,))
    folder = layout(tmp_path / "one", image)
    assert not skopeo.push(folder, "v1", f"{name}:part", locked.ground.as_pusher)
    manifests = [json.dumps({**json.loads(image.manifest), "annotations": {"n": str(number)}})
                 for number in range(8)]  # fmt: skip
    for tag in ("v1", "v2", "v3", "v4", "v5"):

        def push(content: str, tag: str = tag) -> int:
            answer = put(locked, tmp_path, f"{name}:{tag}", MANIFEST_TYPE, content.encode())
            return answer.status

        with ThreadPoolExecutor(len(manifests)) as pushers:
            statuses = list(pushers.map(push, manifests))
        assert sorted(statuses) == [201] + [403] * 7
        there = curl(
            locked,
            f"/v2/{name}/manifests/{tag}",
            *("--header", f"Accept: {MANIFEST_TYPE}"),
            credentials=locked.ground.as_reader,
        )
        assert there.body == manifests[statuses.index(201)]


def test_a_freeze_stops_writes_and_no_pulls(
    ground: Ground, registry: Registry, guard: Guard, tmp_path: Path
) -> None:
    """By the word in the file; skopeo prints the reason."""
    image = layout(tmp_path / "one", random_image((500,)))
    assert not Skopeo(guard, tmp_path).push(image, "v1", "frozen/app:v1", ground.as_pusher)
    folder = tmp_path / "guard"
    folder.mkdir()
    (folder / "regguard.toml").write_text('freeze = "moving to the new house"\n')
    frozen = Guard(ground, folder, registry.url, "--config", "regguard.toml")
    try:
        skopeo = Skopeo(frozen, tmp_path)
        # Of a repository that has none of it, so that there is something to write.
        said = skopeo.push(image, "v1", "frozen/other:v1", ground.as_pusher)
        assert "the registry is frozen: moving to the new house" in said
        for method, target in (
            ("PUT", "manifests/v1"),
            ("DELETE", "manifests/v1"),
            ("POST", "blobs/uploads/"),
        ):
            answer = curl(
                frozen, f"/v2/frozen/app/{target}", "--request", method,
                credentials=ground.as_pusher,
            )  # fmt: skip
            [error] = json.loads(answer.body)["errors"]
            assert (answer.status, error["code"]) == (403, "DENIED")
            assert error["detail"]["rule"] == "regguard.toml:1: freeze"
        assert not skopeo.pull("frozen/app:v1", tmp_path / "out", "v1", ground.as_reader)
    finally:
        frozen.stop()

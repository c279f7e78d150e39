"""Push records: what the logs tell of a real client's push, against what the registry has seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regguard.demo.image import MANIFEST_TYPE, Image, digest, random_image
from tests.e2e.clients import Skopeo, curl
from tests.e2e.engines import Containerd, Docker, Engine, Podman
from tests.e2e.programs import Ground, Guard, Registry

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


@dataclass
class Pushing:
    """A guard with the access log in JSON, in front of a registry that tells what it is asked."""

    guard: Guard
    registry: Registry
    log: Path

    def records(self, repository: str, number: int) -> list[dict[str, Any]]:
        """The pushes into a repository, as soon as there are so many; never more."""

        def found() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            return [
                line
                for line in lines
                if line["event"] == "push" and line["repository"] == repository
            ]

        self.guard.program.wait_until("push records", lambda: len(found()) >= number)
        assert len(found()) == number
        return found()

    def requests(self, **members: Any) -> list[dict[str, Any]]:
        """The lines of requests that have these members."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [
            line for line in lines if line["event"] == "request" and members.items() <= line.items()
        ]

    def counted(self, repository: str) -> tuple[int, int]:
        """Blobs that were uploaded and mounted, as the registry answered."""

        def handled() -> list[tuple[str, str]]:
            return [
                (each.method, each.target)
                for each in self.registry.handled()
                if each.target.startswith(f"/v2/{repository}/blobs/uploads/") and each.status == 201
            ]

        methods = [method for method, _ in handled()]
        return methods.count("PUT"), methods.count("POST")


@pytest.fixture(scope="module")
def pushing(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushing]:
    """Up for all tests of this module."""
    folder = tmp_path_factory.mktemp("pushing")
    with Registry(folder / "registry", access_log=True).running() as registry:
        log = folder / "access.log"
        words = ("--access-log", str(log), "--access-log-format", "json")
        guard = Guard(ground, folder / "guard", registry.url, *words)
        yield Pushing(guard, registry, log)
        guard.stop()


@pytest.fixture
def skopeo(pushing: Pushing, tmp_path: Path) -> Skopeo:
    """skopeo, aimed at the guard; it uploads six blobs at once."""
    return Skopeo(pushing.guard, tmp_path)


SIZES = (1_000, 20_000, 300_000, 2_000_000, 5_000_000)


def test_a_push_is_told_in_both_logs(pushing: Pushing, skopeo: Skopeo, tmp_path: Path) -> None:
    """Who, what, how many blobs and octets: as the image has them."""
    image = random_image(SIZES)
    image.write_layout(tmp_path / "in", "v1")
    pusher = pushing.guard.ground.as_pusher
    assert not skopeo.push(tmp_path / "in", "v1", "told/five:v1", pusher)

    [record] = pushing.records("told/five", 1)
    seconds, time = record.pop("seconds"), record.pop("time")
    assert record == {
        "event": "push",
        "user": "testuserpush",
        "repository": "told/five",
        "tags": ["v1"],
        "digest": digest(image.manifest),
        "media_type": MANIFEST_TYPE,
        "blobs_uploaded": len(SIZES) + 1,
        "blobs_mounted": 0,
        "bytes": sum(map(len, image.blobs)),
    }
    assert seconds > 0
    assert time.endswith("Z")
    line = pushing.guard.wait_for_line("pushed told/five:v1", digest(image.manifest))
    assert f" by testuserpush: {len(SIZES) + 1} blobs uploaded (7.4 MB), 0 mounted, " in line
    # And as the lines of its requests add up.
    uploads = [
        line
        for line in pushing.requests(action="push", repository="told/five")
        if "/blobs/uploads/" in line["target"]
    ]
    assert sum(line["bytes_in"] for line in uploads) > record["bytes"]
    [manifest] = pushing.requests(method="PUT", reference="v1", repository="told/five")
    assert (manifest["status"], manifest["digest"]) == (201, digest(image.manifest))
    assert 0 < manifest["upstream_seconds"] <= manifest["total_seconds"] <= seconds


def test_a_second_tag_brings_no_blobs(pushing: Pushing, skopeo: Skopeo, tmp_path: Path) -> None:
    """Everything is there already."""
    random_image((1_000,)).write_layout(tmp_path / "in", "v1")
    pusher = pushing.guard.ground.as_pusher
    for tag in ("v1", "v2"):
        assert not skopeo.push(tmp_path / "in", "v1", f"again/app:{tag}", pusher)

    first, second = pushing.records("again/app", 2)
    assert (first["tags"], first["blobs_uploaded"]) == (["v1"], 2)
    assert (second["tags"], second["blobs_uploaded"], second["bytes"]) == (["v2"], 0, 0)
    assert first["digest"] == second["digest"]


def test_an_image_for_two_platforms_is_three_pushes(
    pushing: Pushing, skopeo: Skopeo, tmp_path: Path
) -> None:
    """Two images by digest, each with its own blobs, and the index over them by its tag."""
    images = random_image((1_000,)), random_image((2_000, 3_000))
    index = write_index(tmp_path / "in", *images)
    pusher = pushing.guard.ground.as_pusher
    assert not skopeo.push(tmp_path / "in", "v1", "many/app:v1", pusher, "--all")

    records = pushing.records("many/app", 3)
    assert [
        (each["digest"], each["tags"], each["blobs_uploaded"], each["bytes"]) for each in records
    ] == [
        (digest(image.manifest), [], len(image.blobs), sum(map(len, image.blobs)))
        for image in images
    ] + [(digest(index), ["v1"], 0, 0)]
    assert records[2]["media_type"] == INDEX_TYPE


def write_index(folder: Path, *images: Image) -> bytes:
    """Write several images as one OCI layout with the tag ``v1``; return their index."""
    for number, image in enumerate(images):
        image.write_layout(folder / str(number), "v1")
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in folder.glob("*/blobs/sha256/*"):
        blob.rename(blobs / blob.name)
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [
                {
                    "mediaType": MANIFEST_TYPE,
                    "digest": digest(image.manifest),
                    "size": len(image.manifest),
                    "platform": {"os": "linux", "architecture": architecture},
                }
                for image, architecture in zip(images, ("amd64", "arm64"), strict=True)
            ],
        }
    ).encode()
    (blobs / hashlib.sha256(index).hexdigest()).write_bytes(index)
    top = {
        "mediaType": INDEX_TYPE,
        "digest": digest(index),
        "size": len(index),
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    }
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return index


def test_a_manifest_alone_brings_no_blobs_and_a_refused_one_is_no_push(
    pushing: Pushing, skopeo: Skopeo, tmp_path: Path
) -> None:
    """A tag set by hand; and one whose blobs are not there."""
    image = random_image((1_000,))
    image.write_layout(tmp_path / "in", "v1")
    ground = pushing.guard.ground
    assert not skopeo.push(tmp_path / "in", "v1", "alone/app:v1", ground.as_pusher)
    (tmp_path / "good.json").write_bytes(image.manifest)
    (tmp_path / "bad.json").write_bytes(random_image((5,)).manifest)

    def put(name: str, tag: str) -> int:
        return curl(
            pushing.guard,
            f"/v2/alone/app/manifests/{tag}",
            *("--request", "PUT", "--header", f"Content-Type: {MANIFEST_TYPE}"),
            *("--data-binary", f"@{tmp_path / name}.json"),
            credentials=ground.as_pusher,
        ).status

    assert put("bad", "v2") == 400
    assert put("good", "v3") == 201

    first, second = pushing.records("alone/app", 2)
    assert (first["tags"], second["tags"]) == (["v1"], ["v3"])
    assert (second["blobs_uploaded"], second["blobs_mounted"], second["bytes"]) == (0, 0, 0)


def test_clients_at_once_are_told_apart_by_repository(
    pushing: Pushing, skopeo: Skopeo, tmp_path: Path
) -> None:
    """Four pushes run side by side, and each record is that of its image."""
    sizes = {"atonce/a": 1, "atonce/b": 2, "atonce/c": 3, "atonce/d": 4}
    images = {name: random_image((100_000,) * number) for name, number in sizes.items()}
    for name, image in images.items():
        image.write_layout(tmp_path / name, "v1")

    def push(name: str) -> str:
        pusher = pushing.guard.ground.as_pusher
        return skopeo.push(tmp_path / name, "v1", f"{name}:v1", pusher)

    with ThreadPoolExecutor() as threads:
        assert not any(threads.map(push, images))

    for name, image in images.items():
        [record] = pushing.records(name, 1)
        assert record["digest"] == digest(image.manifest)
        assert record["blobs_uploaded"] == len(image.blobs)
        assert record["bytes"] == sum(map(len, image.blobs))


@pytest.fixture(params=[Docker, Podman, Containerd], ids=lambda kind: kind.__name__)
def engine(
    request: pytest.FixtureRequest, pushing: Pushing, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """One engine after the other, with empty folders."""
    folder = tmp_path_factory.mktemp("engine") / "state"
    engine: Engine = request.param(pushing.guard, folder)
    yield engine
    engine.stop()


@pytest.mark.root
def test_what_engines_upload_and_mount_is_what_the_registry_answered(
    pushing: Pushing, engine: Engine
) -> None:
    """A new image; and the same one into another repository, where it is mounted if at all."""
    name = type(engine).__name__.lower()
    blobs = []
    engine.login(*pushing.guard.ground.pusher)
    for repository in (f"{name}/first", f"{name}/second"):
        engine.push(f"{repository}:v1")

        [record] = pushing.records(repository, 1)
        uploaded, mounted = pushing.counted(repository)
        assert (record["blobs_uploaded"], record["blobs_mounted"]) == (uploaded, mounted)
        blobs.append(uploaded + mounted)
        assert (record["bytes"] > 0) == (uploaded > 0)
    assert blobs[0] == blobs[1] > 1
    if isinstance(engine, Docker):
        assert mounted > 0

"""The main job: real clients push to and pull from a real registry through the guard."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from regguard.demo.image import digest, random_image
from tests.canary import secret
from tests.e2e.clients import Skopeo, curl
from tests.e2e.programs import Ground, Guard, Registry, StartGuard

# Five layers, as a small service has: 1 kB to 5 MB.
FIVE = (1_000, 20_000, 300_000, 2_000_000, 5_000_000)


@pytest.fixture
def skopeo(guard: Guard, tmp_path: Path) -> Skopeo:
    """skopeo, aimed at the guard."""
    return Skopeo(guard, tmp_path)


@pytest.fixture
def pushed(guard: Guard, skopeo: Skopeo, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The name of a repository of this test's own that holds a small image as ``v1``."""
    name = "pushed/" + str(request.node.name).replace("_", "-").lower()
    random_image((500, 2_000)).write_layout(tmp_path / "small", "v1")
    assert not skopeo.push(tmp_path / "small", "v1", f"{name}:v1", guard.ground.as_pusher)
    return name


def blobs(layout: Path) -> set[str]:
    """The names of a layout's blobs, each checked against its content."""
    names = set()
    for path in (layout / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        names.add(path.name)
    return names


def manifest_digest(guard: Guard, name: str) -> str:
    """The digest of ``name:v1``."""
    found = curl(
        guard,
        f"/v2/{name}/manifests/v1",
        *("--head", "--header", "Accept: application/vnd.oci.image.manifest.v1+json"),
        credentials=guard.ground.as_reader,
    )
    assert found.status == 200
    (value,) = found.headers("Docker-Content-Digest")
    return str(value)


def test_login_check(guard: Guard) -> None:
    """``docker login`` asks GET /v2/: 401 without credentials, 200 with good ones."""
    assert curl(guard, "/v2/").status == 401
    for credentials in (guard.ground.as_reader, guard.ground.as_pusher):
        assert curl(guard, "/v2/", credentials=credentials).status == 200


def test_wrong_password_is_refused(guard: Guard, skopeo: Skopeo, tmp_path: Path) -> None:
    """A wrong password gets 401, and skopeo says so."""
    wrong = f"testuser:{secret('wrong')}"
    assert curl(guard, "/v2/", credentials=wrong).status == 401
    said = skopeo.pull("any/thing:v1", tmp_path / "out", "v1", wrong)
    assert "unauthorized" in said or "invalid username/password" in said


def test_five_layers_pushed_come_back_identical(
    guard: Guard, skopeo: Skopeo, tmp_path: Path
) -> None:
    """What testuserpush pushes, testuser pulls with the same digests."""
    random_image(FIVE).write_layout(tmp_path / "in", "v1")

    assert not skopeo.push(tmp_path / "in", "v1", "team/five:v1", guard.ground.as_pusher)
    assert not skopeo.pull("team/five:v1", tmp_path / "out", "v1", guard.ground.as_reader)

    assert blobs(tmp_path / "out") == blobs(tmp_path / "in")
    assert len(blobs(tmp_path / "out")) == len(FIVE) + 2


def test_layer_of_200_mb_comes_back_identical(guard: Guard, skopeo: Skopeo, tmp_path: Path) -> None:
    """A layer that no buffer holds by chance travels both ways byte for byte."""
    random_image((200_000_000,)).write_layout(tmp_path / "in", "v1")

    assert not skopeo.push(tmp_path / "in", "v1", "team/large:v1", guard.ground.as_pusher)
    assert not skopeo.pull("team/large:v1", tmp_path / "out", "v1", guard.ground.as_reader)

    assert blobs(tmp_path / "out") == blobs(tmp_path / "in")


def test_reader_may_not_push(guard: Guard, skopeo: Skopeo, tmp_path: Path) -> None:
    """The refusal that a person reads names user, repository and rule."""
    random_image((100,)).write_layout(tmp_path / "in", "v1")

    said = skopeo.push(tmp_path / "in", "v1", "team/refused:v1", guard.ground.as_reader)

    assert "denied: " in said
    for part in ("testuser", "team/refused", "push", "group:pusher"):
        assert part in said


def test_reader_may_not_delete_but_pusher_may(guard: Guard, pushed: str) -> None:
    """DELETE of a manifest: 403 with the reason for testuser, 202 for testuserpush."""
    target = f"/v2/{pushed}/manifests/{manifest_digest(guard, pushed)}"

    refused = curl(guard, target, "--request", "DELETE", credentials=guard.ground.as_reader)
    (error,) = json.loads(refused.body)["errors"]
    assert (refused.status, error["code"]) == (403, "DENIED")
    for part in ("testuser", pushed, "delete", "group:pusher"):
        assert part in error["message"]

    deleted = curl(guard, target, "--request", "DELETE", credentials=guard.ground.as_pusher)
    assert deleted.status == 202
    assert curl(guard, target, credentials=guard.ground.as_reader).status == 404


def test_tags_and_catalog_are_listed(guard: Guard, pushed: str) -> None:
    """Both lists come through as the registry wrote them."""
    tags = curl(guard, f"/v2/{pushed}/tags/list", credentials=guard.ground.as_reader)
    assert json.loads(tags.body) == {"name": pushed, "tags": ["v1"]}

    catalog = curl(guard, "/v2/_catalog?n=1000", credentials=guard.ground.as_reader)
    assert pushed in json.loads(catalog.body)["repositories"]


def test_range_of_a_blob(guard: Guard, tmp_path: Path, skopeo: Skopeo) -> None:
    """A Range request gets 206 and these bytes alone: how containerd resumes a pull."""
    image = random_image((50_000,))
    image.write_layout(tmp_path / "in", "v1")
    assert not skopeo.push(tmp_path / "in", "v1", "team/range:v1", guard.ground.as_pusher)
    (layer,) = image.layers
    out = tmp_path / "part"

    answer = curl(
        guard,
        f"/v2/team/range/blobs/{digest(layer)}",
        *("--range", "1000-1999", "--output", str(out), "--dump-header", "-"),
        credentials=guard.ground.as_reader,
    )

    assert answer.status == 206
    assert answer.headers("Content-Range") == [f"bytes 1000-1999/{len(layer)}"]
    # --include puts the head before the body there, too.
    assert out.read_bytes().endswith(b"\r\n\r\n" + layer[1000:2000])


def test_chunked_upload_arrives(guard: Guard, tmp_path: Path) -> None:
    """docker's way: PATCH without Content-Length, then PUT with the digest."""
    content = os.urandom(3_000_000)
    source = tmp_path / "blob"
    source.write_bytes(content)
    started = curl(
        guard,
        "/v2/team/chunked/blobs/uploads/",
        *("--request", "POST"),
        credentials=guard.ground.as_pusher,
    )
    target = started.headers("Location")[0].removeprefix(guard.url)
    patched = curl(
        guard,
        target,
        *("--request", "PATCH", "--upload-file", str(source)),
        *("--header", "Transfer-Encoding: chunked"),
        credentials=guard.ground.as_pusher,
    )
    assert patched.status == 202
    target = patched.headers("Location")[0].removeprefix(guard.url)
    stored = curl(
        guard,
        f"{target}&digest={digest(content)}",
        *("--request", "PUT"),
        credentials=guard.ground.as_pusher,
    )
    assert stored.status == 201
    assert stored.headers("Docker-Content-Digest") == [digest(content)]


def test_upload_locations_lead_back_to_the_guard(guard: Guard) -> None:
    """The registry behind is never named to a client, nor its http scheme."""
    started = curl(
        guard,
        "/v2/team/location/blobs/uploads/",
        *("--request", "POST"),
        credentials=guard.ground.as_pusher,
    )
    assert started.status == 202
    (location,) = started.headers("Location")
    assert location.startswith((f"{guard.url}/v2/team/location/", "/v2/team/location/"))


def test_rsa_certificate_serves_as_well(
    start_guard: StartGuard, registry: Registry, ground: Ground
) -> None:
    """Not every key is ECDSA; without --tls-key it is looked for beside the certificate."""
    guard = start_guard(registry.url, "--tls-cert", str(ground.rsa_certificate))

    assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200

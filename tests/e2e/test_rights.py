"""D08-D16: what belongs to one user, or one repository, is out of reach for the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regguard.demo.image import MANIFEST_TYPE, Image, digest, random_image
from tests.canary import secret
from tests.e2e.programs import Ground, Guard, Registry
from tests.e2e.raw import Door, guarding
from tests.e2e.recorder import Recorder

# anna and arno write to ours/**, rita only reads there, and dora only deletes.
POLICY = """\
pull = "nobody"
push = "nobody"
delete = "nobody"

[[repository]]
match = "ours/**"
pull = "group:writers, user:rita"
push = "group:writers"
delete = "user:dora"

[[repository]]
match = "mine/**"
pull = "user:mallory"
push = "user:mallory"

[[repository]]
match = "hidden/**"
pull = "user:alice"
push = "user:alice"
hide = true
"""
GROUPS = "writers: anna arno\n"
PASSWORDS = {
    user: secret(f"{user}'s") for user in ("alice", "anna", "arno", "rita", "dora", "mallory")
}

TYPED = f"Content-Type: {MANIFEST_TYPE}"
ACCEPT = f"Accept: {MANIFEST_TYPE}"
NOT_THERE = digest(os.urandom(16))


@pytest.fixture(scope="module")
def rights_guard(
    ground: Ground, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """A guard with the policy above in front of the registry."""
    folder = tmp_path_factory.mktemp("rights")
    with guarding(
        ground, folder, registry.url, passwords=PASSWORDS, groups=GROUPS, policy=POLICY
    ) as guard:
        yield guard


@pytest.fixture
def recorded(ground: Ground, tmp_path: Path) -> Iterator[tuple[Guard, Recorder]]:
    """A guard of the same kind in front of something that remembers every octet."""
    with (
        Recorder() as recorder,
        guarding(
            ground, tmp_path, recorder.url, passwords=PASSWORDS, groups=GROUPS, policy=POLICY
        ) as guard,
    ):
        yield guard, recorder


class Users:
    """The guard as each user, and ``bare``, the registry itself."""

    def __init__(self, guard: Guard, registry: Registry) -> None:
        self.bare = Door(registry)
        self._guard = guard

    def __getattr__(self, name: str) -> Door:
        return Door(self._guard, (name, PASSWORDS[name]))


@pytest.fixture
def users(rights_guard: Guard, registry: Registry) -> Users:
    """As who a test speaks."""
    return Users(rights_guard, registry)


def push(door: Door, repository: str, tag: str) -> Image:
    """Push a small image."""
    image = random_image((500,))
    for blob in image.blobs:
        door.upload(repository, blob)
    target = f"/v2/{repository}/manifests/{tag}"
    assert door.send("PUT", target, TYPED, body=image.manifest).status == 201
    return image


def test_d08_who_may_push_goes_on_with_anothers_upload(users: Users, rights_guard: Guard) -> None:
    """In the same repository an upload belongs to all who push there; the log tells them apart."""
    upload = users.anna.start_upload("ours/together")

    went_on = users.arno.send("PATCH", upload, body=b"one, ")
    upload = "/v2/" + went_on.headers["location"].partition("/v2/")[2]
    whole = digest(b"one, two")
    ended = users.anna.send("PUT", f"{upload}&digest={whole}", body=b"two")

    assert (went_on.status, ended.status) == (202, 201)
    assert users.rita.send("GET", f"/v2/ours/together/blobs/{whole}").body == b"one, two"
    rights_guard.wait_for_line(" arno ", '"PATCH /v2/ours/together/blobs/uploads/', '" 202 ')


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
def test_d08_nobody_else_touches_an_upload(users: Users, method: str) -> None:
    """403 where it is, and the registry's 404 under the name of another repository."""
    upload = users.anna.start_upload("ours/alone")
    ending = f"&digest={digest(b'theirs')}" if method == "PUT" else ""

    in_place = users.mallory.send(method, upload + ending, body=b"theirs")
    elsewhere = users.mallory.send(
        method, upload.replace("/ours/alone/", "/mine/alone/") + ending, body=b"theirs"
    )

    assert (in_place.status, in_place.error) == (403, "DENIED")
    assert (elsewhere.status, elsewhere.error) == (404, "BLOB_UPLOAD_INVALID")
    blob = f"/v2/mine/alone/blobs/{digest(b'theirs')}"
    assert users.bare.send("GET", blob).status == 404
    ended = users.anna.send("PUT", f"{upload}&digest={digest(b'ours')}", body=b"ours")
    assert ended.status == 201


@pytest.mark.parametrize("signed", [True, False], ids=["with-state", "without"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "PUT", "DELETE"])
def test_d09_who_only_reads_touches_no_upload(users: Users, method: str, signed: bool) -> None:
    """Not even its state: distribution 3 would give a new one to who has none."""
    upload = users.anna.start_upload("ours/unread")
    target = upload if signed else upload.partition("?")[0]

    reply = users.rita.send(method, target, body=b"theirs" if method == "PATCH" else b"")

    assert reply.status == 403
    assert "location" not in reply.headers
    ended = users.anna.send("PUT", f"{upload}&digest={digest(b'ours')}", body=b"ours")
    assert ended.status == 201


@pytest.mark.parametrize("user", ["rita", "mallory"])
def test_d10_who_may_not_write_changes_nothing(users: Users, user: str) -> None:
    """Every write is 403 DENIED, and all that was there stays there."""
    image = push(users.anna, "ours/kept", "v1")
    other = random_image((500,)).manifest
    door: Door = getattr(users, user)
    manifest, blob = digest(image.manifest), digest(image.config)

    replies = [
        door.send("PUT", "/v2/ours/kept/manifests/v1", TYPED, body=other),
        door.send("PUT", "/v2/ours/kept/manifests/v2", TYPED, body=image.manifest),
        door.send("PUT", f"/v2/ours/kept/manifests/{digest(other)}", TYPED, body=other),
        door.send("DELETE", "/v2/ours/kept/manifests/v1"),
        door.send("DELETE", f"/v2/ours/kept/manifests/{manifest}"),
        door.send("DELETE", f"/v2/ours/kept/blobs/{blob}"),
        door.send("POST", "/v2/ours/kept/blobs/uploads/"),
        door.send("POST", f"/v2/ours/kept/blobs/uploads/?digest={digest(b'x')}", body=b"x"),
    ]

    assert {(reply.status, reply.error) for reply in replies} == {(403, "DENIED")}
    assert users.bare.send("GET", "/v2/ours/kept/manifests/v1", ACCEPT).body == image.manifest
    assert users.bare.send("GET", f"/v2/ours/kept/blobs/{blob}").body == image.config
    assert users.bare.send("GET", "/v2/ours/kept/manifests/v2", ACCEPT).status == 404


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PUT", "/v2/ours/app/manifests/v1"),
        ("POST", f"/v2/ours/app/blobs/uploads/?digest={NOT_THERE}"),
        ("PATCH", "/v2/ours/app/blobs/uploads/5e83dc26-fb54-41c8-a6d1-88a4e5ebabfb?_state=x"),
        ("DELETE", f"/v2/ours/app/blobs/{NOT_THERE}"),
    ],
)
def test_d10_five_gigabytes_are_refused_before_the_first_octet(
    recorded: tuple[Guard, Recorder], method: str, target: str
) -> None:
    """The refusal waits for no body, and the registry hears nothing."""
    guard, recorder = recorded

    reply = Door(guard, ("rita", PASSWORDS["rita"])).send(
        method, target, "Content-Length: 5000000000"
    )

    assert (reply.status, reply.error) == (403, "DENIED")
    assert bytes(recorder.received) == b""


def test_d11_to_delete_is_a_right_of_its_own(users: Users) -> None:
    """Who pushes may not delete, and who deletes may neither pull nor push."""
    image = push(users.anna, "ours/deleted", "v1")
    manifest = f"/v2/ours/deleted/manifests/{digest(image.manifest)}"
    blob = f"/v2/ours/deleted/blobs/{digest(image.config)}"

    for target in ("/v2/ours/deleted/manifests/v1", manifest, blob):
        refused = users.anna.send("DELETE", target)
        assert (refused.status, refused.error) == (403, "DENIED")
    assert users.dora.send("GET", manifest, ACCEPT).status == 403
    assert users.dora.send("PUT", manifest, TYPED, body=image.manifest).status == 403

    assert users.dora.send("DELETE", manifest).status == 202
    assert users.dora.send("DELETE", blob).status == 202
    assert users.bare.send("GET", manifest, ACCEPT).status == 404
    assert users.bare.send("GET", blob).status == 404


@pytest.mark.parametrize("tag", ["latest", "v1"])
def test_d12_latest_is_a_tag_like_any_other(users: Users, tag: str) -> None:
    """Only who pushes sets it, and sets it again."""
    push(users.anna, f"ours/tagged-{tag}", tag)
    target = f"/v2/ours/tagged-{tag}/manifests/{tag}"

    image = push(users.arno, f"ours/tagged-{tag}", tag)

    for door in (users.rita, users.mallory):
        assert door.send("PUT", target, TYPED, body=image.manifest).status == 403
        assert door.send("DELETE", target).status == 403
    assert users.rita.send("GET", target, ACCEPT).body == image.manifest


@pytest.mark.parametrize(
    "question",
    ["tags/list", "tags/list?n=1", "referrers/D", "referrers/D?artifactType=application%2Fexample"],
)
def test_d14_lists_need_pull_on_their_repository(users: Users, question: str) -> None:
    """403 for who may not pull, hidden ones 404; for others what the registry says."""
    image = push(users.anna, "ours/listed", "v1")
    question = question.replace("D", digest(image.manifest))
    target = f"/v2/ours/listed/{question}"

    allowed = users.rita.send("GET", target)
    denied = users.mallory.send("GET", target)
    hidden = users.mallory.send("GET", f"/v2/hidden/listed/{question}")

    said = users.bare.send("GET", target)
    assert (allowed.status, allowed.body) == (said.status, said.body)
    assert (denied.status, denied.error) == (403, "DENIED")
    assert (hidden.status, hidden.error) == (404, "NAME_UNKNOWN")


def test_d15_a_digest_from_a_hidden_repository_is_unknown_in_ones_own(users: Users) -> None:
    """As the registry itself says it of any digest that is nowhere."""
    image = push(users.alice, "hidden/app", "v1")
    push(users.mallory, "mine/app", "v1")

    for endpoint, known in (
        ("blobs", digest(image.layers[0])),
        ("blobs", digest(image.config)),
        ("manifests", digest(image.manifest)),
    ):
        target = f"/v2/mine/app/{endpoint}/{known}"
        nowhere = f"/v2/mine/app/{endpoint}/{NOT_THERE}"
        for method in ("HEAD", "GET"):
            reply = users.mallory.send(method, target, ACCEPT)
            other = users.mallory.send(method, nowhere, ACCEPT)
            said = users.bare.send(method, nowhere, ACCEPT)
            assert (reply.status, other.status, said.status) == (404, 404, 404)
            assert other.body == said.body
            assert reply.body.replace(known.encode(), NOT_THERE.encode()) == said.body


@pytest.mark.parametrize("user", ["anna", "rita", "dora", "mallory", "alice"])
def test_d16_head_is_judged_as_get(users: Users, user: str) -> None:
    """On all that is read, for whomever: the same status, the same length, no body."""
    repository = f"ours/read-by-{user}"
    image = push(users.anna, repository, "v1")
    door: Door = getattr(users, user)

    for target in (
        "/v2/",
        f"/v2/{repository}/manifests/v1",
        f"/v2/{repository}/manifests/none",
        f"/v2/{repository}/blobs/{digest(image.config)}",
        f"/v2/{repository}/blobs/{NOT_THERE}",
        "/v2/hidden/thing/manifests/v1",
    ):
        got, headed = door.send("GET", target, ACCEPT), door.send("HEAD", target, ACCEPT)
        assert headed.status == got.status, target
        assert headed.headers["content-length"] == got.headers["content-length"], target
        assert headed.body == b""
    # The registry has no HEAD for this one.
    listing = f"/v2/{repository}/tags/list"
    assert (door.send("GET", listing).status, door.send("HEAD", listing).status) in (
        (200, 405),
        (403, 403),
    )


@pytest.mark.parametrize("known", [True, False], ids=["with-password", "without"])
@pytest.mark.parametrize("target", ["/v2/", "/v2/_catalog", "/v2/ours/app/manifests/v1",
                                    "/v2/ours/app/blobs/uploads/"])  # fmt: skip
def test_d16_other_methods_reach_no_registry(
    recorded: tuple[Guard, Recorder], target: str, known: bool
) -> None:
    """OPTIONS, to which the registry answers anybody, and what is no method of HTTP's."""
    guard, recorder = recorded
    door = Door(guard, ("anna", PASSWORDS["anna"]) if known else None)

    registered = ("OPTIONS", "TRACE", "CONNECT", "PROPFIND", "LINK", "SEARCH", "PURGE")
    found = {method: door.send(method, target).status for method in registered}
    others = ("put", "get", "PUTx", "GETT", "DELETE_", "X" * 100_000)
    found |= {method[:10]: door.send(method, target).status for method in others}

    assert set(found.values()) <= {400, 405, 414, 431, 501}, found
    assert found["OPTIONS"] == 405
    assert bytes(recorder.received) == b""

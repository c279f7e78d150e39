"""D01-D07: no mount takes a blob out of a repository that the caller may not pull from.

Each trick is first sent to the real registry itself, so that it is known which of them work there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from regguard.demo.image import digest
from tests.canary import secret
from tests.e2e.programs import Ground, Guard, Registry
from tests.e2e.raw import Door, guarding

POLICY = """\
pull = "user:alice"
push = "user:alice"
delete = "nobody"

[[repository]]
match = "mine/**"
pull = "user:mallory"
push = "user:mallory"

[[repository]]
match = "open/**"
pull = "valid-user"

[[repository]]
match = "hidden/**"
hide = true
"""
PASSWORDS = {user: secret(f"{user}'s") for user in ("alice", "mallory")}

SECRET = os.urandom(2_000)
OPEN = os.urandom(2_000)
D = digest(SECRET)
# Of nothing that is there.
NO_DIGEST = digest(os.urandom(16))

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
WORDS = f"mount={D}&from=secret/repo"


@pytest.fixture(scope="module")
def mounts_guard(
    ground: Ground, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """A guard in front of a registry with a secret blob, a hidden one, and an open one."""
    bare = Door(registry)
    bare.upload("secret/repo", SECRET)
    bare.upload("hidden/repo", SECRET)
    bare.upload("open/repo", OPEN)
    folder = tmp_path_factory.mktemp("mounts")
    with guarding(
        ground, folder, registry.url, passwords=PASSWORDS, groups="# none\n", policy=POLICY
    ) as guard:
        yield guard


@pytest.fixture
def bare(mounts_guard: Guard, registry: Registry) -> Door:
    """The registry itself."""
    return Door(registry)


@pytest.fixture
def mallory(mounts_guard: Guard) -> Door:
    """The guard, as one who may push to mine/** alone."""
    return Door(mounts_guard, ("mallory", PASSWORDS["mallory"]))


def readable(repository: str, *doors: Door) -> set[int]:
    """The statuses of all ways to read the secret blob there."""
    target = f"/v2/{repository}/blobs/{D}"
    return {door.send(method, target).status for door in doors for method in ("HEAD", "GET")}


def typed(*types: str) -> tuple[str, ...]:
    return tuple(f"Content-Type: {kind}" for kind in types)


def multipart(**fields: str) -> bytes:
    """A form as a browser sends it, with the boundary ``x``; ``from_`` is ``from``."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name.rstrip("_")}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return "".join([*parts, "--x--\r\n"]).encode()


@dataclass(frozen=True)
class Trick:
    """A try to mount the secret blob; ``mounts`` if registry 2.8.2 by itself falls for it.

    ``status`` is what comes through the guard: 202 is the registry's, for the upload that is left.
    """

    query: str = ""
    lines: tuple[str, ...] = ()
    body: bytes = b""
    mounts: bool = False
    status: int = 202
    method: str = "POST"


TRICKS = {
    "d01-query": Trick(WORDS, mounts=True),
    "d01-query-as-docker-writes-it": Trick(
        f"from=secret%2Frepo&mount={quote(D, safe='')}", mounts=True
    ),
    "d01-from-hidden": Trick(f"mount={D}&from=hidden/repo", mounts=True),
    "d01-with-origin": Trick(f"{WORDS}&origin=registry.example", mounts=True),
    "d01-with-digest": Trick(f"{WORDS}&digest={D}", mounts=True),
    "d01-upper-case-digest": Trick(f"mount=sha256:{D[7:].upper()}&from=secret/repo"),
    "d02-form": Trick("", typed(FORM), WORDS.encode(), mounts=True),
    "d02-form-as-docker-would": Trick(
        "", typed(FORM), f"from=secret%2Frepo&mount={quote(D, safe='')}".encode(), mounts=True
    ),
    "d02-chunked-form": Trick(
        "",
        (*typed(FORM), "Transfer-Encoding: chunked"),
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(WORDS), WORDS.encode()),
        mounts=True,
    ),
    "d02-upper-case-type": Trick("", typed(FORM.upper()), WORDS.encode(), mounts=True),
    "d02-upper-case-name": Trick("", (f"CONTENT-TYPE: {FORM}",), WORDS.encode(), mounts=True),
    "d02-charset": Trick("", typed(f"{FORM}; charset=utf-8"), WORDS.encode(), mounts=True),
    "d02-odd-parameter": Trick("", typed(f"{FORM} ; x"), WORDS.encode(), mounts=True),
    "d02-two-types-form-first": Trick(
        "", typed(FORM, "application/octet-stream"), WORDS.encode(), mounts=True
    ),
    "d02-two-types-form-last": Trick("", typed("application/octet-stream", FORM), WORDS.encode()),
    "d02-octets": Trick("", typed("application/octet-stream"), WORDS.encode()),
    "d02-no-type": Trick("", (), WORDS.encode()),
    "d02-half-in-the-query": Trick(f"mount={D}", typed(FORM), b"from=secret/repo", mounts=True),
    "d02-type-named-by-connection": Trick(
        "", (*typed(FORM), "Connection: Content-Type"), WORDS.encode(), mounts=True
    ),
    "d03-multipart": Trick(
        "",
        typed(MULTIPART),
        multipart(mount=D, from_="secret/repo"),
        mounts=True,
    ),
    "d03-multipart-half-in-the-query": Trick(
        "from=secret/repo",
        typed(MULTIPART),
        multipart(mount=D),
        mounts=True,
    ),
    "d04-form-over-query": Trick(
        f"mount={D}&from=open/repo", typed(FORM), b"from=secret/repo", mounts=True
    ),
    "d04-multipart-over-query": Trick(
        f"mount={D}&from=mine/repo",
        typed(MULTIPART),
        multipart(from_="secret/repo"),
    ),
    "d05-encoded-mount": Trick(f"%6dount={D}&from=secret/repo", mounts=True, status=400),
    "d05-encoded-from": Trick(f"mount={D}&%66rom=secret/repo", mounts=True, status=400),
    "d05-encoded-slash": Trick(f"mount={D}&from=secret%2frepo", mounts=True),
    "d05-encoded-letters": Trick(f"mount={D}&from=%73ecret/rep%6F", mounts=True),
    "d05-encoded-in-the-form": Trick(
        "", typed(FORM), f"%6dount={D}&%66rom=%73ecret/repo".encode(), mounts=True
    ),
    "d06-from-twice-secret-first": Trick(
        f"mount={D}&from=secret/repo&from=mine/a", mounts=True, status=400
    ),
    "d06-from-twice-secret-last": Trick(f"mount={D}&from=mine/a&from=secret/repo", status=400),
    "d06-mount-twice-secret-first": Trick(
        f"mount={D}&mount={NO_DIGEST}&from=secret/repo", mounts=True, status=400
    ),
    "d06-mount-twice-secret-last": Trick(
        f"mount={NO_DIGEST}&mount={D}&from=secret/repo", status=400
    ),
    "d06-semicolon": Trick(f"mount={D};from=secret/repo", status=400),
    "d06-semicolon-hides-the-other": Trick(
        f"mount={D}&from=mine/a;x&from=secret/repo", mounts=True, status=400
    ),
    "d06-bad-escape-hides-the-other": Trick(
        f"mount={D}&from=mine/a%zz&from=secret/repo", mounts=True, status=400
    ),
    "d06-bad-escape-elsewhere": Trick(f"{WORDS}&x=%", mounts=True, status=400),
    "d07-mount-alone": Trick(f"mount={D}"),
    "d07-from-alone": Trick("from=secret/repo"),
    "d07-empty-from": Trick(f"mount={D}&from="),
    "d07-from-the-repository-itself": Trick(f"mount={D}&from=OWN"),
    "d07-from-a-dotted-path": Trick(f"mount={D}&from=mine/../secret/repo"),
    "d07-from-behind-a-host": Trick(f"mount={D}&from=localhost/secret/repo"),
    "d16-get": Trick(WORDS, status=405, method="GET"),
    "d16-put-on-the-start": Trick(WORDS, status=405, method="PUT"),
    "d16-lower-case-method": Trick(WORDS, status=400, method="post"),
}


@pytest.mark.parametrize("name", TRICKS)
def test_the_registry_itself_falls_for_most_tricks(bare: Door, mallory: Door, name: str) -> None:
    """What mounts there is readable then: so the next test would see a mount if there were one."""
    trick = TRICKS[name]
    own = f"mine/bare-{name}"
    target = f"/v2/{own}/blobs/uploads/?{trick.query.replace('OWN', own)}"

    reply = bare.send(trick.method, target, *trick.lines, body=trick.body)

    assert (reply.status == 201) is trick.mounts, reply
    assert readable(own, bare, mallory) == {200 if trick.mounts else 404}


@pytest.mark.parametrize("name", TRICKS)
def test_no_trick_mounts_a_secret_blob_through_the_guard(
    bare: Door, mallory: Door, name: str
) -> None:
    """An empty upload or a refusal; the blob can be read through neither door."""
    trick = TRICKS[name]
    own = f"mine/{name}"
    target = f"/v2/{own}/blobs/uploads/?{trick.query.replace('OWN', own)}"

    reply = mallory.send(trick.method, target, *trick.lines, body=trick.body)

    assert reply.status == trick.status, reply
    assert readable(own, bare, mallory) == {404}


@pytest.mark.parametrize(
    ("method", "more", "lines", "body", "status"),
    [
        ("PATCH", f"&{WORDS}", (), b"", 202),
        ("PATCH", "", typed(FORM), WORDS.encode(), 202),
        ("PUT", f"&digest={D}&{WORDS}", (), b"", 400),
        ("PUT", f"&digest={D}", typed(FORM), WORDS.encode(), 400),
        ("PUT", "", typed(FORM), f"digest={D}&{WORDS}".encode(), 400),
        ("PUT", "", typed(MULTIPART), multipart(digest=D, mount=D, from_="secret/repo"), 400),
        ("GET", f"&{WORDS}", (), b"", 204),
        ("HEAD", f"&{WORDS}", (), b"", 204),
        ("DELETE", f"&{WORDS}", typed(FORM), WORDS.encode(), 204),
        ("POST", f"&{WORDS}", typed(FORM), WORDS.encode(), 405),
    ],
)
def test_no_request_on_a_started_upload_mounts(
    bare: Door,
    mallory: Door,
    method: str,
    more: str,
    lines: tuple[str, ...],
    body: bytes,
    status: int,
) -> None:
    """Once an upload has begun its words are only the upload's, and its body is only data."""
    upload = mallory.start_upload("mine/begun")

    reply = mallory.send(method, upload + more, *lines, body=body)

    assert reply.status == status, reply
    assert readable("mine/begun", bare, mallory) == {404}


@pytest.mark.parametrize(
    "query",
    [
        f"mount={digest(OPEN)}&from=open/repo",
        f"from=open%2Frepo&mount={quote(digest(OPEN), safe='')}",
        f"mount={digest(OPEN)}&from=open/repo&origin=registry.example",
    ],
)
def test_d01_who_may_pull_from_the_source_mounts(bare: Door, mallory: Door, query: str) -> None:
    """The guard takes no mount away from who has a right to it."""
    reply = mallory.send("POST", f"/v2/mine/allowed/blobs/uploads/?{query}")

    assert reply.status == 201, reply
    target = f"/v2/mine/allowed/blobs/{digest(OPEN)}"
    assert mallory.send("GET", target).body == OPEN


def test_d01_the_upload_that_is_left_takes_the_blob(bare: Door, mallory: Door) -> None:
    """A client that has the blob goes on as if the registry did not have it elsewhere."""
    reply = mallory.send("POST", f"/v2/mine/left/blobs/uploads/?{WORDS}")
    upload = "/v2/" + reply.headers["location"].partition("/v2/")[2]

    assert mallory.send("PUT", f"{upload}&digest={D}", body=SECRET).status == 201
    assert readable("mine/left", bare, mallory) == {200}

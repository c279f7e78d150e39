"""Three teams share a registry: real clients push, pull and mount as members of their team."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.canary import secret
from tests.e2e.engines import Buildah, Containerd, Docker, Engine, Podman, Refused, Skopeo
from tests.e2e.programs import Ground, Guard, Handled, Registry
from tests.e2e.raw import guarding

POLICY = """\
pull = "nobody"
push = "nobody"
delete = "nobody"

[[repository]]
match = "team-a/**"
pull = "group:team-a"
push = "group:team-a-push"

[[repository]]
match = "team-b/**"
pull = "group:team-b"
push = "group:team-b-push"

[[repository]]
match = "team-c/**"
pull = "group:team-c"
push = "group:team-c-push"
hide = true

[[repository]]
match = "shared/**"
pull = "valid-user"
push = "group:team-a-push"

[[repository]]
match = "users/{user}/**"
pull = "valid-user"
push = "valid-user"
"""

# Of each team, one who pushes and one who only pulls.
GROUPS = """\
team-a: alice ada
team-a-push: alice
team-b: bob bea
team-b-push: bob
team-c: carol cleo
team-c-push: carol
"""
TEAMS = {"team-a": ("alice", "ada"), "team-b": ("bob", "bea"), "team-c": ("carol", "cleo")}
PASSWORDS = {user: secret(f"{user}'s") for user in ("alice", "ada", "bob", "bea", "carol", "cleo")}

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

# What clients print of a 404 NAME_UNKNOWN, or of its status where an answer has no body.
UNKNOWN = ("repository name not known to registry", "name unknown", "not found", "404")


@pytest.fixture(scope="module")
def teams_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that logs what it was asked: the witness that the guard cannot talk to."""
    registry = Registry(tmp_path_factory.mktemp("registry"), access_log=True)
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def teams_guard(
    ground: Ground, teams_registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """A guard with the policy above, for the users above."""
    folder = tmp_path_factory.mktemp("teams")
    with guarding(
        ground, folder, teams_registry.url, passwords=PASSWORDS, groups=GROUPS, policy=POLICY
    ) as guard:
        yield guard


# They mount file systems and make namespaces; skopeo does nothing of the kind.
@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(kind, marks=pytest.mark.root) for kind in (Docker, Podman, Buildah)),
        pytest.param(Containerd, marks=pytest.mark.root),
        Skopeo,
    ],
    ids=lambda kind: kind.__name__,
)
def engine(
    request: pytest.FixtureRequest, teams_guard: Guard, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """One engine after the other, with empty folders."""
    engine: Engine = request.param(teams_guard, tmp_path_factory.mktemp("engine") / "state")
    yield engine
    engine.stop()


def login(engine: Engine, user: str) -> None:
    engine.login(user, PASSWORDS[user])


def app(engine: Engine, place: str) -> str:
    """A repository for this engine alone."""
    return f"{place}/{type(engine).__name__.lower()}"


def refused(act: Callable[[str], None], name: str) -> str:
    """What the engine printed when it was refused."""
    with pytest.raises(Refused) as caught:
        act(f"{name}:v1")
    return str(caught.value)


def last_line(said: str) -> str:
    """The last line that an engine printed, without the time of day."""
    return re.sub('^time="[^"]*" ', "", said.strip().splitlines()[-1])


def writes(registry: Registry, repository: str) -> list[Handled]:
    """What the registry heard of a repository beside reads."""
    return [
        request
        for request in registry.handled()
        if request.target.startswith(f"/v2/{repository}/") and request.method not in ("GET", "HEAD")
    ]


def layers(registry: Registry, repository: str) -> list[str]:
    """The digests of an image's layers, as the registry itself has them."""
    request = Request(f"{registry.url}/v2/{repository}/manifests/v1")
    request.add_header("Accept", ", ".join(MANIFESTS))
    with urlopen(request) as answer:
        return [layer["digest"] for layer in json.load(answer)["layers"]]


def is_upload(request: Handled, repository: str, digest: str) -> bool:
    """The end of an upload (OCI end-6): 201 only if the digest is that of the data that came."""
    url = urlsplit(request.target)
    return (
        (request.method, request.status) == ("PUT", 201)
        and url.path.startswith(f"/v2/{repository}/blobs/uploads/")
        and parse_qs(url.query)["digest"] == [digest]
    )


def asks_to_mount(request: Handled, repository: str) -> bool:
    """Any word of a mount (OCI end-11), in any request to the repository's uploads."""
    url = urlsplit(request.target)
    words = parse_qs(url.query, keep_blank_values=True)
    return url.path.startswith(f"/v2/{repository}/blobs/uploads/") and not words.keys().isdisjoint(
        ("mount", "from")
    )


@pytest.mark.parametrize("team", TEAMS)
def test_members_push_and_pull(engine: Engine, team: str) -> None:
    """Who is in the team's push group pushes, who is in the team pulls; team-c's is hidden."""
    pusher, puller = TEAMS[team]
    name = app(engine, team)

    login(engine, pusher)
    engine.push(f"{name}:v1")
    login(engine, puller)
    engine.pull(f"{name}:v1")


def test_a_member_who_may_not_push_is_told_why(engine: Engine, teams_registry: Registry) -> None:
    """The words name user, action, repository and group."""
    name = app(engine, "team-a/words")
    login(engine, "ada")

    said = refused(engine.push, name)

    assert engine.denied in said
    if "denied" in engine.denied:
        assert f"user ada may pull but not push {name}: push needs group:team-a-push" in said
    assert not writes(teams_registry, name)


def test_another_team_is_refused(engine: Engine, teams_registry: Registry) -> None:
    """Who belongs to team-b neither pulls from team-a nor pushes to it."""
    name = app(engine, "team-a/apart")
    fresh = app(engine, "team-a/fresh")
    login(engine, "alice")
    engine.push(f"{name}:v1")
    login(engine, "bob")

    said_to_pull = refused(engine.pull, name)
    said_to_push = refused(engine.push, fresh)

    if "denied" in engine.denied:
        assert f"user bob may not pull {name}: pull needs group:team-a" in said_to_pull
    else:
        assert engine.denied in said_to_pull
    # The others ask for the head of a blob before they push it, which has no room for words.
    if isinstance(engine, Docker):
        assert f"user bob may not push {fresh}: push needs group:team-a-push" in said_to_push
    else:
        assert "403" in said_to_push
    assert not writes(teams_registry, fresh)


def test_a_hidden_repository_is_unknown_to_another_team(
    engine: Engine, teams_registry: Registry
) -> None:
    """Both for what is there and for what is not: the same words, and none that deny."""
    name = app(engine, "team-c/hidden")
    missing = app(engine, "team-c/absent")
    login(engine, "carol")
    engine.push(f"{name}:v1")
    login(engine, "bob")

    for act in (engine.pull, engine.push):
        said = refused(act, name)
        assert any(word in said for word in UNKNOWN), said
        assert "denied" not in said
        assert "may not" not in said
        assert last_line(refused(act, missing)).replace(missing, name) == last_line(said)
    assert not writes(teams_registry, missing)


def test_what_is_shared_is_pulled_by_all_and_pushed_by_one_team(engine: Engine) -> None:
    """shared/** is readable for every team, and only team-a's pushers write there."""
    name = app(engine, "shared")
    login(engine, "alice")
    engine.push(f"{name}:v1")
    login(engine, "cleo")
    engine.pull(f"{name}:v1")
    login(engine, "bob")

    said = refused(engine.push, app(engine, "shared/words"))

    assert engine.denied in said
    if "denied" in engine.denied:
        assert "user bob may pull but not push shared/words/" in said


def test_users_own_what_bears_their_name(engine: Engine) -> None:
    """users/{user}/** is the caller's own place, and nobody else's."""
    name = app(engine, "users/ada")
    login(engine, "ada")
    engine.push(f"{name}:v1")
    engine.pull(f"{name}:v1")
    login(engine, "bea")

    said = refused(engine.pull, name)

    assert engine.denied in said
    if "denied" in engine.denied:
        assert f"user bea may not pull {name}: pull is open to nobody" in said


@pytest.mark.parametrize(("team", "denial"), [("team-a", 403), ("team-c", 404)])
def test_d01_a_layer_of_a_forbidden_repository_is_uploaded_not_mounted(
    engine: Engine, teams_guard: Guard, teams_registry: Registry, team: str, denial: int
) -> None:
    """The engine knows where the layer is, and the push to another team's repository succeeds."""
    source = app(engine, f"{team}/secret")
    target = app(engine, f"team-b/from-{team}")
    engine.new_image()
    login(engine, TEAMS[team][0])
    engine.push(f"{source}:v1")
    engine.pull(f"{source}:v1")
    login(engine, "bob")

    engine.push(f"{target}:v1")

    if engine.looks_before_it_mounts:
        teams_guard.wait_for_line(" bob ", f'"HEAD /v2/{source}/blobs/sha256:', f'" {denial} ')
    else:
        # A mount was asked for, and an upload began.
        line = teams_guard.wait_for_line(" bob ", f"/v2/{target}/blobs/uploads/?", '" 202 ')
        assert f"from={source}" in unquote(line)
    digests = layers(teams_registry, target)
    assert digests == layers(teams_registry, source)
    handled = teams_registry.wait_until_handled(
        "the upload of each layer",
        lambda handled: all(
            any(is_upload(request, target, digest) for request in handled) for digest in digests
        ),
    )
    assert not [request for request in handled if asks_to_mount(request, target)]
    engine.pull(f"{target}:v1")


def test_d01_a_layer_of_a_readable_repository_is_mounted(
    engine: Engine, teams_registry: Registry
) -> None:
    """Who may pull from the source gets the layer without an upload."""
    source = app(engine, "team-a/open")
    target = app(engine, "shared/copy")
    engine.new_image()
    login(engine, "alice")
    engine.push(f"{source}:v1")
    engine.pull(f"{source}:v1")

    engine.push(f"{target}:v1")

    digests = layers(teams_registry, target)
    assert digests == layers(teams_registry, source)
    handled = teams_registry.wait_until_handled(
        "the mount of each layer",
        lambda handled: {
            digest
            for request in handled
            if asks_to_mount(request, target) and request.status == 201
            for digest in parse_qs(urlsplit(request.target).query)["mount"]
        }.issuperset(digests),
    )
    assert not [
        request
        for request in handled
        if any(is_upload(request, target, digest) for digest in digests)
    ]

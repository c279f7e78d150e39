"""Must-show 4: the catalog of restricted users, over 2,500 repositories of a real registry."""

from __future__ import annotations

import json
import random
import re
import ssl
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.programs import PATIENCE, Ground, Guard, Registry
from tests.guard.listings import AWKWARD, Distribution, by_segment

NUMBER = 2500
RULES = """\
pull = "nobody"
[[repository]]
match = ["closed/**"]
pull  = "nobody"
[[repository]]
match = ["team-a/secret/**"]
pull  = "user:testuserpush"
[[repository]]
match = ["team-a/**", "*/app", "{user}/**", "a", "a-b", "b/**"]
pull  = "valid-user"
[[repository]]
match = ["**"]
pull  = "user:testuserpush"
"""


def reader_may_pull(name: str) -> bool:
    """What these rules say to ``testuser``."""
    hidden = re.match(r"closed/|team-a/secret/", name)
    return not hidden and bool(re.fullmatch(r"(team-a|testuser|b)/.*|[^/]*/app|a|a-b", name))


def pusher_may_pull(name: str) -> bool:
    """What they say to ``testuserpush``."""
    return not name.startswith("closed/")


def awkward_names() -> set[str]:
    """Names of several depths whose order is a matter of opinion."""
    tops = ["a", "a-b", "a.b", "a_b", "a0", "b", "b-c", "closed", "team", "team-a", "team-b"]
    tops += ["team.c", "team0", "testuser", "z", "0z", "7"]
    subs = [
        "0",
        "1",
        "00",
        "2024",
        "9x",
        "a",
        "app",
        "app-2",
        "app.x",
        "app_y",
        "b",
        "lib",
        "secret",
    ]
    choose = random.Random(4)
    names = set(AWKWARD)
    while len(names) < NUMBER:
        below = choose.choices(subs, k=choose.randrange(4))
        names.add("/".join([choose.choice(tops), *below]))
    return names


def seed(registry_folder: Path, names: Iterable[str]) -> None:
    """Make repositories as the registry's filesystem driver lays them out."""
    root = registry_folder / "data" / "docker" / "registry" / "v2" / "repositories"
    for name in names:
        (root / name / "_layers" / "sha256").mkdir(parents=True)
        (root / name / "_manifests" / "tags").mkdir(parents=True)


@dataclass(frozen=True)
class Page:
    """One page of a catalog; ``link`` is the target of the next one."""

    names: list[str]
    link: str | None
    octets: bytes


class Catalog:
    """Somebody's way to ``/v2/_catalog``, over one kept connection."""

    def __init__(self, connection: HTTPConnection, credentials: str = "") -> None:
        self._connection = connection
        self._fields = {}
        if credentials:
            self._fields["Authorization"] = "Basic " + b64encode(credentials.encode()).decode()

    def page(self, target: str) -> Page:
        """What is at a target."""
        self._connection.request("GET", target, headers=self._fields)
        response = self._connection.getresponse()
        octets = response.read()
        assert response.status == 200, octets
        link = response.getheader("Link")
        if link is not None:
            found = re.fullmatch(r'<(/v2/_catalog\?last=[^&>]+&n=\d+)>; rel="next"', link)
            assert found, link
            link = found[1]
        heading = "".join(f"{key}: {value}\n" for key, value in response.getheaders())
        return Page(json.loads(octets)["repositories"], link, heading.encode() + octets)

    def pages(self, size: int) -> Iterator[Page]:
        """All pages of one size, by the links."""
        target: str | None = f"/v2/_catalog?n={size}"
        for _ in range(NUMBER + 2):
            if target is None:
                return
            page = self.page(target)
            yield page
            target = page.link
        raise AssertionError("the links never end")

    def everything(self) -> list[str]:
        """All names, without trust in links: the registry forgets some."""
        names: list[str] = []
        cursor = ""
        while page := self.page(f"/v2/_catalog?n=1000&last={quote(cursor, safe='')}").names:
            names += page
            cursor = page[-1]
        return names


@pytest.fixture(scope="module")
def names() -> set[str]:
    """What is in the registry."""
    return awkward_names()


@pytest.fixture(scope="module")
def full_registry(names: set[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The real registry with all these repositories."""
    folder = tmp_path_factory.mktemp("full-registry")
    registry = Registry(folder)
    seed(folder, names)
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def full_guard(
    ground: Ground, full_registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """A guard with the rules in front of it."""
    folder = tmp_path_factory.mktemp("catalog-guard")
    config = folder / "rules.toml"
    config.write_text(RULES)
    guard = Guard(ground, folder, full_registry.url, "--config", str(config))
    yield guard
    guard.stop()


@pytest.fixture
def direct(full_registry: Registry) -> Iterator[Catalog]:
    """The registry's own catalog."""
    with closing(HTTPConnection("127.0.0.1", full_registry.port, timeout=PATIENCE)) as connection:
        yield Catalog(connection)


@pytest.fixture
def guarded(full_guard: Guard) -> Iterator[HTTPConnection]:
    """A connection to the guard."""
    context = ssl.create_default_context(cafile=full_guard.ground.ca)
    connection = HTTPSConnection("localhost", full_guard.port, timeout=PATIENCE, context=context)
    with closing(connection):
        yield connection


def test_the_registry_lists_as_the_model_of_the_unit_tests(
    direct: Catalog, names: set[str]
) -> None:
    """With all its faults: every page, from any cursor, in any size."""
    model = Distribution(names)
    choose = random.Random(5)
    cursors = ["", *AWKWARD, *choose.sample(model.names, 80), "a/", "m", "team-a/~", "zz"]
    for cursor in cursors:
        size = choose.choice([1, 2, 7, 100, 1000])
        page = direct.page(f"/v2/_catalog?n={size}&last={quote(cursor, safe='')}")
        expected, more = model(size, cursor)

        assert page.names == expected, (size, cursor)
        assert (page.link is not None) is more, (size, cursor)


def test_the_registry_by_itself_loses_and_repeats_names(direct: Catalog, names: set[str]) -> None:
    """What 2.8.2 does; should it end, our order need no longer be our own."""
    by_links = [name for page in direct.pages(1000) for name in page.names]
    by_names = direct.everything()

    assert len(by_links) < NUMBER
    assert len(set(by_names)) < len(by_names)
    assert set(by_names) <= names


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_d13_every_allowed_name_is_told_once_and_no_other(
    guarded: HTTPConnection, ground: Ground, direct: Catalog, names: set[str], size: int
) -> None:
    """Also those that the registry loses or repeats with pages of this size.

    The order is the registry's own, but for names that it lists behind those below them.
    """
    allowed = {name for name in names if reader_may_pull(name)}
    hidden = {name for name in names - allowed if "/" in name}
    told = []
    for page in Catalog(guarded, ground.as_reader).pages(size):
        told += page.names
        words = re.findall(r"[a-z0-9._/-]+", page.octets.decode().replace("%2F", "/"))
        assert hidden.isdisjoint(words)
        assert len(page.names) == size or page.link is None

    assert 300 < len(allowed) < 500
    assert told == sorted(allowed, key=by_segment)
    listed = direct.everything()
    straight = {name for name in allowed if not re.search("/[0-9]", name)}
    straight -= {re.sub("/[0-9].*", "", name) for name in names if re.search("/[0-9]", name)}
    assert len(straight) > 100
    assert [name for name in told if name in straight] == [
        name for name in listed if name in straight
    ]


@pytest.mark.parametrize("size", [100, 1000])
def test_d13_most_of_the_catalog_is_told_as_well(
    guarded: HTTPConnection, ground: Ground, names: set[str], size: int
) -> None:
    """To a user from whom little is hidden."""
    told = [name for page in Catalog(guarded, ground.as_pusher).pages(size) for name in page.names]

    assert told == sorted(filter(pusher_may_pull, names), key=by_segment)
    assert 2000 < len(told) < NUMBER

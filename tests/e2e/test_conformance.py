"""B10: what a registry answers directly, it answers through regguard.

The whole API is asked in two places: of a registry, and through regguard of its twin. Where
regguard answers otherwise on purpose, a table here says why.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from socket import create_connection
from typing import Any, NoReturn

import pytest

from tests.e2e.api_surface import CHAPTERS, LAYER, MANIFEST, ODD_ACCEPTS, SCHEMA_2, SKOPEO_ACCEPTS
from tests.e2e.exchanges import Answer, Ask, Script, ScriptedRegistry, Side, differences
from tests.e2e.odd_answers import ODD_ANSWERS
from tests.e2e.programs import Ground, Guard, Registry, StartGuard
from tests.e2e.traced_registry import digest_of


@dataclass(frozen=True)
class Twins:
    """One place asked directly, and its twin behind a guard."""

    direct: Side
    through: Side

    def __enter__(self) -> Twins:
        return self

    def __exit__(self, *_: object) -> None:
        # Also when nothing was answered: a guard that ends waits for its clients.
        self.direct.leave()
        self.through.leave()

    def compare(self, ask: Ask, direct: Answer, through: Answer) -> list[str]:
        """What is wrong with a pair of answers, each with the request before it."""
        found = differences(direct, through, self.direct, self.through)
        if direct.status != ask.status:
            found.append(f"the registry answers {direct.status} instead of {ask.status}")
        return [f"{ask}\n    {difference}" for difference in found]


def through(guard: Guard, repository: str) -> Side:
    """The side of somebody who may do everything behind a guard."""
    token = b64encode(guard.ground.as_pusher.encode()).decode()
    return Side(guard.connection, f"Authorization: Basic {token}", variables={"n": repository})


@pytest.fixture
def twins(ground: Ground, tmp_path: Path) -> Iterator[Twins]:
    """Two registries that are alike, and a guard before one of them."""
    one, other = Registry(tmp_path / "direct"), Registry(tmp_path / "behind")
    one.start()
    other.start()
    guard = Guard(ground, tmp_path / "guard", other.url)
    repository = "conformance/image"
    direct = Side(partial(create_connection, ("127.0.0.1", one.port)), variables={"n": repository})
    with Twins(direct, through(guard, repository)) as twins:
        yield twins
    guard.stop()
    one.stop()
    other.stop()


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept", "one-each"])
def test_b10_the_whole_api_answers_alike(twins: Twins, keep_alive: bool) -> None:
    """Status, reason, fields in order, body and framing are the registry's own."""
    wrong = []
    counts: Counter[str] = Counter()
    for chapter, asks in CHAPTERS.items():
        for ask in asks:
            answers = [
                side.ask(ask, keep_alive=keep_alive) for side in (twins.direct, twins.through)
            ]
            counts[chapter] += 1
            wrong += twins.compare(ask, *answers)

    connections = f"{twins.direct.connections} connections directly, {twins.through.connections}"
    print(f"\n{counts.total()} exchanges {dict(counts)}; {connections} through")  # noqa: T201
    assert not wrong, "\n".join([f"{len(wrong)} differences", *wrong])


def test_b10_a_pipeline_answers_alike_and_in_order(twins: Twins) -> None:
    """Hundreds of requests in one go are answered as they are one by one."""
    for chapter in ("push", "manifests", "mounts"):
        for ask in CHAPTERS[chapter]:
            twins.direct.ask(ask)
            twins.through.ask(ask)
    asks = [ask for chapter in ("login", "pull", "lists") for ask in CHAPTERS[chapter]]
    pairs = zip(twins.direct.ask_all(asks), twins.through.ask_all(asks), strict=True)
    wrong = [
        line for ask, pair in zip(asks, pairs, strict=True) for line in twins.compare(ask, *pair)
    ]

    assert not wrong, "\n".join([f"{len(wrong)} differences", *wrong])


@dataclass(frozen=True)
class Otherwise:
    """Requests that regguard answers itself, or makes another one of.

    ``status`` is regguard's, and ``code`` its error's; empty where it is none.
    """

    reason: str
    status: int
    code: str
    asks: tuple[Ask, ...]


_SPELLING = "one spelling for one thing: else regguard decides on one and the registry does another"
_LAYER = digest_of(LAYER)
_FORM = ("Content-Type: application/x-www-form-urlencoded",)

OTHERWISE = [
    Otherwise("the same place, spared the redirect", 200, "", (Ask("GET", "/v2", 301),)),
    Otherwise("a line for balancers and browsers", 200, "", (Ask("GET", "/", 200),)),
    Otherwise(
        _SPELLING,
        400,
        "NAME_INVALID",
        (
            Ask("GET", "/v2//image/tags/list", 301),
            Ask("GET", "/v2/{n}/../other/tags/list", 301),
            Ask("GET", "/v2/conformance%2Fimage/tags/list", 200),
            Ask("GET", "/%76%32/{n}/tags/list", 200),
            Ask("GET", "http://localhost/v2/", 200),
            Ask("GET", "/v2/{n}/manifests/v1?a=%zz", 400),
            Ask("GET", "/v2/?a=|", 200),
            Ask("POST", f"/v2/{{n}}/other/blobs/uploads/?mount={_LAYER}&from={{n}}&from=a", 201),
            Ask("POST", f"/v2/{{n}}/other/blobs/uploads/?moun%74={_LAYER}&from={{n}}", 201),
            Ask("POST", f"/v2/{{n}}/other/blobs/uploads/?mount={_LAYER}&from={{n}};a=b", 202),
        ),
    ),
    Otherwise(
        "no repository can have that name; the registry has no words for it",
        400,
        "NAME_INVALID",
        (
            Ask("GET", "/v2/NO/tags/list", 404),
            Ask("GET", "/v2/host:5000/image/tags/list", 500),
            Ask("GET", f"/v2/{'a' * 256}/tags/list", 500),
        ),
    ),
    Otherwise(
        "no endpoint, so nothing that anybody could have a right to",
        404,
        "UNSUPPORTED",
        (
            Ask("GET", "/v2/_nothing", 404),
            Ask("GET", "/v2/{n}/tags/list/", 301),
            Ask("GET", "/v2/{n}/manifests/.INVALID_MANIFEST_NAME", 404),
            Ask("GET", f"/v2/{{n}}/manifests/{'t' * 129}", 404),
        ),
    ),
    Otherwise(
        "a digest that is none",
        400,
        "DIGEST_INVALID",
        (
            Ask("GET", "/v2/{n}/blobs/sha256:short", 400),
            Ask("GET", "/v2/{n}/blobs/sha256:", 404),
            Ask("GET", f"/v2/{{n}}/manifests/sha256:{'0' * 31}", 500),
        ),
    ),
    Otherwise(
        "the registry's other pages are its operator's",
        404,
        "NAME_UNKNOWN",
        (Ask("GET", "/metrics", 404), Ask("GET", "/debug/vars", 404), Ask("GET", "/v1/_ping", 404)),
    ),
    Otherwise(
        "a method that is no action is nobody's right (D16); 2.8.2 takes some for reading",
        405,
        "UNSUPPORTED",
        (
            Ask("OPTIONS", "/v2/", 200),
            Ask("OPTIONS", "/v2/{n}/manifests/v1", 200),
            Ask("OPTIONS", "*", 200),
            Ask("TRACE", "/v2/", 200),
            Ask("POST", "/v2/", 200),
            Ask("POST", "/v2/{n}/manifests/v1", 405),
            Ask("PATCH", "/v2/{n}/manifests/v1", 405),
            Ask("PROPFIND", "/v2/{n}/manifests/v1", 405),
            Ask("PUT", f"/v2/{{n}}/blobs/{_LAYER}", 405),
            Ask("POST", "/v2/{n}/tags/list", 405),
            Ask("DELETE", "/v2/_catalog", 405),
            Ask("GET", "/v2/{n}/blobs/uploads/", 404),
            Ask("PUT", f"/v2/{{n}}/referrers/{_LAYER}", 404),
        ),
    ),
    Otherwise(
        "a page's size is bounded, and read in one way (CVE-2023-2253)",
        400,
        "PAGINATION_NUMBER_INVALID",
        (
            Ask("GET", "/v2/_catalog?n=1001", 400),
            Ask("GET", "/v2/_catalog?n=-1", 200),
            Ask("GET", "/v2/_catalog?n=nonsense", 200),
        ),
    ),
    Otherwise(
        "a page's start is a name, said once",
        400,
        "NAME_INVALID",
        (Ask("GET", "/v2/_catalog?n=1&n=2", 200), Ask("GET", "/v2/_catalog?last=%00", 200)),
    ),
    Otherwise(
        "a tag that is spelled with an encoding is there to be read in two ways",
        400,
        "TAG_INVALID",
        (
            Ask(
                "PUT", "/v2/{n}/manifests/v1?tag=%61", 201, (f"Content-Type: {SCHEMA_2}",), MANIFEST
            ),
        ),
    ),
    Otherwise(
        "an upload is octets, so that no form can name a mount (D02 to D04)",
        202,
        "",
        (
            Ask(
                "POST",
                "/v2/{n}/other/blobs/uploads/",
                201,
                _FORM,
                f"mount={_LAYER}&from=conformance/image".encode(),
            ),
            Ask("PATCH", "{upload}", 500, ("Content-Type: text/plain",), b"text"),
        ),
    ),
    Otherwise(
        "heads are bounded, so that they cost no memory",
        431,
        "UNKNOWN",
        (
            Ask("GET", "/v2/", 200, tuple(f"X-Field-{number}: 1" for number in range(101))),
            Ask("GET", "/v2/", 200, (f"X-Long: {'l' * 33_000}",)),
        ),
    ),
    Otherwise("the same", 414, "UNKNOWN", (Ask("GET", f"/v2/?a={'l' * 17_000}", 200),)),
    Otherwise(
        "the nginx recipe's rule",
        404,
        "UNSUPPORTED",
        (Ask("GET", "/v2/", 200, ("User-Agent: docker/1.3",)),),
    ),
    Otherwise(
        "what is malformed is refused in the registry's JSON, too",
        400,
        "UNKNOWN",
        (
            Ask("GET", "/v2/", 400, ("Host: other",)),
            Ask("GET", "/v2/", 400, ("X Y: 1",)),
            Ask("GET", "/v2/", 400, ("X: a\0b",)),
            Ask("GET", "/v2/", 200, ("X: a", " folded")),
            Ask("FOO", "/v2/", 200),
        ),
    ),
    Otherwise(
        "the same",
        417,
        "UNSUPPORTED",
        (Ask("GET", "/v2/", 417, ("Expect: nonsense",)),),
    ),
    Otherwise(
        "the same",
        501,
        "UNSUPPORTED",
        (Ask("GET", "/v2/", 501, ("Transfer-Encoding: gzip, chunked",)),),
    ),
]
"""Where regguard does not answer as the registry does, on purpose, and why."""


def test_b10_what_is_otherwise_on_purpose(twins: Twins) -> None:
    """Each of these differs from the registry as the table says, and in the registry's own form."""
    for chapter in ("push", "manifests"):
        for ask in CHAPTERS[chapter]:
            twins.direct.ask(ask)
            twins.through.ask(ask)
    start = Ask("POST", "/v2/{n}/blobs/uploads/", 202, keep="upload")
    twins.direct.ask(start)
    twins.through.ask(start)
    wrong = []
    for row in OTHERWISE:
        for ask in row.asks:
            direct, through = twins.direct.ask(ask), twins.through.ask(ask)
            seen = (direct.status, through.status, through.code)
            if seen != (ask.status, row.status, row.code):
                wrong.append(f"{ask}: {seen}")

    assert not wrong, "\n".join(wrong)


def test_b10_answers_of_other_registries_pass(start_guard: StartGuard) -> None:
    """Whatever else a registry may say goes through as it is, or as the table says."""
    scripts = dict(pair for odd in ODD_ANSWERS for pair in odd.scripts())
    wrong = []
    with ScriptedRegistry(scripts) as registry:
        guard = start_guard(registry.url)
        with Twins(Side(registry.connect, variables={}), through(guard, "odd")) as twins:
            for odd in ODD_ANSWERS:
                answers = twins.direct.ask(odd.direct), twins.through.ask(odd.ask)
                wrong += [f"{odd.name}: {line}" for line in twins.compare(odd.direct, *answers)]

    changed = sum(odd.as_if is not None for odd in ODD_ANSWERS)
    print(f"\n{len(ODD_ANSWERS)} answers, {changed} of them changed on purpose")  # noqa: T201
    assert not wrong, "\n".join([f"{len(wrong)} differences", *wrong])


REQUESTS = (
    Ask("GET", "/v2/odd/manifests/v1?case=any", 200, SKOPEO_ACCEPTS),
    Ask("HEAD", "/v2/odd/manifests/v1?ns=docker.io&case=any", 200, ODD_ACCEPTS),
    Ask(
        "GET",
        "/v2/odd/manifests/v1?case=any",
        200,
        (
            *("User-Agent: skopeo/1.9", "Docker-Distribution-Api-Version: registry/2.0"),
            *("Accept-Encoding: gzip, zstd", "Range: bytes=0-9,20-", 'If-Range: "a"'),
            *('If-None-Match: "a", W/"b"', "Cache-Control: no-cache", "X-Meta-Source-Client: a"),
            *("traceparent: 00-abc-def-01", "Accept-Language:", "X-Blank: \t a  b \t"),
        ),
    ),
    Ask("PUT", "/v2/odd/manifests/v1?case=any", 200, (f"Content-Type: {SCHEMA_2}",), MANIFEST),
    Ask("DELETE", "/v2/odd/manifests/v1?case=any", 200),
)

# What regguard says of whom it has let in. The connection's fields are its own on either side.
ADDED = (
    "X-Real-IP: 127.0.0.1",
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: localhost",
    "X-Forwarded-User: testuserpush",
)


@pytest.mark.parametrize("ask", REQUESTS, ids=str)
def test_b10_the_registry_hears_what_the_client_said(start_guard: StartGuard, ask: Ask) -> None:
    """Every field in its own spelling and order, six and twenty lines of Accept, too."""
    okay = Script((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",))
    with ScriptedRegistry({"any": okay}) as registry:
        guard = start_guard(registry.url)
        with Twins(Side(registry.connect, variables={}), through(guard, "odd")) as twins:
            twins.direct.ask(ask)
            twins.through.ask(ask)
    direct, behind = (head.decode().splitlines() for head in registry.heads)
    said = [f"{line.partition(':')[0]}: {line.partition(':')[2].strip()}" for line in direct[1:]]

    assert behind[0] == direct[0]
    assert tuple(behind[-len(ADDED) :]) == ADDED
    assert behind[1 : -len(ADDED)] == said


SAID = Answer(
    200,
    "OK",
    (
        ("Date", "Sun, 22 Nov 2026 03:04:05 GMT"),
        ("Docker-Distribution-Api-Version", "registry/2.0"),
        ("ETag", '"a"'),
        ("Content-Length", "2"),
    ),
    b"{}",
    "length",
    False,
    (),
)


def _with(name: str, value: str | None) -> tuple[tuple[str, str], ...]:
    rest = tuple(pair for pair in SAID.fields if pair[0] != name)
    return rest if value is None else (*rest, (name, value))


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ({"status": 201}, "status"),
        ({"reason": "Ok"}, "reason"),
        ({"interim": (100,)}, "interim"),
        ({"body": b"[]"}, "body"),
        ({"framing": "chunked"}, "framing"),
        ({"framing": "cut"}, "framing"),
        ({"closes": True}, "the connection's end"),
        ({"trailers": ("X-Sum: 1",)}, "trailers"),
        ({"fields": _with("ETag", None)}, "fields"),
        ({"fields": _with("ETag", '"b"')}, "fields"),
        ({"fields": (*SAID.fields, ("ETag", '"a"'))}, "fields"),
        ({"fields": (*_with("ETag", None), ("Etag", '"a"'))}, "fields"),
        ({"fields": _with("Content-Length", None)}, "Content-Length"),
        ({"fields": _with("Content-Length", "02")}, "Content-Length"),
        ({"fields": _with("Date", None)}, "Date"),
        ({"fields": (*SAID.fields, SAID.fields[0])}, "Date"),
        ({"fields": (*SAID.fields, SAID.fields[1])}, "Docker-Distribution-Api-Version"),
    ],
)
def test_a_difference_is_found(change: dict[str, Any], subject: str) -> None:
    """The comparison sees each single thing in which two answers can differ."""
    one, other = (Side(_nowhere, variables={}) for _ in range(2))

    assert differences(SAID, SAID, one, other) == []
    (found,) = differences(SAID, replace(SAID, **change), one, other)
    assert found.startswith(f"{subject}: ")


def _nowhere() -> NoReturn:
    raise AssertionError("nobody is asked")

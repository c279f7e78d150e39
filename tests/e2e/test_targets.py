"""C12: whatever the target, regguard decides about the repository that the registry acts on.

Everything goes to a registry directly, and through regguard to another one: as a user without any
right, whose refusals name what regguard decided about, and as users with some and with all rights.

``REGGUARD_TARGETS`` sets another number of targets, ``REGGUARD_TARGETS_SEED`` another seed;
``pytest -rP`` shows the counts by class.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import bcrypt

from regguard.access import Refusal, parse_access
from tests.e2e.conftest import BCRYPT_COST
from tests.e2e.programs import FAULTS, Program, accepts, free_port, twist
from tests.e2e.targets import KINDS, Generated, generate
from tests.e2e.traced_registry import (
    CATALOG,
    HELD,
    MANIFEST_TYPE,
    PUSHED,
    TAG,
    Deed,
    TracedRegistry,
    connect,
    filled_registry,
)

NUMBER = int(os.environ.get("REGGUARD_TARGETS", "100000"))
SEED = int(os.environ.get("REGGUARD_TARGETS_SEED", "20261122"))

# Two for each of a small machine's cores: while one waits for an answer, another is served.
CONNECTIONS = 4

# regguard's answers without a look at the target. 500 is the registry's, to odd digests.
NO_DECISION = (401, 429, 502, 503, 504)


@dataclass(frozen=True)
class Decision:
    """What regguard decided about: one repository, or the source of a mount, too."""

    action: str
    repository: str
    mount_source: str | None = None

    @property
    def named(self) -> frozenset[str]:
        return frozenset(name for name in (self.repository, self.mount_source) if name)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    is_last: bool


_BODIES = {b"PUT": (MANIFEST_TYPE, PUSHED), b"PATCH": ("application/octet-stream", b"xyz")}


def request(method: bytes, target: bytes, user: str, number: int = 0) -> bytes:
    """The bytes of one request of a user, whose password is the name; PUT carries a manifest."""
    kind, body = _BODIES.get(method, ("", b""))
    head = [
        "Host: localhost",
        f"User-Agent: {user}-{number}",
        "Authorization: Basic " + base64.b64encode(f"{user}:{user}".encode()).decode(),
    ]
    if method in (b"PUT", b"PATCH", b"POST"):
        head.append(f"Content-Length: {len(body)}")
    if kind:
        head.append(f"Content-Type: {kind}")
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n%b" % (method, target, "\r\n".join(head).encode(), body)


def ask(port: int, requests: list[bytes]) -> list[Answer]:
    """Send each request as it stands; return the answers in the same order."""
    answers: dict[int, Answer] = {}

    def ask_some(first: int) -> None:
        todo = iter(range(first, len(requests), CONNECTIONS))
        at = next(todo, None)
        while at is not None:
            with connect(port) as connection, connection.makefile("rb") as stream:
                while at is not None:
                    connection.sendall(requests[at])
                    answer = answers[at] = read_answer(stream, requests[at])
                    at = next(todo, None)
                    if answer.is_last:
                        break

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(ask_some, range(CONNECTIONS)))
    return [answers[at] for at in range(len(requests))]


def read_answer(stream: BinaryIO, asked: bytes) -> Answer:
    """Read one answer."""
    line = stream.readline()
    assert line.startswith(b"HTTP/1.1 "), f"{line!r} answers {asked!r}"
    status = int(line[9:12])
    fields = {}
    while line := stream.readline().rstrip():
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip().lower()
    is_last = fields.get(b"connection") == b"close"
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b"".join(_chunks(stream)) if not asked.startswith(b"HEAD ") else b""
    elif b"content-length" not in fields and is_last:
        body = stream.read()
    elif asked.startswith(b"HEAD ") or status in (204, 304):
        body = b""
    else:
        body = stream.read(int(fields[b"content-length"]))
    return Answer(status, body, is_last)


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := int(stream.readline(), 16):
        yield stream.read(size)
        stream.readline()
    stream.readline()


def test_c12_the_oracle_shows_the_repository(tmp_path: Path) -> None:
    """Reading, writing, deleting and mounting show in the log; what is only refused does not."""
    mine, other = HELD[0], HELD[2]
    name, source = mine.repository, other.repository
    nothing: set[str] = set()
    known = [
        (b"GET", f"/manifests/{TAG}", {name}, {name}, False),
        (b"HEAD", f"/manifests/{mine.manifest}", {name}, {name}, False),
        (b"PUT", "/manifests/new", {name}, {name}, True),
        (b"GET", f"/blobs/{mine.blob}", {name}, {name}, False),
        (b"GET", f"/blobs/sha256:{'0' * 64}", {name}, {name}, False),
        (b"GET", "/tags/list", {name}, {name}, False),
        (b"POST", "/blobs/uploads/", {name}, {name}, True),
        (b"GET", f"/blobs/uploads/{mine.upload_id}?_state={mine.state}", {name}, {name}, False),
        (b"GET", f"/blobs/uploads/{mine.upload_id}?_state={other.state}", {name}, nothing, False),
        (
            b"POST",
            f"/blobs/uploads/?from={source}&mount={other.blob}",
            {name},
            {name, source},
            True,
        ),
        (b"DELETE", f"/manifests/{mine.manifest}", {name}, {name}, True),
        (b"DELETE", f"/blobs/{mine.blob}", {name}, {name}, True),
        (b"GET", "/blobs/sha256:short", {name}, nothing, False),
        (b"GET", "//tags/list", nothing, nothing, False),
        (b"GET", "/../../_catalog", nothing, nothing, False),
        (b"GET", "/%2e%2e/%2E./_catalog", nothing, nothing, False),
    ]
    with filled_registry(tmp_path) as registry:
        ask(
            registry.port,
            [
                request(method, f"/v2/{name}{rest}".encode(), "known", number)
                for number, (method, rest, *_) in enumerate(known)
            ]
            + [request(b"GET", b"/v2/_catalog", "catalog"), request(b"GET", b"/v2/", "login")],
        )
    deeds = registry.deeds()

    for number, (method, rest, *expected) in enumerate(known):
        deed = deeds.get(f"known-{number}", Deed())
        assert [deed.routed, deed.touched, deed.wrote] == expected, (method, rest)
    assert deeds["catalog-0"].touched == {CATALOG}
    assert "login-0" not in deeds


@contextlib.contextmanager
def guard_with_users(folder: Path, upstream: str) -> Iterator[int]:
    """The port of a guard that knows a stranger, a writer who may push, and an owner.

    Without TLS: every tenth target ends its connection, and the handshakes would take half of the
    time.
    """
    folder.mkdir()
    htpasswd = folder / "users"
    htpasswd.write_text(
        "".join(
            f"{name}:{bcrypt.hashpw(name.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()}\n"
            for name in ("stranger", "writer", "owner")
        )
    )
    htpasswd.chmod(0o600)
    port = free_port()
    words = (
        *("--listen", f"tcp:{port}:interface=127.0.0.1", "--no-tls", "--upstream", upstream),
        *("--auth", f"htpasswd:{htpasswd}", "--access-log", str(folder / "access.log")),
        *("--pull", "user:owner", "--push", "user:owner, user:writer"),
        *("--delete", "user:owner", "--catalog", "user:owner"),
    )
    program = Program(twist(*words), folder / "guard.log", folder)
    program.wait_until("the guard to listen", lambda: accepts(port))
    try:
        yield port
    finally:
        program.stop()
    assert not FAULTS.search(program.output()), program.output()


_denied = re.compile(r"may (?:.* )?not (?:(pull|push|delete) ([^ :]+)|list the catalog):").search


def decision_on(case: Generated, answer: Answer) -> Decision | None:
    """What regguard tells somebody without any right; None where it is no access for anybody."""
    if answer.status in (400, 404, 405, 414):
        return None
    if answer.status == 200:
        return Decision("login", "")
    assert answer.status == 403, f"{answer} for {case}"
    denied = _denied(json.loads(answer.body)["errors"][0]["message"])
    assert denied, f"{answer} for {case}"
    action, repository = denied.groups()
    if action is None:
        return Decision("catalog", CATALOG)
    return Decision(action, repository, _mount_source(case))


def _mount_source(case: Generated) -> str | None:
    # The message names the repository alone, so for this one we ask the parser itself.
    try:
        return parse_access(case.method, case.target).mount_source
    except Refusal:
        return None


@dataclass
class Outcome:
    """One request: the registry's deed, regguard's decision, and deeds behind regguard."""

    case: Generated
    deed: Deed
    decision: Decision | None
    behind_owner: Deed
    behind_writer: Deed
    behind_stranger: Deed

    def differs(self) -> str:
        """What is wrong; empty where regguard decided about what the registry would act on."""
        named = self.decision.named if self.decision else frozenset()
        mine = {self.decision.repository} if self.decision else set()
        if self.behind_stranger.paths:
            return "acted for a user without rights"
        if not self.behind_owner.touched <= named or not self.behind_owner.routed <= mine:
            return "acted behind regguard on what it had not named"
        if not self.behind_writer.touched <= mine:
            return "acted for a user without pull on what it would have to pull"
        if self.decision is None:
            return ""
        if not self.deed.routed <= mine:
            return "the registry names another repository"
        if self.deed.wrote and self.decision.action not in ("push", "delete"):
            return "the registry writes what regguard takes for reading"
        # A mount that regguard strips for everybody is none behind it.
        is_stripped = self.case.method == b"POST" and self.behind_owner.touched == mine
        if not self.deed.touched <= named and not is_stripped:
            return "the registry acts on what regguard did not name"
        return ""

    def __str__(self) -> str:
        behind = sorted(self.behind_owner.touched | self.behind_writer.touched)
        return (
            f"{self.case.method!r} {self.case.target!r}: {self.differs()}\n"
            f"  registry: named {sorted(self.deed.routed)}, acted on {sorted(self.deed.touched)}\n"
            f"  regguard: {self.decision}; behind it: acted on {behind}"
        )


def outcomes(
    cases: list[Generated], direct: TracedRegistry, behind: TracedRegistry, guard: int
) -> Iterator[Outcome]:
    """Send everything everywhere; end the registries."""
    numbered = list(enumerate(cases))
    # HEAD is decided on as GET is, but its refusal has no words.
    spoken = [
        (number, replace(case, method=b"GET") if case.method == b"HEAD" else case)
        for number, case in numbered
    ]
    # Nothing else can take from one repository for another.
    starts = [(number, case) for number, case in numbered if case.method == b"POST"]

    def told(port: int, agent: str, some: list[tuple[int, Generated]]) -> list[Answer]:
        return ask(port, [request(c.method, c.target, agent, number) for number, c in some])

    told(direct.port, "direct", numbered)
    direct.stop()
    refusals = told(guard, "stranger", spoken)
    granted = told(guard, "writer", starts) + told(guard, "owner", numbered)
    behind.stop()
    undecided = [answer for answer in granted if answer.status in NO_DECISION]
    assert not undecided, undecided[:20]

    deeds, behind_deeds = direct.deeds(), behind.deeds()
    none = Deed()
    for (number, case), refusal in zip(numbered, refusals, strict=True):
        yield Outcome(
            case,
            deeds.pop(f"direct-{number}", none),
            decision_on(case, refusal),
            behind_owner=behind_deeds.pop(f"owner-{number}", none),
            behind_writer=behind_deeds.pop(f"writer-{number}", none),
            behind_stranger=behind_deeds.pop(f"stranger-{number}", none),
        )
    assert not deeds
    # Pages of the catalog may be fetched in regguard's own name.
    assert all(deed.touched <= {CATALOG} for deed in behind_deeds.values()), behind_deeds


COLUMNS = ("targets", "registry acted", "regguard refused", "decided the same", "differed")


def table(counts: dict[str, Counter[str]]) -> str:
    """The counts, a line for each kind and one for all."""
    rows = {**counts, "all": sum(counts.values(), Counter())}
    lines = [" | ".join((f"{'class':14}", *COLUMNS))]
    for kind, row in rows.items():
        cells = (f"{row[column]:{len(column)},}" for column in COLUMNS)
        lines.append(" | ".join((f"{kind:14}", *cells)))
    return "\n".join(lines)


def count(found: Iterable[Outcome]) -> tuple[dict[str, Counter[str]], list[Outcome]]:
    """The counts by kind, and where regguard and the registry differ."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    differing = []
    for outcome in found:
        row = counts[outcome.case.kind]
        row["targets"] += 1
        acted = bool(outcome.deed.touched)
        row["registry acted"] += acted
        row["took from another"] += len(outcome.deed.touched) > 1
        if outcome.differs():
            row["differed"] += 1
            differing.append(outcome)
        elif acted:
            row["decided the same" if outcome.decision else "regguard refused"] += 1
    return counts, differing


def test_c12_regguard_decides_about_what_the_registry_acts_on(tmp_path: Path) -> None:
    """Whenever the registry acts on a repository, regguard refused or decided about exactly it."""
    cases = list(generate(SEED, NUMBER))
    with (
        filled_registry(tmp_path / "direct") as direct,
        filled_registry(tmp_path / "behind") as behind,
        guard_with_users(tmp_path / "guard", behind.url) as guard,
    ):
        counts, differing = count(outcomes(cases, direct, behind, guard))

    print(f"\n{len(cases):,} targets of seed {SEED}\n{table(counts)}")  # noqa: T201
    assert len(differing) == 0, "\n".join(map(str, differing[:20]))
    # Where the registry does nothing, nothing is shown.
    assert counts["good"]["decided the same"] > counts["good"]["targets"] / 2
    assert counts["encoded"]["regguard refused"] > counts["encoded"]["targets"] / 4
    assert counts["mounts"]["took from another"] > counts["mounts"]["targets"] / 2

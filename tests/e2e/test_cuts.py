"""Honesty: ten thousand pushes and pulls are cut, and no truncated one looks whole to anybody.

Three places are cut: the client itself goes, the line between client and guard breaks (among the
octets of TLS), and the line between guard and registry breaks.  Half of it happens before the
real registry, half before a scripted one, which also answers in chunks, or by closing.

``REGGUARD_CUTS`` sets another number of cuts, ``REGGUARD_CUTS_SEED`` another seed; ``pytest -rP``
shows the counts by place, flow and kind.  A FIN at the end of a plain, close-delimited answer of
the registry is not among the cuts: nobody could tell it from the end (RFC 9112 section 8).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import random
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import pytest

from tests.e2e.faults import Armed, Cut, FaultProxy, Faults, Passage, Peer, Scripted, Way
from tests.e2e.programs import Ground, Guard, Registry
from tests.e2e.wire import (
    Broken,
    Client,
    Hung,
    Message,
    Octets,
    read_request,
    read_response,
)

NUMBER = int(os.environ.get("REGGUARD_CUTS", "1000"))
SEED = int(os.environ.get("REGGUARD_CUTS_SEED", "20261123"))

# Guards, each with a client, proxies and an upstream: enough that one works while another waits.
LANES = 4

AT_ONCE = 1.0
"""Seconds in which the other side has to be told."""

# Around the borders of TLS records, of reads and of socket buffers.
SIZES = (
    *(0, 1, 2, 1_000, 4_095, 4_096, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537),
    *(131_071, 131_072, 131_073, 262_143, 262_144, 262_145, 400_000, 1_048_577, 3_000_001),
)

# Receive buffers of clients: with more, the kernel takes the answer from the guard whole.
WINDOW = 64 * 1024

# Octets of a handshake, roughly: cuts of the line may fall into it.
HANDSHAKE = {"up": 700, "down": 1_500}


@dataclass(frozen=True)
class Blob:
    digest: str
    octets: bytes


@dataclass(frozen=True)
class Case:
    """One transfer, and where it is cut.

    ``at`` counts octets in direction ``way``: plain ones at the client, those of TLS on the line,
    plain ones again on the way to the registry.  ``hesitates``: seconds from there until a client
    goes.  ``takes``: about as many seconds does the upstream's line need for the blob.
    """

    place: str
    flow: str
    kind: str
    way: str
    at: int
    framing: str
    kept: bool
    minor: int
    hesitates: float
    takes: float
    blob: Blob


@dataclass
class Outcome:
    """What became of it.

    ``said``: "whole", "broken" or "wrong", as a client tells by framing and digest; a client that
    went itself says nothing.  ``other_side``: of a push or pull that was cut, how the side that
    was not cut was told: "told", "late", "ended" (as if all were well), or "whole" where its part
    was done by then.  ``after`` is in how many seconds.
    """

    case: Case
    is_cut: bool
    said: str
    other_side: str = "whole"
    after: float = 0.0
    detail: str = ""


class Lane:
    """One guard with proxies on both sides of it, before one upstream."""

    def __init__(self, ground: Ground, guard: Guard, front: FaultProxy, back: FaultProxy) -> None:
        self._pusher = ground.pusher
        self._trust = ssl.create_default_context(cafile=ground.ca)
        self._front = front
        self._back = back
        self.guard = guard

    def run(self, case: Case, target: str) -> Outcome:
        """Do one transfer and look at it from all sides."""
        front, back = self._front.arm(), self._back.arm()
        if case.place == "line":
            front = self._front.arm(_faults(case))
        client = None
        try:
            client = Client(self._front.port, self._trust, self._pusher, WINDOW)
            client.how = case.kind
            client.hesitates = case.hesitates
            request = self._request(client, case, target)
            if case.kept:
                asked = client.ask("GET", client.head("GET", "/v2/"))
                assert asked.status == 200
            if case.place == "client" and case.way == "up":
                client.leave_after_sent(case.at)
            elif case.place == "client":
                client.leave_after_received(case.at)
            back = self._back.arm(_faults(case, case.place == "registry", case.takes))
            said, detail = self._say(case, client.ask(request.split(b" ")[0].decode(), request))
        except Broken as broken:
            said, detail = "broken", str(broken)
        except Hung as hung:
            said, detail = "hung", str(hung)
        except OSError as error:
            said, detail = "broken", repr(error)
        ended = time.monotonic()
        if client is not None:
            client.close()
        if case.place == "registry":
            outcome = Outcome(case, back.cut_at > 0, said, detail=detail)
            if outcome.is_cut and said != "whole":
                outcome.after = ended - back.cut_at
                outcome.other_side = "told" if outcome.after <= AT_ONCE else "late"
        else:
            cut_at = front.cut_at if case.place == "line" else client.left_at if client else 0.0
            outcome = Outcome(case, cut_at > 0, said, detail=detail)
            if outcome.is_cut:
                self._look_behind(outcome, target, back, cut_at)
        if outcome.said == "broken" and not outcome.is_cut:
            outcome.said = "refused"
        self._check_pushes(outcome, back)
        return outcome

    def _request(self, client: Client, case: Case, target: str) -> bytes:
        close = [] if case.kept else ["Connection: close"]
        if case.flow == "pull":
            return client.head("GET", target, *close, minor=case.minor)
        octets = case.blob.octets
        if case.framing != "chunked":
            return client.head("PUT", target, *close, f"Content-Length: {len(octets)}") + octets
        step = max(1, len(octets) // 7)
        pieces = [octets[at : at + step] for at in range(0, len(octets), step)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return (
            client.head("PUT", target, *close, "Transfer-Encoding: chunked") + body + b"0\r\n\r\n"
        )

    def _say(self, case: Case, answer: Message) -> tuple[str, str]:
        if case.flow == "push":
            return ("whole" if answer.status == 201 else "broken"), answer.start
        if answer.status != 200:
            return "broken", answer.start
        return ("whole" if _digest(answer.body) == case.blob.digest else "wrong"), answer.start

    def _look_behind(self, outcome: Outcome, target: str, back: Armed, cut_at: float) -> None:
        """How the guard told the upstream that the client went."""
        # Others may still come from the transfer before this one.
        passages = [p for p in back.passages if target.encode() in p.up[:4_096]]
        deadline = cut_at + AT_ONCE
        while True:
            open_ones = [
                p for p in passages if "client" not in p.ends and not _is_whole(p, outcome)
            ]
            if not open_ones or time.monotonic() > deadline:
                break
            time.sleep(0.001)
        for passage in passages:
            how, when = passage.ends.get("client", ("", 0.0))
            if how == "RST":
                outcome.other_side, outcome.after = "told", max(0.0, when - cut_at)
            elif not _is_whole(passage, outcome):
                outcome.other_side = "ended" if how else "late"
                outcome.detail += f"; upstream: {how or 'nothing'}"

    def _check_pushes(self, outcome: Outcome, back: Armed) -> None:
        """Whatever looks like a whole push to the upstream has to be one.

        Also one that comes late, from a client that went before the guard had a connection.
        """
        for passage in back.passages:
            if passage.up.startswith(b"PUT "):
                with contextlib.suppress(Broken):
                    push = read_request(Octets(octets=passage.up))
                    if _digest(push.body) != push.target.partition("digest=")[2]:
                        outcome.said = "wrong"
                        outcome.detail += f"; {len(push.body)} octets upstream for {push.target}"


def _faults(case: Case, cuts: bool = True, takes: float = 0.0) -> Faults:
    rate = max(16_384, len(case.blob.octets)) / takes if takes else inf
    way = Way(piece=8_192, rate=rate) if takes else Way()
    cut = replace(way, cut_after=case.at, cut=Cut[case.kind]) if cuts else way
    return Faults(up=cut, down=way) if case.way == "up" else Faults(up=way, down=cut)


def _digest(octets: bytes) -> str:
    return "sha256:" + hashlib.sha256(octets).hexdigest()


def _is_whole(passage: Passage, outcome: Outcome) -> bool:
    """Whether all of request and answer has passed here."""
    try:
        request = read_request(Octets(octets=passage.up))
        answer = read_response(Octets(octets=passage.down), request.method)
    except Broken:
        # An answer without a length ends with the upstream's own FIN.
        return outcome.case.framing == "close" and passage.ends.get("target", ("",))[0] == "FIN"
    return len(answer.body) >= 0


class RealUpstream:
    """The real registry."""

    def __init__(self, registry: Registry) -> None:
        self.port = registry.port
        self._rng = random.Random(SEED)
        self.framings = {"pull": ("length",), "push": ("length", "chunked")}

    def _call(
        self, method: str, target: str, body: bytes | None = None
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target, body)
            answer = connection.getresponse()
            answer.body = answer.read()  # type: ignore[attr-defined]
            return answer
        finally:
            connection.close()

    def start_push(self) -> str:
        """The target of a new upload."""
        location = self._call("POST", "/v2/cuts/pushed/blobs/uploads/").headers["Location"]
        return "/" + location.split("/", 3)[3] if "://" in location else location

    def keep(self, blob: Blob) -> None:
        """Have this to be pulled."""
        target = self.push_target(blob)
        assert self._call("PUT", target, blob.octets).status == 201

    def push_target(self, blob: Blob) -> str:
        start = self.start_push()
        return f"{start}{'&' if '?' in start else '?'}digest={blob.digest}"

    def pull_target(self, blob: Blob, framing: str) -> str:
        return f"/v2/cuts/pushed/blobs/{blob.digest}"

    def has(self, blob: Blob) -> bool:
        """Whether a push has come whole."""
        answer = self._call("GET", self.pull_target(blob, ""))
        return answer.status == 200 and answer.body == blob.octets  # type: ignore[attr-defined]


class ScriptedUpstream:
    """A registry that frames its answers as the repository's name says."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._server = Scripted(self._serve)
        self.framings = {"pull": ("length", "chunked", "close"), "push": ("length", "chunked")}

    def __enter__(self) -> ScriptedUpstream:
        self._server.__enter__()
        return self

    def __exit__(self, *why: object) -> None:
        self._server.__exit__(None, None, None)

    @property
    def port(self) -> int:
        return self._server.port

    def keep(self, blob: Blob) -> None:
        self._blobs[blob.digest] = blob.octets

    def push_target(self, blob: Blob) -> str:
        return f"/v2/cuts/pushed/blobs/uploads/{uuid.uuid4()}?digest={blob.digest}"

    def pull_target(self, blob: Blob, framing: str) -> str:
        return f"/v2/cuts/{framing}/blobs/{blob.digest}"

    def has(self, blob: Blob) -> bool:
        return self._blobs.get(blob.digest) == blob.octets

    def _serve(self, peer: Peer) -> None:
        while True:
            request = peer.request()
            peer.seen.clear()
            if request.method == "PUT":
                digest = request.target.partition("digest=")[2]
                right = _digest(request.body) == digest
                if right:
                    self._blobs[digest] = request.body
                status = b"201 Created" if right else b"400 Bad Request"
                peer.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
                continue
            octets = self._blobs.get(request.target.rpartition("/")[2], b"{}")
            framing = request.target.split("/")[3] if "/blobs/" in request.target else "length"
            if framing == "length":
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(octets) + octets)
            elif framing == "chunked":
                peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for at in range(0, len(octets), 30_000):
                    piece = octets[at : at + 30_000]
                    peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                peer.send(b"0\r\n\r\n")
            else:
                peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + octets)
                peer.close()
                return


def draw(rng: random.Random, framings: dict[str, tuple[str, ...]], blobs: list[Blob]) -> Case:
    """A transfer and a cut anywhere; a quarter near the beginning, a quarter near the end."""
    place = rng.choice(("client", "line", "registry"))
    flow = rng.choice(("push", "pull"))
    framing = rng.choice(framings[flow])
    kinds = ["RST", "FIN", "close_notify"] if place == "client" else ["RST", "FIN"]
    if place == "registry" and framing == "close":
        kinds = ["RST"]
    size = rng.choice(SIZES)
    if flow == "pull":
        blob = next(blob for blob in blobs if len(blob.octets) == size)
    else:
        octets = (rng.randbytes(32) + blobs[-1].octets)[:size]
        blob = Blob(_digest(octets), octets)
    # Most in the direction of the transfer; else in requests, or in answers to pushes.
    along = "up" if flow == "push" else "down"
    way = along if rng.random() < 0.8 else {"up": "down", "down": "up"}[along]
    length = 250 + (size + 22 * (size // 16_384) if way == along else 0)
    if place == "line":
        length += HANDSHAKE[way]
    at = {
        0: lambda: rng.randrange(min(length, 400)),
        1: lambda: max(0, length - rng.randrange(400)),
    }.get(rng.randrange(4), lambda: rng.randrange(length))()
    return Case(
        place=place,
        flow=flow,
        kind=rng.choice(kinds),
        way=way,
        at=at,
        framing=framing,
        kept=rng.random() < 0.5,
        minor=rng.choice((0, 1)) if flow == "pull" else 1,
        # Else it is gone before the guard has a connection to the registry.
        hesitates=rng.choice((0.0, 0.02)),
        # Else the upstream's part is done before a small cut is felt.
        takes=rng.choice((0.0, 0.05)),
        blob=blob,
    )


def cut_often(
    lane: Lane, upstream: RealUpstream | ScriptedUpstream, seed: int, number: int
) -> Iterator[Outcome]:
    """Transfers of one lane, until so many of them were cut."""
    rng = random.Random(seed)
    blobs = [Blob(_digest(octets), octets) for octets in map(rng.randbytes, SIZES)]
    for blob in blobs:
        upstream.keep(blob)
    cuts = 0
    while cuts < number:
        case = draw(rng, upstream.framings, blobs)
        push = case.flow == "push"
        target = (
            upstream.push_target(case.blob)
            if push
            else upstream.pull_target(case.blob, case.framing)
        )
        outcome = lane.run(case, target)
        cuts += outcome.is_cut
        if push and outcome.said == "whole" and not upstream.has(case.blob):
            outcome.said = "wrong"
        yield outcome


COLUMNS = ("cuts", "said whole", "said broken", "wrong", "to be told", "told <= 1 s", "ended")


def table(outcomes: list[Outcome]) -> str:
    """The counts of transfers that were cut, by place, flow and kind."""
    rows: dict[str, Counter[str]] = {}
    slowest: Counter[str] = Counter()
    for outcome in outcomes:
        case = outcome.case
        for name in (f"{case.place:8} {case.flow} {case.kind:12}", f"{'all':26}"):
            row = rows.setdefault(name, Counter())
            row["cuts"] += outcome.is_cut
            if outcome.is_cut and case.place != "client":
                row[f"said {outcome.said}"] += 1
            row["wrong"] += outcome.said == "wrong"
            if outcome.is_cut:
                row["to be told"] += outcome.other_side != "whole"
                row["told <= 1 s"] += outcome.other_side == "told"
                row["ended"] += outcome.other_side == "ended"
            slowest[name] = max(slowest[name], round(1000 * outcome.after))
    lines = [" | ".join((f"{'place, flow, kind':26}", *COLUMNS, "slowest"))]
    for name, row in sorted(rows.items(), key=lambda item: (item[0].startswith("all"), item[0])):
        # A client that went says nothing.
        says = not name.startswith("client")
        cells = (
            f"{row[column] if says or 'said' not in column else '-':>{len(column)}}"
            for column in COLUMNS
        )
        lines.append(" | ".join((f"{name:26}", *cells, f"{slowest[name]:4} ms")))
    return "\n".join(lines)


def open_files(guard: Guard) -> int:
    """How many descriptors a guard has."""
    return len(list(Path(f"/proc/{guard.program.pid}/fd").iterdir()))


def open_files_at_rest(guard: Guard) -> int:
    """The same when the reactor runs, and has opened what it needs for that: it has answered."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = http.client.HTTPSConnection("127.0.0.1", guard.port, context=context)
    with contextlib.closing(client):
        client.request("GET", "/")
        assert client.getresponse().read()
        return open_files(guard) - 1


@pytest.fixture
def upstreams(tmp_path: Path) -> Iterator[list[RealUpstream | ScriptedUpstream]]:
    """A real registry and a scripted one."""
    with Registry(tmp_path / "registry").running() as registry, ScriptedUpstream() as scripted:
        yield [RealUpstream(registry), scripted]


def test_g11_i06_i10_no_cut_transfer_looks_whole(
    ground: Ground, tmp_path: Path, upstreams: list[RealUpstream | ScriptedUpstream]
) -> None:
    """What is said to be whole has its digest, and who is left alone hears of it in a second."""
    began = time.monotonic()

    def cut_in(number: int) -> list[Outcome]:
        upstream = upstreams[number % len(upstreams)]
        share = NUMBER // LANES + (number < NUMBER % LANES)
        with FaultProxy(upstream.port, window=WINDOW) as back:
            guard = Guard(ground, tmp_path / f"guard-{number}", back.url)
            with FaultProxy(guard.port, window=WINDOW) as front:
                before = open_files_at_rest(guard)
                lane = Lane(ground, guard, front, back)
                outcomes = list(cut_often(lane, upstream, SEED + number, share))
                # Nothing stays behind but what is kept for further requests.
                guard.program.wait_until(
                    "what was cut to be closed",
                    lambda: open_files(guard) - len(back.open) <= before,
                )
            guard.stop()
        return outcomes

    with ThreadPoolExecutor(LANES) as threads:
        outcomes = [one for lane in threads.map(cut_in, range(LANES)) for one in lane]

    cuts = sum(outcome.is_cut for outcome in outcomes)
    print(  # noqa: T201
        f"\n{cuts:,} cuts in {len(outcomes):,} transfers of seed {SEED}, "
        f"{time.monotonic() - began:.0f} s\n{table(outcomes)}"
    )
    assert cuts == NUMBER
    bad = [
        outcome
        for outcome in outcomes
        if outcome.said in ("wrong", "hung", "refused") or outcome.other_side in ("late", "ended")
    ]
    assert not bad, f"{len(bad)} such as " + "\n".join(describe(one) for one in bad[:20])
    # Without cuts in the middle nothing would be shown.
    assert sum(outcome.said == "broken" for outcome in outcomes) > cuts / 3
    assert sum(outcome.other_side == "told" for outcome in outcomes) > cuts / 3


def describe(outcome: Outcome) -> str:
    """One line about it, without the octets."""
    case = outcome.case
    return (
        f"{case.place} {case.flow} {case.kind} {case.way} at {case.at} of {len(case.blob.octets)}"
        f" ({case.framing}, kept={case.kept}, 1.{case.minor}): said {outcome.said}"
        f" ({outcome.detail}), other side {outcome.other_side} after {outcome.after:.3f} s"
    )

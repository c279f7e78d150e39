"""The rows of the table: what is measured of each contender, and what regguard has to show."""

from __future__ import annotations

import abc
import contextlib
import http.client
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.bench import load
from tests.bench.contenders import Apache, Caddy, Contender, Nginx
from tests.bench.family import cpu_seconds, memory, settle
from tests.bench.ground import PATIENCE, status_of
from tests.bench.idle import Crowd
from tests.bench.images import Copies
from tests.bench.stub import BLOB_BYTES, TARGET, blob_file

BEST, ALONE = "best peer", ""
#: A figure, or why there is none.
Figure = float | str


@dataclass(frozen=True)
class Wanted:
    """How regguard's figure has to stand to another's: the ratio is at least or at most this.

    ``beside`` is a contender's name, BEST, or ALONE: then it is about the figure itself.
    """

    ratio: float
    beside: str


@dataclass(frozen=True)
class Line:
    """One figure of a row, and its unit."""

    name: str
    form: str = ".0f"
    less_is_better: bool = False
    wanted: tuple[Wanted, ...] = ()


class Row(abc.ABC):
    """A way to ask, which gives one figure or several."""

    #: As the issue letters them, and what stands behind the contenders.
    key: str
    upstream: ClassVar[str] = "stub"
    #: Programs that it needs, and their Debian packages.
    programs: ClassVar[tuple[tuple[str, str], ...]] = (("nginx", "nginx"),)
    #: More rounds than that tell nothing new.
    most_rounds: ClassVar[int] = 1000
    lines: tuple[Line, ...]

    @abc.abstractmethod
    def measure(self, contender: Contender, seconds: float) -> tuple[Figure, ...]:
        """A figure for each line."""

    def warm_up(self, contender: Contender) -> None:
        """Fills caches and connection pools; a verified credential among them."""
        # The first hash may take longer than this second; then there are no figures yet.
        with contextlib.suppress(load.Spoiled):
            self.measure(contender, 1)


_WRK = (*Row.programs, ("wrk", "wrk"))


class Kept(Row):
    """Kept-alive connections."""

    programs = _WRK

    def __init__(self, key: str, connections: int) -> None:
        self.key = key
        self._connections = connections
        wanted = (Wanted(1.2, Caddy.name), Wanted(2.5, Nginx.name), Wanted(20, Apache.name))
        self.lines = (Line(f"kept alive, -c{connections}, GET/s", wanted=wanted),)

    def measure(self, contender: Contender, seconds: float) -> tuple[Figure, ...]:
        return (load.wrk(contender, seconds, self._connections).rate,)


class Closed(Row):
    """A connection for each request, whose TLS session is resumed where the server lets it.

    regguard lets nobody: a session would outlive a reload (``regguard/front/certificates.py``).
    """

    key = "b1"
    programs = _WRK
    lines = (
        Line("connection each, resumed, -c8, GET/s", wanted=(Wanted(1.0, Nginx.name),)),
    )  # fmt: skip

    def measure(self, contender: Contender, seconds: float) -> tuple[Figure, ...]:
        return (load.wrk(contender, seconds, 8, ("Connection: close",)).rate,)


class Shaken(Row):
    """A connection and a whole TLS handshake for each request, as docker and skopeo ask."""

    key = "b2"
    programs = (*Row.programs, ("hey", "hey"))
    lines = (
        Line("connection each, as docker, -c8, GET/s", wanted=(Wanted(1.0, Nginx.name),)),
    )  # fmt: skip

    def measure(self, contender: Contender, seconds: float) -> tuple[Figure, ...]:
        return (load.hey(contender, seconds, 8),)


class Bulk(Row):
    """A large blob, one transfer at a time; as many in each round as take a moment together."""

    programs = (*Row.programs, ("curl", "curl"))
    transfers = 2

    def __init__(self, key: str, word: str) -> None:
        self.key = key
        self.lines = (
            Line(f"{word} 512 MB, MB/s", wanted=(Wanted(1.1, BEST),)),
            Line(f"{word} 512 MB, CPU s/GB", ".2f", True, (Wanted(0.9, Nginx.name),)),
        )

    @abc.abstractmethod
    def transfer(self, contender: Contender) -> float:
        """Seconds of one."""

    def measure(self, contender: Contender, seconds: float) -> tuple[Figure, ...]:
        before = cpu_seconds(contender.pid)
        took = sum(self.transfer(contender) for _ in range(self.transfers))
        used = cpu_seconds(contender.pid) - before
        octets = self.transfers * BLOB_BYTES
        return octets / took / 1e6, used / octets * 1e9


class Pull(Bulk):
    def transfer(self, contender: Contender) -> float:
        return load.pull(contender)


class Push(Bulk):
    upstream = "sink"

    def __init__(self, key: str, word: str, blob: Path) -> None:
        super().__init__(key, word)
        self._blob = blob

    def transfer(self, contender: Contender) -> float:
        return load.push(contender, str(self._blob))


def registry_storage(folder: Path) -> Path:
    """Where the real registry has its files."""
    return folder / "registry"


class Image(Row):
    """skopeo copies an image to the registry and back."""

    upstream = "registry"
    programs = (("skopeo", "skopeo"), ("docker-registry", "docker-registry"))

    def __init__(self, key: str, folder: Path, layers: int, size: int) -> None:
        self.key = key
        self._copies = Copies(folder, registry_storage(folder), [size] * layers)
        # Direct, a client of another machine speaks TLS, too; of the registry's own.
        wanted = (Wanted(1.1, "direct"), Wanted(1.1, "direct, TLS"), Wanted(1.0, BEST))
        self.lines = tuple(
            Line(f"skopeo {word}, {layers} layers, s", ".3f", True, wanted)
            for word in ("push", "pull")
        )

    def measure(self, contender: Contender, seconds: float) -> tuple[Figure, ...]:
        return self._copies.measure(contender)


class Busy(Row):
    """Small requests while blobs are pulled."""

    key = "f"
    programs = (*_WRK, ("curl", "curl"))
    pulls = 4
    lines = (
        Line("GET beside 4 pulls, p50, ms", ".2f", True),
        Line("GET beside 4 pulls, p99, ms", ".2f", True, (Wanted(1.0, Nginx.name),)),
        Line("the 4 pulls, MB/s"),
    )

    def measure(self, contender: Contender, seconds: float) -> tuple[Figure, ...]:
        with load.bulk(contender, self.pulls) as pulls:
            small = load.wrk(contender, seconds, 2)
            return small.p50 * 1e3, small.p99 * 1e3, pulls.stop() / 1e6


class Idle(Row):
    """Memory for each of many idle TLS connections, on a contender that was just started."""

    key = "g"
    most_rounds = 1
    crowds = (1_000, 10_000)
    lines = tuple(
        Line(f"PSS of an idle connection, {count:,}, kB", ".1f", True, (Wanted(20, ALONE),))
        for count in crowds
    )

    def warm_up(self, contender: Contender) -> None:
        """Nothing: it begins anew."""

    def measure(self, contender: Contender, seconds: float) -> tuple[Figure, ...]:
        # A connection is a file for the client, and for a contender of one process, too.
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1.1 * max(self.crowds):
            return ("n/a: ulimit",) * len(self.crowds)
        contender.stop()
        contender.start()
        with Crowd(contender.port) as few:
            few.grow(10)
        settle(contender.pid)
        before = memory(contender.pid)
        figures: list[Figure] = []
        with Crowd(contender.port) as crowd:
            for count in self.crowds:
                crowd.grow(count)
                settle(contender.pid)
                used = memory(contender.pid) - before
                there = crowd.there()
                figures.append(used / count / 1e3 if there == count else "n/a: limit")
        return tuple(figures)


class Start(Row):
    """From exec to the first answer: a refusal, for which nobody hashes a password."""

    key = "h"
    lines = (Line("start to first answer, s", ".3f", True),)

    def warm_up(self, contender: Contender) -> None:
        """Nothing: it begins anew."""

    def measure(self, contender: Contender, seconds: float) -> tuple[Figure, ...]:
        contender.stop()
        began = time.perf_counter()
        contender.launch()
        while (took := time.perf_counter() - began) < PATIENCE:
            # Until it listens.
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = status_of(contender.port, TARGET)
                if status != 401:
                    raise load.Spoiled(f"{contender.name}: the first answer is {status}")
                return (time.perf_counter() - began,)
            time.sleep(0.002)
        raise load.Spoiled(f"{contender.name} gave no answer in {took:.0f} s")


def rows(folder: Path) -> tuple[Row, ...]:
    """All of them, by their letters; ``folder``, in memory, has what is pushed and pulled."""
    return (
        Kept("a1", 16),
        Kept("a2", 64),
        Closed(),
        Shaken(),
        Pull("c", "pull"),
        Push("d", "push", blob_file(folder)),
        # As large as usual images are, in few layers and in many.
        Image("e1", folder, 5, 32_000_000),
        Image("e2", folder, 40, 4_000_000),
        Busy(),
        Idle(),
        Start(),
    )

"""``python -m tests.bench``: regguard beside its peers, in one run.

The same client, upstream and certificate for all; the rounds are interleaved (regguard, nginx,
Apache, regguard, nginx ...), so that what else the machine does falls on everyone.  Figures of one
machine are noisy; the ratios of the medians are what counts.

Without a word about certificate, hash or rows there are three tables: RSA and each contender's own
hash; ECDSA for what a certificate changes; bcrypt-12 for all where a hash matters.

Everything runs on 127.0.0.1.  Large files stand in /dev/shm where there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contenders import (
    CONTENDERS,
    OWN,
    Contender,
    Direct,
    DirectTls,
    Regguard,
    Ruled,
)
from tests.bench.family import settle
from tests.bench.ground import SAME_HASH, Ground, issue
from tests.bench.load import Spoiled
from tests.bench.rows import Figure, Row, registry_storage, rows
from tests.bench.stub import Sink, Upstream, write_blobs
from tests.bench.table import Result, median, print_table
from tests.e2e.programs import Registry

RECIPE = "recipe"


@dataclass(frozen=True)
class Plan:
    """One table."""

    certificate: str
    scheme: str
    keys: tuple[str, ...]

    @property
    def title(self) -> str:
        kind = {"rsa": "RSA-2048", "ecdsa": "ECDSA P-256"}[self.certificate]
        each = "each with its own hash" if self.scheme == RECIPE else f"{self.scheme} for all"
        return f"{kind}, {each}"

    def has(self, row: Row) -> bool:
        return row.key.startswith(self.keys)


ALL = Plan("rsa", RECIPE, ("",))
# 64 connections are no row of the last one: they take a minute for each round of bcrypt-12.
PLANS = (ALL, Plan("ecdsa", RECIPE, ("b", "c", "d")), Plan("rsa", SAME_HASH, ("a1", "b")))


class Bench:
    """Measures tables, each thing as often and as long as the words say."""

    def __init__(self, words: argparse.Namespace, kinds: Sequence[type[Contender]]) -> None:
        self._words = words
        self._kinds = kinds
        self.spoiled = 0

    def measure(
        self, plan: Plan, chosen: Sequence[Row], folder: Path, memory: Path
    ) -> list[Result]:
        """The results in the order of the rows."""
        by_row: dict[str, list[Result]] = {}
        certificate = issue(folder, plan.certificate)
        for upstream in dict.fromkeys(row.upstream for row in chosen):
            with contextlib.ExitStack() as leaving:
                contenders = self._start(upstream, plan, certificate, folder, memory, leaving)
                for row in chosen:
                    if row.upstream == upstream:
                        by_row[row.key] = self._row(row, contenders)
        return [result for row in chosen for result in by_row[row.key]]

    def _start(
        self,
        upstream: str,
        plan: Plan,
        certificate: Path,
        folder: Path,
        memory: Path,
        leaving: contextlib.ExitStack,
    ) -> list[Contender]:
        beside: list[Contender] = []
        if upstream == "registry":
            direct, secure = (
                leaving.enter_context(
                    Registry(
                        folder / name, storage=registry_storage(memory), certificate=itself
                    ).running()
                )
                for name, itself in (("registry", None), ("registry-tls", certificate))
            )
            port = direct.port
            beside = [Direct(direct), DirectTls(secure)]
        else:
            stub = Sink(folder) if upstream == "sink" else Upstream(folder, memory)
            leaving.callback(stub.stop)
            port = stub.port
        ground = Ground(folder, certificate, port, None if plan.scheme == RECIPE else plan.scheme)
        contenders = []
        for kind in self._kinds:
            contender = kind(ground)
            leaving.callback(contender.stop)
            contenders.append(contender)
        return contenders + beside

    def _row(self, row: Row, contenders: Sequence[Contender]) -> list[Result]:
        names = [contender.name for contender in contenders]
        seen: dict[str, list[tuple[Figure, ...]]] = {name: [] for name in names}
        for contender in contenders:
            row.warm_up(contender)
            settle(contender.pid)
        rounds = min(self._words.rounds, row.most_rounds)
        for number in range(rounds):
            began = time.monotonic()
            for contender in contenders:
                try:
                    figures = row.measure(contender, self._words.seconds)
                except Spoiled as spoiled:
                    print(spoiled, file=sys.stderr, flush=True)
                    self.spoiled += 1
                    figures = ("spoiled",) * len(row.lines)
                settle(contender.pid)
                seen[contender.name].append(figures)
            latest = ", ".join(f"{name} {_shown(row, seen[name][-1])}" for name in names)
            took = f"{time.monotonic() - began:.0f} s"
            print(f"{row.key}, round {number + 1} of {rounds}, {took}: {latest}", flush=True)
        return [
            Result(line, {name: median([it[place] for it in seen[name]]) for name in names})
            for place, line in enumerate(row.lines)
        ]


def _shown(row: Row, figures: tuple[Figure, ...]) -> str:
    return "/".join(
        figure if isinstance(figure, str) else format(figure, line.form)
        for line, figure in zip(row.lines, figures, strict=True)
    )


def main() -> int:
    """Measure; print the tables.  1: something is missing, or a run was no comparison."""
    words = _words()
    kinds: Sequence[type[Contender]] = (Regguard, Ruled) if words.rules else CONTENDERS
    if words.only:
        kinds = [it for it in kinds if any(word in it.name.lower() for word in words.only)]
    plans = _plans(words)
    # So that programs and folders go with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with _folders() as (folder, memory):
        everything = rows(memory)
        if _tell_what_is_missing(kinds, [it for it in everything if any(p.has(it) for p in plans)]):
            return 1
        write_blobs(memory)
        bench = Bench(words, kinds)
        for number, plan in enumerate(plans):
            chosen = [row for row in everything if plan.has(row)]
            room = folder / str(number)
            room.mkdir()
            print(f"\n{plan.title}", flush=True)
            results = bench.measure(plan, chosen, room, memory)
            print(f"\n{plan.title}; medians of {words.rounds} interleaved rounds", end="")
            print_table(results)
            print("\nRatios: regguard with a worker for each core / the other. Memory: one round.")
    print(f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}")
    for kind in kinds:
        print(f"{kind.name}: {kind.version()}, {kind.scheme}")
    if bench.spoiled:
        print(f"{bench.spoiled} runs were spoiled; see above.")
    return 1 if bench.spoiled else 0


@contextlib.contextmanager
def _folders() -> Iterator[tuple[Path, Path]]:
    """One for configurations and logs; one for large files, in memory if that can be."""
    shm = Path("/dev/shm")
    usual = Path(tempfile.gettempdir())
    with (
        tempfile.TemporaryDirectory(prefix="regguard-bench-") as folder,
        tempfile.TemporaryDirectory(
            prefix="regguard-bench-", dir=shm if os.access(shm, os.W_OK) else usual
        ) as memory,
    ):
        yield Path(folder), Path(memory)


def _tell_what_is_missing(kinds: Sequence[type[Contender]], chosen: Sequence[Row]) -> bool:
    programs = {kind.program for kind in kinds if kind.name not in OWN and kind is not Ruled}
    programs |= {program for row in chosen for program in row.programs}
    missing = sorted(it for it in programs if shutil.which(it[0]) is None)
    if missing:
        print(f"Missing: {', '.join(program for program, _ in missing)}. On Debian or Ubuntu:")
        print(f"apt-get install {' '.join(package for _, package in missing)}")
        print("Or leave something out: see --only and --rows.")
    return bool(missing)


def _plans(words: argparse.Namespace) -> Sequence[Plan]:
    if words.rules:
        return (Plan("rsa", RECIPE, tuple(words.rows or ("a", "b"))),)
    if not (words.rows or words.certificate or words.hash):
        return PLANS
    return (
        Plan(words.certificate or "rsa", words.hash or RECIPE, tuple(words.rows or ("",))),
    )  # fmt: skip


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds per row (default: 5)")
    parser.add_argument("--seconds", type=int, default=4, help="seconds per round (default: 4)")
    parser.add_argument("--rows", type=_list, help="a, b, b2, ...: only these")
    parser.add_argument("--certificate", choices=("rsa", "ecdsa"))
    parser.add_argument("--hash", choices=(RECIPE, SAME_HASH), help="each its own, or one for all")
    parser.add_argument("--only", type=_list, help="contenders with one of these in their names")
    parser.add_argument(
        "--rules", action="store_true", help="beside itself with 1,000 rules for repositories"
    )
    return parser.parse_args()


def _list(text: str) -> list[str]:
    return [word.strip().lower() for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())

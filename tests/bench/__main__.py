"""``python -m tests.bench``: regguard beside its peers, in one run.

The same client, upstream and certificate for all; the rounds are interleaved (regguard, nginx,
regguard, nginx ...), so that what else the machine does falls on everyone.  Figures of one
machine are noisy; the ratios of the medians are what counts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.contenders import (
    CONTENDERS,
    Contender,
    Regguard,
    Ruled,
    Upstream,
    make_ground,
)
from tests.bench.load import ROWS, Row, Spoiled


def main() -> int:
    """Measure every row on every contender; print the table."""
    words = _words()
    missing = [name for name in ("nginx", "wrk") if shutil.which(name) is None]
    if missing:
        print(f"Missing: {', '.join(missing)}. On Debian or Ubuntu: apt-get install nginx wrk")
        return 1
    with contextlib.ExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="regguard-bench-")))
        upstream = Upstream(folder)
        leaving.callback(upstream.stop)
        ground = make_ground(folder, upstream)
        contenders: list[Contender] = []
        for kind in (Regguard, Ruled) if words.rules else CONTENDERS:
            contender = kind(ground)
            leaving.callback(contender.stop)
            contenders.append(contender)
        try:
            table = [(row, _medians(row, contenders, words.rounds, words.seconds)) for row in ROWS]
        except Spoiled as spoiled:
            print(spoiled, file=sys.stderr)
            return 1
    _print_table(table, contenders, words.rounds, words.seconds)
    return 0


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds per row (default: 5)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds per round (default: 5)")
    parser.add_argument(
        "--rules", action="store_true", help="beside itself with 1,000 rules for repositories"
    )
    return parser.parse_args()


def _medians(row: Row, contenders: list[Contender], rounds: int, seconds: int) -> list[float]:
    figures: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        # Fills caches and connection pools; a verified credential among them.
        row.measure(contender, 1)
    for number in range(rounds):
        for contender, seen in zip(contenders, figures, strict=True):
            seen.append(row.measure(contender, seconds))
        latest = "   ".join(
            f"{contender.name} {seen[-1]:.0f}"
            for contender, seen in zip(contenders, figures, strict=True)
        )
        print(f"{row.name}, round {number + 1} of {rounds}: {latest}", flush=True)
    return [statistics.median(seen) for seen in figures]


def _print_table(
    table: list[tuple[Row, list[float]]], contenders: list[Contender], rounds: int, seconds: int
) -> None:
    first, *peers = (contender.name for contender in contenders)
    heading = [first, *(word for peer in peers for word in (peer, "ratio"))]
    print(f"\n{'':<42}" + "".join(f"{word:>24}" for word in heading))
    for row, (own, *others) in table:
        cells = [
            f"{own:.0f}",
            *(cell for it in others for cell in (f"{it:.0f}", f"{own / it:.2f}")),
        ]
        print(f"{row.name:<42}" + "".join(f"{cell:>24}" for cell in cells))
    print(f"\nMedians of {rounds} interleaved rounds of {seconds} s. Ratio: {first} / peer.")
    print(f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}")
    for contender in contenders:
        print(contender.version())


if __name__ == "__main__":
    sys.exit(main())

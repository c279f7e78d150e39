"""``python -m tests.fuzz``: bent request streams through door, guard and relay, in memory.

Each stream is made from the seed and its number, so ``--seed S --stream N`` shows one again.
``tests/fuzz/judge.py`` says what has to hold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.fuzz.plan import make_plan
from tests.fuzz.running import BATCH, Tally, log_nowhere, one_batch, spelled

ENOUGH = 5
"""Findings to work on; more are mostly the same."""


def main() -> int:
    """Run; 1 if anything broke."""
    words = _words()
    if words.stream is not None:
        print(spelled(make_plan(words.seed, words.stream)))
        tally = one_batch(words.seed, words.stream, 1)
        print(*tally.findings, sep="\n")
    else:
        tally = _all(words)
    _print(tally)
    return 1 if tally.findings else 0


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000_000, help="how many (a million)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--stream", type=int, help="show this one, and run it alone")
    return parser.parse_args()


def _all(words: argparse.Namespace) -> Tally:
    """Batches, each in whatever process is free; ends early when enough was found."""
    began = shown = time.monotonic()
    tally = Tally()
    with ProcessPoolExecutor(
        words.jobs, multiprocessing.get_context("spawn"), initializer=log_nowhere
    ) as jobs:
        batches = [
            jobs.submit(one_batch, words.seed, first, min(BATCH, words.streams - first))
            for first in range(0, words.streams, BATCH)
        ]
        for batch in as_completed(batches):
            if batch.exception() is not None:
                jobs.shutdown(wait=False, cancel_futures=True)
            tally.add(batch.result())
            for finding in batch.result().findings:
                print(finding, flush=True)
            now = time.monotonic()
            if now - shown >= 10:
                shown = now
                streams = tally.counts["streams"]
                print(f"{streams:>9,} streams, {streams / (now - began):,.0f}/s", flush=True)
            is_late = words.seconds is not None and now - began >= words.seconds
            if is_late or len(tally.findings) >= ENOUGH:
                jobs.shutdown(cancel_futures=True)
                break
    spent = time.monotonic() - began
    streams = tally.counts["streams"]
    print(f"seed {words.seed}: {streams:,} streams in {spent:,.0f} s, {streams / spent:,.0f}/s")
    return tally


def _print(tally: Tally) -> None:
    print(", ".join(f"{name}: {count:,}" for name, count in tally.counts.items()))
    print("answers:", ", ".join(f"{s or 'none'}: {n:,}" for s, n in sorted(tally.statuses.items())))
    print(f"{len(tally.findings)} streams broke something")


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.bench.rules``: what a thousand rules cost, in microseconds.

Cold is the first question for a repository; warm is a later one, while it is remembered. Figures
of one machine; what counts is how a thousand rules stand beside none.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from regguard.access import Access, Policy, Rule, Who, parse_access
from regguard.access.matching import Matcher

RULES = 1000
# Fewer than a Matcher remembers: the first round is cold throughout, the next ones are warm.
NAMES = 8000
WARM_ROUNDS = 5
# To read the clock costs as much as a look-up, so that one reading is for many.
BATCH = 50

# How a rule is spelled, and a repository that it fits.
SHAPES = (
    ("team-N/**", "team-{}/**", "team-{}/app-{}"),
    ("org/team-N/*", "org/team-{}/*", "org/team-{}/app-{}"),
    ("*-app-N/**", "*-app-{}/**", "my-app-{}/x-{}"),
)
PUSHER = frozenset({"pusher"})

Question = TypeVar("Question")


def main() -> int:
    """Measure every shape; print the table."""
    print(f"Medians in microseconds, {RULES} rules, Python {platform.python_version()}\n")
    print(f"{'':16}{'Matcher.first':>24}{'none fits':>12}{'Policy.decide':>24}")
    print(f"{'':16}{'cold':>12}{'warm':>12}{'cold':>12}{'cold':>12}{'warm':>12}")
    strange = [f"elsewhere-{i}/app" for i in range(NAMES)]
    _line("no rules", [*[None] * 3, *_decisions([], _fitting("team-{}/app-{}"))])
    for name, pattern, repository in SHAPES:
        patterns = [pattern.format(number) for number in range(RULES)]
        fitting = _fitting(repository)
        looked_up = _look_ups(patterns, fitting)
        missed, _ = _look_ups(patterns, strange)
        _line(name, [*looked_up, missed, *_decisions(patterns, fitting)])
    return 0


def _fitting(repository: str) -> list[str]:
    # 7919 is prime to the number of rules: neighbours in time are none in the list of rules.
    return [repository.format(i * 7919 % RULES, i) for i in range(NAMES)]


def _look_ups(patterns: Sequence[str], names: list[str]) -> tuple[float, float]:
    matcher = Matcher(enumerate(patterns))

    def look_up(name: str) -> int:
        return matcher.first(name, "ci")

    return _median(look_up, names), _median(look_up, names * WARM_ROUNDS)


def _decisions(patterns: Sequence[str], names: list[str]) -> tuple[float, float]:
    everybody = Who.parse("valid-user")
    policy = Policy(rules=[Rule((pattern,), pull=everybody) for pattern in patterns])
    pulls = [parse_access(b"GET", f"/v2/{name}/manifests/latest".encode()) for name in names]

    def decide(access: Access) -> object:
        return policy.decide("ci", PUSHER, access)

    return _median(decide, pulls), _median(decide, pulls * WARM_ROUNDS)


def _median(ask: Callable[[Question], object], questions: list[Question]) -> float:
    batches = []
    for first in range(0, len(questions), BATCH):
        batch = questions[first : first + BATCH]
        start = time.perf_counter()
        for question in batch:
            ask(question)
        batches.append((time.perf_counter() - start) / len(batch))
    return statistics.median(batches) * 1e6


def _line(name: str, figures: Sequence[float | None]) -> None:
    cells = (" " * 12 if figure is None else f"{figure:12.2f}" for figure in figures)
    print(f"{name:16}{''.join(cells)}")


if __name__ == "__main__":
    sys.exit(main())

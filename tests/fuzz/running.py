"""Many streams one after the other, and what is told of those that broke something."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from zope.interface import implementer

from tests.fuzz.judge import Verdict, Violation, judge
from tests.fuzz.plan import Plan, make_plan
from tests.fuzz.world import Faults, World

BATCH = 1000
"""Streams after which forgotten Deferreds are collected, and whether there was one is asked."""

SHRINKINGS = 3000
"""Runs that the shrinking of one finding may cost: a few seconds."""


@dataclass
class Finding:
    """A stream that broke something; ``plan`` is the least one that still does."""

    number: int
    kind: str
    detail: str
    plan: Plan

    def __str__(self) -> str:
        return f"stream {self.number}: {self.detail}\n{spelled(self.plan)}"


@dataclass
class Tally:
    """How streams went."""

    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count another one's in."""
        self.counts += other.counts
        self.statuses += other.statuses
        self.findings += other.findings


class Runner:
    """Runs streams in one world for as long as it stays good."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._world = World()

    def batch(self, first: int, count: int) -> Tally:
        """The streams ``first`` to ``first + count - 1``."""
        tally = Tally()
        with Faults() as faults:
            for number in range(first, first + count):
                self._count(tally, number, faults, collect=False)
            forgotten = faults.take(collect=True)
        if forgotten:
            # Whose Deferred it was shows when each stream's are collected at once.
            with Faults() as faults:
                for number in range(first, first + count):
                    self._count(Tally(), number, faults, collect=True, found=tally.findings)
            if not tally.findings:
                plan = make_plan(self.seed, first)
                tally.findings.append(Finding(first, "forgotten", forgotten[0], plan))
        return tally

    def _count(
        self,
        tally: Tally,
        number: int,
        faults: Faults,
        *,
        collect: bool,
        found: list[Finding] | None = None,
    ) -> None:
        plan = make_plan(self.seed, number)
        tally.counts["streams"] += 1
        try:
            verdict = self._look(plan, faults, collect=collect)
        except Violation as violation:
            least, detail = self._shrink(plan, violation, faults, collect=collect)
            findings = tally.findings if found is None else found
            findings.append(Finding(number, violation.kind, detail, least))
            return
        counts = tally.counts
        counts["taken"] += verdict.taken
        counts["refused"] += verdict.refused
        counts["relayed"] += verdict.relayed
        counts["cut"] += verdict.cut
        counts["streams that relayed"] += verdict.relayed > 0
        counts["streams with a refusal"] += verdict.refused > 0
        tally.statuses.update(verdict.statuses)

    def _look(self, plan: Plan, faults: Faults, *, collect: bool) -> Verdict:
        """Run and judge; a world in which something broke is not used again."""
        try:
            verdict = judge(self._world.run(plan))
        except Exception as error:
            self._world = World()
            faults.take(collect=collect)
            if isinstance(error, Violation):
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {where.name}"
            raise Violation(kind, traceback.format_exc()) from None
        seen = faults.take(collect=collect)
        if seen:
            raise Violation("a fault in the log", seen[0])
        return verdict

    def _shrink(
        self, plan: Plan, violation: Violation, faults: Faults, *, collect: bool
    ) -> tuple[Plan, str]:
        """The least plan that breaks the same, as far as leaving things out leads."""
        detail, left = str(violation), SHRINKINGS

        def breaks(smaller: Plan) -> bool:
            nonlocal detail, left
            left -= 1
            try:
                self._look(smaller, faults, collect=collect)
            except Violation as other:
                if other.kind == violation.kind:
                    detail = str(other)
                    return True
            return False

        shrunk = True
        while shrunk and left > 0:
            shrunk = False
            for smaller in _smaller(plan):
                if left <= 0:
                    break
                if breaks(smaller):
                    plan, shrunk = smaller, True
                    break
        return plan, detail


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with something left out, the boldest first."""
    if any(plan.pauses):
        yield replace(plan, pauses=())
    if plan.ending != "fin":
        yield replace(plan, ending="fin")
    if plan.timing != "prompt":
        yield replace(plan, timing="prompt")
    if plan.answers != (10,):
        yield replace(plan, answers=(10,))
    if len(plan.pieces) > 1:
        yield replace(plan, pieces=(plan.stream,), pauses=())
    size = len(plan.stream) // 2
    while size:
        for at in range(0, len(plan.stream), size):
            yield replace(plan, pieces=_without(plan.pieces, at, at + size))
        size //= 2


def _without(pieces: tuple[bytes, ...], start: int, end: int) -> tuple[bytes, ...]:
    """The pieces without the octets from ``start`` to ``end`` of all of them."""
    kept, position = [], 0
    for piece in pieces:
        first, last = max(0, start - position), max(0, end - position)
        kept.append(piece[:first] + piece[last:])
        position += len(piece)
    return tuple(filter(None, kept))


def spelled(plan: Plan) -> str:
    """A plan as Python that makes it; long runs of the same octets are multiplied out."""

    def runs(match: re.Match[str]) -> str:
        return f"' + b'{match[1]}' * {len(match[0]) // len(match[1])} + b'"

    pieces = [re.sub(r"([^\\']{1,5}?)\1{29,}", runs, repr(piece)) for piece in plan.pieces]
    octets = "".join(f"        {piece},\n" for piece in pieces)
    others = ", ".join(
        f"{name}={value!r}"
        for name, value in vars(plan).items()
        if name != "pieces"
        and value != getattr(_DEFAULTS, name)
        and (name != "pauses" or any(value))
    )
    return f"Plan(\n    (\n{octets}    ),\n    {others}\n)"


_DEFAULTS = Plan(())


def one_batch(seed: int, first: int, count: int) -> Tally:
    """Some streams in a world of their own; what a process of many is given to do."""
    return Runner(seed).batch(first, count)


@implementer(ILogObserver)
class _Nowhere:
    def __call__(self, event: LogEvent) -> None:
        """Forget it."""


def log_nowhere() -> None:
    """Let log events go to the observers of a batch only, and into no buffer."""
    globalLogBeginner.beginLoggingTo([_Nowhere()], redirectStandardIO=False)

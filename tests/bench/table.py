"""The table: figures, ratios, and what regguard had to show."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.bench.contenders import OWN, Direct, DirectTls, Nginx
from tests.bench.rows import ALONE, BEST, Figure, Line

# Who guards nothing is no peer.
_NO_PEERS = (*OWN, Direct.name, DirectTls.name)


class Result(NamedTuple):
    """The medians of a line, by the contenders' names."""

    line: Line
    figures: Mapping[str, Figure]


def median(figures: Sequence[Figure]) -> Figure:
    """Of numbers; a word among them stands for all."""
    words = [figure for figure in figures if isinstance(figure, str)]
    return words[0] if words else statistics.median(map(float, figures))


class _Standing:
    """regguard with a worker for each core beside the others, and with one worker where that one
    was measured alone or is asked for; all ratios are regguard / other."""

    def __init__(self, result: Result) -> None:
        self._line = result.line
        numbers = {
            name: figure for name, figure in result.figures.items() if isinstance(figure, float)
        }
        better = min if self._line.less_is_better else max
        own = [numbers.pop(name) for name in OWN if name in numbers]
        self._own = own
        self._others = dict(numbers)
        if peers := [figure for name, figure in numbers.items() if name not in _NO_PEERS]:
            self._others[BEST] = better(peers)

    def ratio(self, other: str, own: int = 0) -> float | None:
        """None where one of the two figures is missing; ``own`` 1 is one worker beside several."""
        if len(self._own) <= own or (other != ALONE and not self._others.get(other)):
            return None
        return self._own[own] if other == ALONE else self._own[own] / self._others[other]

    def verdicts(self) -> str:
        """Each thing that was wanted, and whether it was held or lost."""
        said = []
        for ratio, other in ((it.ratio, it.beside) for it in self._line.wanted):
            got = self.ratio(other)
            if got is None:
                continue
            held = got <= ratio if self._line.less_is_better else got >= ratio
            sign = "<=" if self._line.less_is_better else ">="
            beside = "" if other == ALONE else f" x {other.removesuffix(' recipe')}"
            word = "held" if held else "LOST"
            single = (
                "" if held or (one := self.ratio(other, 1)) is None else f" (1 worker {one:.2f})"
            )
            said.append(f"{sign} {ratio:g}{beside}: {word}, {got:.2f}{single}")
        return "; ".join(said)


def print_table(results: Sequence[Result]) -> None:
    """All lines, with a heading wherever the columns change."""
    columns: list[str] = []
    for result in results:
        if list(result.figures) != columns:
            columns = list(result.figures)
            print(f"\n{'':<38}" + _cells([*columns, "/ best peer", "/ nginx"]) + "  wanted")
        standing = _Standing(result)
        figures = [
            format(figure, result.line.form) if isinstance(figure, float) else figure
            for figure in result.figures.values()
        ]
        ratios = [
            "-" if (ratio := standing.ratio(other)) is None else f"{ratio:.2f}"
            for other in (BEST, Nginx.name)
        ]
        print(
            f"{result.line.name:<38}" + _cells([*figures, *ratios]) + f"  {standing.verdicts()}",
            flush=True,
        )


def _cells(words: Sequence[str]) -> str:
    return "".join(
        f"{word.removeprefix('regguard, ').removesuffix(' recipe'):>12}" for word in words
    )

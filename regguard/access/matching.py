"""Patterns of repositories and tags, and the look-up of the first that fits.

A pattern of repositories is spelled like one, and

* ``*`` stands for any characters within one path segment, also for none;
* ``**`` stands for any characters, slashes among them; as a segment of its own before a slash also
  for no segment at all: ``**/app`` fits ``app`` and ``a/b/app``, while ``team/**`` fits what is
  below ``team``, and not ``team`` itself;
* ``{user}`` stands for the caller's own name, taken literally. A name with a slash fits nowhere:
  ``alice/private`` must not own what belongs to ``alice``.

A pattern fits the whole name or not at all.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator

from regguard.access.target import is_repository

NO_MATCH = sys.maxsize
"""Behind every number that a pattern can have."""

_REMEMBERED = 10_000
"""Pairs of repository and user whose rule is remembered: some 2 MB."""

_USER = "{user}"
# What a look-up in a rule's tail is done on: the user's name, this, and the rest of the path.
_BEHIND_USER = "\n"
# No path and no name holds it.
_NOBODY = "\0"

_PIECE = re.compile(r"\*\*/|\*\*|\*|\{user\}|[a-z0-9._/-]")
_DEEP = re.compile(r"(\*\*/?)")
_TAG_PIECE = re.compile(r"[A-Za-z0-9_.*-]+")

Fits = Callable[[str], object]


class Matcher:
    """Finds the first pattern that fits, by a tree of path segments.

    A thousand patterns that begin with different segments cost as much as a handful. Those that
    begin with ``*`` have to be tried one by one, so what was found is remembered.
    """

    __slots__ = ("_found", "_root")

    def __init__(self, patterns: Iterable[tuple[int, str]]) -> None:
        """Take numbers with their patterns.

        :raises ValueError: with the cure, for what is no pattern.
        """
        self._found: dict[tuple[str, str], int] = {}
        self._root = _Node()
        for number, pattern in patterns:
            check_pattern(pattern)
            self._root.add(pattern.split("/"), number)

    def first(self, repository: str, user: str) -> int:
        """The least number whose pattern fits, or :data:`NO_MATCH`."""
        key = (repository, user)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._root.first(repository.split("/"), 0, user, NO_MATCH)
            self._found[key] = found
        return found


class _Node:
    """The patterns that share their first segments; what may come behind these."""

    __slots__ = ("below", "exact", "globs", "least", "literals", "own", "tails")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.own: _Node | None = None
        self.globs: dict[str, tuple[Fits, _Node]] = {}
        self.tails: list[tuple[int, Fits]] = []
        self.exact = NO_MATCH
        self.below = NO_MATCH
        self.least = NO_MATCH

    def add(self, segments: list[str], number: int) -> None:
        self.least = min(self.least, number)
        if not segments:
            self.exact = min(self.exact, number)
            return
        segment, *rest = segments
        if segment == "**" and not rest:
            self.below = min(self.below, number)
        elif "**" in segment or (_USER in segment and segment != _USER):
            self.tails.append((number, _expression("/".join(segments))))
        else:
            self._child(segment).add(rest, number)

    def _child(self, segment: str) -> _Node:
        if segment == _USER:
            if self.own is None:
                self.own = _Node()
            return self.own
        if "*" not in segment:
            return self.literals.setdefault(segment, _Node())
        if segment not in self.globs:
            glob = re.compile(_glob(segment, itertools.count()))
            self.globs[segment] = (glob.fullmatch, _Node())
        return self.globs[segment][1]

    def first(self, segments: list[str], depth: int, user: str, best: int) -> int:
        """The least number here and below that is less than ``best``, or ``best``."""
        if self.least >= best:
            return best
        if depth == len(segments):
            return min(self.exact, best)
        best = min(self.below, best)
        segment = segments[depth]
        depth += 1
        literal = self.literals.get(segment)
        if literal is not None:
            best = literal.first(segments, depth, user, best)
        if self.own is not None and segment == user:
            best = self.own.first(segments, depth, user, best)
        for fits, node in self.globs.values():
            if node.least < best and fits(segment):
                best = node.first(segments, depth, user, best)
        if self.tails:
            owner = _NOBODY if "/" in user or _BEHIND_USER in user else user
            rest = owner + _BEHIND_USER + "/".join(segments[depth - 1 :])
            for number, fits in self.tails:
                if number < best and fits(rest):
                    best = number
        return best


def check_pattern(pattern: str) -> None:
    """Raise ValueError, with the cure, for what is no pattern of repositories."""
    if not pattern:
        raise ValueError("an empty pattern fits nothing; ** fits every repository")
    end = 0
    for piece in _PIECE.finditer(pattern):
        if piece.start() != end:
            break
        end = piece.end()
    if end != len(pattern):
        raise ValueError(f"{pattern!r}: {_cure(pattern[end])}")
    if "***" in pattern:
        raise ValueError(f"{pattern!r}: write * for one segment's characters, ** for any")
    if pattern.startswith("/") or pattern.endswith("/") or "//" in pattern:
        raise ValueError(f"{pattern!r}: an empty segment; write it like a repository, a/b")
    if "*" not in pattern and _USER not in pattern and not is_repository(pattern):
        raise ValueError(f"{pattern!r}: no repository can have this name")


def _cure(character: str) -> str:
    if character.isupper():
        return "repository names have no capital letters"
    if character == ":":
        return "leave out the registry's address and the tag: a pattern is about repositories"
    if character == "{":
        return "the only word in braces is {user}"
    return f"{character!r} stands in no repository name; patterns know *, ** and {{user}}"


def _expression(pattern: str) -> Fits:
    """Compile the rest of a pattern, for the user's name in front of the rest of the path."""
    numbers = itertools.count()
    first, *others = _DEEP.split(pattern)
    parts = [f"(?P<user>[^{_BEHIND_USER}]*){_BEHIND_USER}", _block(first, numbers)]
    start = not first or first.endswith("/")
    last = len(others) // 2
    for number, (deep, block) in enumerate(zip(others[::2], others[1::2], strict=True), 1):
        reach = ".*?" if deep == "**" else "(?:.*?/)??" if start else ".*?/"
        part = reach + _block(block, numbers)
        parts.append(part if number == last else _once(part, numbers))
        start = (block or deep).endswith("/")
    return re.compile("".join(parts)).fullmatch


def _block(text: str, numbers: Iterator[int]) -> str:
    """The expression of a part of a pattern in which no ``**`` stands."""
    return "/".join(_glob(segment, numbers, "[^/]*?") for segment in text.split("/"))


def _glob(text: str, numbers: Iterator[int], last: str = "[^/]*") -> str:
    """The expression of a segment; that of its ``last`` star is fastest where the end is fixed."""
    first, *others = text.split("*")
    parts = [_literal(first)]
    for number, other in enumerate(others, 1):
        if number == len(others):
            parts.append(last + _literal(other))
        else:
            parts.append(_once("[^/]*?" + _literal(other), numbers))
    return "".join(parts)


def _literal(text: str) -> str:
    # By name: a group's number would swallow a digit that follows.
    return "(?P=user)".join(re.escape(part) for part in text.split(_USER))


def _once(expression: str, numbers: Iterator[int]) -> str:
    """An expression that is never matched in another way than the first.

    What comes before another star, and ends as early as it can, leaves that star every choice; to
    try the later ends, too, lets a long name cost seconds. Atomic groups came with Python 3.11.
    """
    name = f"once{next(numbers)}"
    return f"(?=(?P<{name}>{expression}))(?P={name})"


def tag_patterns(patterns: Iterable[str]) -> Fits:
    """A test for tags that fit one of some patterns, in which ``*`` stands for any characters.

    :raises ValueError: with the cure.
    """
    expressions = []
    numbers = itertools.count()
    for pattern in patterns:
        if not _TAG_PIECE.fullmatch(pattern):
            raise ValueError(f"{pattern!r}: write tags, with * for any characters, such as v*")
        expressions.append(_glob(re.sub(r"\*+", "*", pattern), numbers))
    return re.compile("|".join(expressions)).fullmatch

"""The TOML file: its keys with the lines on which they stand, and the rules per repository.

Python's TOML reader tells no lines, and an error or a denial without one is hard to use. They are
found by looking at the text for what can only be a key or a table's head; where that gives another
picture than the reader's, no lines are told.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, TypeVar

from regguard.access import Rule, Who
from regguard.access.matching import check_pattern, tag_patterns

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

REPOSITORY = "repository"

_WHOS = ("pull", "push", "delete")
_RULE_KEYS = ("match", *_WHOS, "immutable", "hide")

_STRING_OR_COMMENT = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*",
    re.DOTALL,
)
_RULE_HEAD = re.compile(r"\s*\[\[\s*repository\s*\]\]\s*")
_ANY_HEAD = re.compile(r"\s*\[.*\]\s*")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*[=.]")
_AT_LINE = re.compile(r"\(at line ([0-9]+), column [0-9]+\)\Z")
_BRACKET = re.compile(r"[\[\]{}]")


class Configuration:
    """A TOML file taken apart.

    :raises ValueError: with file, line where it is known, and what is wrong.
    """

    def __init__(self, data: bytes, path: str) -> None:
        self.path = path
        try:
            text = data.decode("utf-8")
            self.table: dict[str, Any] = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            # Not only of the reader's own kind: of numbers with thousands of digits, and of
            # arrays within arrays without end, Python itself complains.
            line = _line_of(error, data)
            where = path if line is None else f"{path}:{line}"
            raise ValueError(f"{where}: is no TOML: {error}") from None
        rules = self.table.get(REPOSITORY, [])
        self._keys, self._rules = _lines(text)
        if not isinstance(rules, list) or len(self._rules) != len(rules):
            self._rules = []

    def place(self, key: str) -> str:
        """Where a key of the top level stands: ``FILE:LINE``, or the file alone."""
        return self._at(self._keys.get(key))

    def _at(self, line: int | None) -> str:
        return self.path if line is None else f"{self.path}:{line}"

    def rules(self, elsewhere: Collection[str] = ()) -> tuple[Rule, ...]:
        """The ``[[repository]]`` tables in their order.

        :param elsewhere: the keys of the top level, which often end up in a rule by mistake.
        :raises ValueError: with file, line and cure.
        """
        tables = self.table.get(REPOSITORY, [])
        if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
            raise ValueError(
                f"{self.place(REPOSITORY)}: {REPOSITORY}: write each rule below a line of its own, "
                f"[[{REPOSITORY}]]"
            )
        rules = []
        places: dict[str, str] = {}
        for number, table in enumerate(tables):
            lines = self._rules[number] if self._rules else {}
            said = {key: self._at(lines.get(key, lines.get(""))) for key in ("", *table)}
            rule = _rule(table, said, elsewhere)
            for pattern in rule.match:
                for earlier in (pattern, "**"):
                    if earlier in places:
                        _fail(
                            said["match"],
                            "match",
                            f"{pattern!r} never decides, because {earlier!r} in {places[earlier]} "
                            "comes first; take it out, or change the order",
                        )
            places.update(dict.fromkeys(rule.match, said["match"]))
            rules.append(rule)
        return tuple(rules)


def known(key: str, keys: Collection[str], place: str) -> None:
    """Raise ValueError, with the cure, unless a key is one of some."""
    if key not in keys:
        near = difflib.get_close_matches(key, keys, 1)
        cure = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(keys))}"
        _fail(place, key if key.isprintable() else repr(key), f"unknown key; {cure}")


def strings(value: Any) -> list[str]:
    """The values of a key that takes one string or several; raises ValueError with the cure."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, str) for each in values):
        raise ValueError("takes a string or a list of strings, not an empty one")
    return values


def who(value: str) -> Who:
    """The users that a key names; raises ValueError with the cure."""
    parsed = Who.parse(value)
    if len(parsed.text.splitlines()) > 1:
        raise ValueError("a name of two lines; is there a comma missing?")
    return parsed


def switch(value: Any) -> bool:
    """The value of a key that takes true or false; raises ValueError with the cure."""
    if not isinstance(value, bool):
        raise ValueError("takes true or false")
    return value


def text(value: Any) -> str:
    """The value of a key that takes one string; raises ValueError with the cure."""
    if not isinstance(value, str):
        raise ValueError("takes a string")
    return value


def _rule(table: dict[str, Any], said: dict[str, str], elsewhere: Collection[str]) -> Rule:
    for key in table:
        if key in elsewhere and key not in _RULE_KEYS:
            cure = f"move it above the first [[{REPOSITORY}]]"
            _fail(said[key], key, f"holds for all repositories; {cure}")
        known(key, _RULE_KEYS, said[key])
    if "match" not in table:
        _fail(said[""], REPOSITORY, 'no match; say which repositories: match = ["team-a/**"]')

    def read(key: str, conversion: Callable[[Any], T]) -> T | None:
        if key not in table:
            return None
        try:
            return conversion(table[key])
        except ValueError as error:
            _fail(said[key], key, str(error))

    return Rule(
        match=read("match", _patterns) or (),
        pull=read("pull", _who),
        push=read("push", _who),
        delete=read("delete", _who),
        immutable=read("immutable", _tags) or (),
        hide=read("hide", switch),
        said=said,
    )


def _fail(place: str, key: str, why: str) -> NoReturn:
    raise ValueError(f"{place}: {key}: {why}")


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = strings(value)
    for pattern in patterns:
        check_pattern(pattern)
    return tuple(dict.fromkeys(patterns))


def _tags(value: Any) -> tuple[str, ...]:
    patterns = strings(value)
    tag_patterns(patterns)
    return tuple(patterns)


def _who(value: Any) -> Who:
    return who(text(value))


def _line_of(error: Exception, data: bytes) -> int | None:
    """The line at which reading ended; the reader tells it in words only before Python 3.14."""
    if isinstance(error, UnicodeDecodeError):
        return data.count(b"\n", 0, error.start) + 1
    found = _AT_LINE.search(str(error))
    return int(found[1]) if found else None


def _lines(text: str) -> tuple[dict[str, int], Sequence[dict[str, int]]]:
    """The lines of the top level's keys, and those of each rule; its head's has the key ""."""
    bare = _STRING_OR_COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)
    top: dict[str, int] = {}
    rules: list[dict[str, int]] = []
    section: dict[str, int] = top
    # How many arrays and inline tables are open: what they hold only looks like keys and heads.
    depth = 0
    for number, line in enumerate(bare.split("\n"), 1):
        within = depth > 0
        for bracket in _BRACKET.findall(line):
            depth += 1 if bracket in "[{" else -1
        if within:
            continue
        if _RULE_HEAD.fullmatch(line):
            section = {"": number}
            rules.append(section)
            top.setdefault(REPOSITORY, number)
        elif _ANY_HEAD.fullmatch(line):
            # Anything else is an unknown key of the top level, or one of a rule's.
            section = {}
            top.setdefault(line.strip(" \t\r[]").split(".")[0].strip(), number)
        elif found := _KEY.match(line):
            section.setdefault(found[1], number)
    return top, rules

"""How registries list their catalog: the names of one page, and whether there is another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

Page = tuple[list[str], bool]
Listing = Callable[[int, str], Page]


def by_segment(name: str) -> str:
    """The order of distribution's ``last``."""
    return name.replace("/", "\0")


class Distribution:
    """What registry 2.8.2 does; ``tests/e2e/test_catalog.py`` holds the real one to it."""

    def __init__(self, names: Iterable[str]) -> None:
        # Its walk meets the folders of one level in order, "_layers" of the level above among them.
        self.names = sorted(names, key=lambda name: [*name.split("/"), "_layers"])

    def __call__(self, size: int, last: str) -> Page:
        behind = [name for name in self.names if by_segment(name) > by_segment(last)]
        page = behind[:size]
        # A full page ends the walk at the next folder, unless "_layers" of another repository
        # comes first: then one is found too many, which nobody looks for, and no Link is sent.
        found_too_many = len(behind) > size and page[-1].startswith(behind[size] + "/")
        return page, len(behind) > size and not found_too_many


class Lexical:
    """A registry that keeps the order of octets, as a database does."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)

    def __call__(self, size: int, last: str) -> Page:
        begin = bisect_right(self._names, last)
        return self._names[begin : begin + size], len(self._names) > begin + size


#: In the order in which registry 2.8.2 lists them.
AWKWARD = [
    "a/0x/1",
    "a/0x",
    "a/0x/z",
    "a/0x-y",
    "a",
    "a/b",
    "a-b",
    "a.b/c",
    "a0",
    "a_b",
    "b/1",
    "b",
]

"""The map of the house in ``regguard/__init__.py``, against what the rooms import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import regguard

HOUSE = Path(regguard.__file__).parent


def rooms() -> dict[str, set[str]]:
    """What the map lets each room import."""
    assert regguard.__doc__ is not None
    parts = re.split(r"^(=+ +=+ +=+)$", regguard.__doc__, flags=re.MULTILINE)
    edge, body = parts[1], parts[4]
    third = edge.rindex(" ") + 1
    found: dict[str, set[str]] = {}
    room = ""
    for line in body.splitlines():
        if named := re.match(r"``(\w+)``", line):
            room = named[1]
            found[room] = set()
        if room:
            found[room] |= set(re.findall(r"\w+", line[third:])) - {"nothing"}
    everything = set(found)
    return {name: everything - {name} if may == {"all"} else may for name, may in found.items()}


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, file
            yield from (f"{node.module}.{name.name}" for name in node.names)


def modules(room: str) -> set[str]:
    """What a room imports, dotted."""
    files = (HOUSE / room).rglob("*.py") if (HOUSE / room).is_dir() else [HOUSE / f"{room}.py"]
    return {name for file in files for name in imports(file)}


ROOMS = rooms()


def neighbours(room: str) -> set[str]:
    """The rooms that a room imports."""
    ours = {name.split(".")[1] for name in modules(room) if name.startswith("regguard.")}
    return {each for each in ours if each in ROOMS and each != room}


def test_every_room_is_on_the_map() -> None:
    """And no other one."""
    files = {each.stem for each in HOUSE.glob("*.py")}
    folders = {each.parent.name for each in HOUSE.glob("*/__init__.py")}

    assert set(ROOMS) == (files | folders) - {"__init__"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_the_map_says(room: str) -> None:
    """No more; and no less, but for the one that may all."""
    found = neighbours(room)

    assert found == ROOMS[room] or (room == "service" and found < ROOMS[room])


@pytest.mark.parametrize("room", ["access", "answers", "dn", "http1"])
def test_a_pure_room_knows_no_twisted(room: str) -> None:
    """Octets and words in, octets and words out."""
    assert not {name for name in modules(room) if name.split(".")[0] in ("twisted", "zope")}


def test_no_room_imports_itself_by_way_of_another() -> None:
    """There are no cycles."""
    left = {room: neighbours(room) for room in ROOMS}
    while left:
        free = {room for room, others in left.items() if not others & left.keys()}
        assert free, left
        for room in free:
            del left[room]

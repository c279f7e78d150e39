"""A guard with immutable tags, and the questions that it asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.guard.questions import Questions
from tests.guard.tags.immutable import POLICY, check_no_turns
from tests.guard.world import Guarded


@pytest.fixture
def guarded(logged: list[Any]) -> Iterator[Guarded]:
    """A guard with immutable tags below team/; in the end it is nobody's turn."""
    guarded = Guarded(POLICY)
    yield guarded
    check_no_turns(guarded)
    guarded.world.close()


@pytest.fixture
def questions(guarded: Guarded) -> Questions:
    return Questions(guarded)

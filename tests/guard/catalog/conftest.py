"""A guard whose reader may pull some repositories."""

from __future__ import annotations

import pytest

from tests.guard.catalog.door import SOME
from tests.guard.world import Guarded


@pytest.fixture
def guarded(guarded: Guarded) -> Guarded:
    """A reader who may pull what is below ``open``, and ``mine``."""
    guarded.guard.policy = SOME
    return guarded

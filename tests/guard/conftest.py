"""A guard before a registry in memory, with an authenticator that does as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.guard.world import Guarded
from tests.relay.conftest import log_lines, logged

__all__ = ["guarded", "log_lines", "logged"]


@pytest.fixture
def guarded(logged: list[Any]) -> Iterator[Guarded]:
    """Closed in the end, and with nothing left then."""
    guarded = Guarded()
    yield guarded
    guarded.world.close()

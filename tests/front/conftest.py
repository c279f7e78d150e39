"""The door that the tests of this folder knock at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.front.wire import Door


@pytest.fixture
def door() -> Iterator[Door]:
    """A door that is checked for leftovers when the test is over."""
    opened = Door()
    yield opened
    opened.check_and_close()

"""What a connection that is gone leaves in memory."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from regguard.transport import tls_of
from tests.front.test_handshakes import SecuredDoor
from tests.front.tls import client_context


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Python's collector rests: what is freed, nothing else holds."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("aborted", [False, True], ids=["closed", "aborted"])
@pytest.mark.usefixtures("uncollected")
def test_a_connection_that_is_gone_is_freed_at_once(tmp_path: Path, aborted: bool) -> None:
    """OpenSSL's part is 22 kB, of which the collector knows nothing: it would let thousands lie."""
    secured = SecuredDoor(tmp_path)
    door = secured.door
    with secured.connect() as client:
        tls = SSL.Connection(client_context(), client)
        tls.set_connect_state()
        for _ in range(5):
            with contextlib.suppress(SSL.WantReadError):
                tls.do_handshake()
            secured.turn()
        tls.send(b"GET /now HTTP/1.1\r\nHost: registry.example\r\n\r\n")
        secured.turn()
        assert tls.recv(1000).startswith(b"HTTP/1.1 200 ")
        left = _references(door.site.channels)
        if aborted:
            next(iter(door.site.channels)).abort()
    # The door's own notes of the request.
    door.script.seen.clear()
    door.logged.clear()
    secured.turn()

    assert not door.site.channels
    assert [each() for each in left] == [None, None, None]
    door.site.stop()


def _references(channels: Any) -> list[weakref.ref[Any]]:
    [channel] = channels
    parts = (channel, channel.transport, tls_of(channel.transport))
    return [weakref.ref(each) for each in parts]

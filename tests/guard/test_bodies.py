"""A body that has gone to the registry is gone: who asks again asks without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from regguard.access import Policy, Rule, Who
from tests.guard.world import Guarded, request
from tests.relay.world import OK, read_request

MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
BODY = b"GET /v2/b/tags/list HTTP/1.1\r\nHost: r.example\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture
def guarded(logged: list[Any]) -> Iterator[Guarded]:
    """Some repositories are hidden from readers, so a 404 is looked into."""
    guarded = Guarded(Policy(rules=[Rule(("secret/**",), pull=Who.parse("user:x"), hide=True)]))
    yield guarded
    guarded.world.close()


@pytest.mark.parametrize(
    "octets",
    [
        request(b"GET", b"/v2/a/manifests/none", body=BODY),
        request(b"GET", b"/v2/a/manifests/none", CHUNKED)
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    ],
)
def test_a22_a_get_with_a_body_that_is_asked_again_owes_the_registry_nothing(
    guarded: Guarded, octets: bytes
) -> None:
    """The next request over a kept-alive connection is never taken for the body before it.

    A reader could otherwise have had the next user's head swallowed: the second GET promised a
    body that had gone with the first, and its connection was kept.
    """
    client = guarded.world.client()
    client.send(octets)
    registry = guarded.registry.last
    assert read_request(registry.take()).body == BODY
    registry.send(MISSING)
    assert read_request(registry.take()).target == b"/v2/a/tags/list?n=1"
    registry.send(OK)  # the repository is there, and not the tag

    again = guarded.registry.last
    asked = read_request(again.take())

    assert (asked.target, asked.body, asked.whole) == (b"/v2/a/manifests/none", b"", True)
    assert asked.all(b"content-length") in ([], [b"0"])
    assert asked.all(b"transfer-encoding") == []
    again.send(MISSING)
    assert client.take().startswith(b"HTTP/1.1 404 ")

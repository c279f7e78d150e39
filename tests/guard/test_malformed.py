"""A35: the table of ``tests.malformed`` through guard and relay, cut wherever a network may cut.

``tests/e2e/test_wire_strictness.py`` sends the same table through real sockets.
"""

from __future__ import annotations

import pytest

from tests.guard.world import Guarded, credential
from tests.malformed import (
    AUTHORIZATION,
    BROKEN,
    ELSEWHERE,
    LONG,
    MALFORMED,
    NEXT,
    Broken,
    Elsewhere,
    Malformed,
)
from tests.relay.world import OK, Peer, read_answers


def as_writer(octets: bytes) -> bytes:
    """With the credential of who may push."""
    return octets.replace(AUTHORIZATION, credential("writer"))


def octet_by_octet(octets: bytes) -> list[bytes]:
    """A segment for each octet."""
    return [octets[at : at + 1] for at in range(len(octets))]


def check_refused(guarded: Guarded, client: Peer, statuses: tuple[int, ...]) -> None:
    """One answer, the end, and not one octet for the registry."""
    octets = client.take()
    [answer] = read_answers(octets, ended=True)
    assert answer.whole
    assert octets.endswith(answer.body)
    assert answer.status in statuses
    assert answer[b"connection"] == b"close"
    assert client.was_ended
    assert not guarded.registry.connections
    client.end()
    assert not client.socket.open


@pytest.mark.parametrize("case", [*MALFORMED, *LONG], ids=lambda case: case.name)
def test_a35_a_malformed_request_is_refused_octet_by_octet(
    guarded: Guarded, case: Malformed
) -> None:
    """The answer is the same, whatever follows."""
    client = guarded.world.client()
    client.send(*octet_by_octet(as_writer(case.octets + NEXT)))

    check_refused(guarded, client, case.statuses)
    assert len(guarded.world.ended) == 1


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_a35_a_malformed_request_is_refused_at_every_cut(guarded: Guarded, case: Malformed) -> None:
    """In two segments, the second with a good request behind it."""
    octets = as_writer(case.octets)
    cuts = range(1, len(octets)) if len(octets) < 1000 else range(1, len(octets), 100)
    for cut in cuts:
        client = guarded.world.client()
        client.send(octets[:cut], octets[cut:] + as_writer(NEXT))
        # Of two faults, a cut may decide which one is seen first.
        check_refused(guarded, client, case.statuses)
    assert len(guarded.world.ended) == len(cuts)


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("case", ELSEWHERE, ids=lambda case: case.name)
def test_a35_what_is_answered_here_is_one_request(
    guarded: Guarded, case: Elsewhere, in_pieces: bool
) -> None:
    """It gets its own answer, the request behind it gets its own, and only that one goes on."""
    client = guarded.world.client()
    octets = as_writer(case.octets + NEXT)
    client.send(*(octet_by_octet(octets) if in_pieces else [octets]))
    [registry] = guarded.registry.connections
    asked = registry.take()
    registry.send(OK)

    method = case.octets.partition(b" ")[0]
    first, second = read_answers(client.take(), method, b"GET", ended=True)
    assert (first.status, second.status, second.body) == (case.status, 200, b"ok")
    assert asked.startswith(b"GET /v2/secret/repo/manifests/v1 HTTP/1.1\r\n")
    assert asked.count(b"HTTP/1.1\r\n") == 1


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a35_a_broken_body_breaks_both_sides_at_every_cut(guarded: Guarded, case: Broken) -> None:
    """The client hears 400; the registry sees a reset and no last chunk."""
    octets = as_writer(case.octets)
    start = octets.index(b"\r\n\r\n") + 4
    pieces = [
        [octets[:cut], octets[cut:]] for cut in range(start, min(len(octets), start + 60))
    ] + [[octets[:start], *octet_by_octet(octets[start:])]]
    for parts in pieces:
        client = guarded.world.client()
        client.send(*parts[:-1], parts[-1] + as_writer(NEXT))
        octets_back = client.take()
        [answer] = read_answers(octets_back, b"PATCH", ended=True)
        assert answer.status == 400
        assert octets_back.endswith(answer.body)
        assert client.was_ended
        registry = guarded.registry.last
        assert registry.was_reset
        assert not registry.received.endswith(b"0\r\n\r\n")
        assert b"secret" not in registry.take()
        client.end()

"""Users by certificate: who is asked for no password, and whose password decides all the same."""

from __future__ import annotations

import pytest

from tests.guard.world import D, Guarded, credential, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def certified(guarded: Guarded) -> Guarded:
    """Every connection has shown a certificate of the user ci."""
    guarded.world.site.certifies = True
    guarded.world.site.certified = lambda transport: "ci"  # type: ignore[method-assign]
    return guarded


def test_g07_who_shows_a_certificate_is_asked_for_no_password(certified: Guarded) -> None:
    """The registry is told the name, and so is the log."""
    client = certified.world.client()
    client.send(request(b"GET", b"/v2/", user=None))
    registry = certified.registry.connections[0]
    assert b"x-forwarded-user: ci" in bytes(registry.received).lower()
    registry.send(OK)

    assert certified.answer_of(client, b"GET").body == b"ok"
    assert certified.authenticator.asked == []
    assert [ended.user_name for ended in certified.world.ended] == ["ci"]


@pytest.mark.parametrize(
    ("method", "target"),
    [(b"POST", b"/v2/a/blobs/uploads/"), (b"DELETE", b"/v2/a/manifests/" + D)],
)
def test_g07_a_certificate_gives_no_more_rights_than_its_user_has(
    certified: Guarded, method: bytes, target: bytes
) -> None:
    """ci is in no group here."""
    answer = certified.ask(request(method, target, user=None))
    assert answer.status == 403
    assert b"user ci" in answer.body
    assert certified.registry.connections == []


@pytest.mark.parametrize(
    "value", [credential("eve"), b"Basic !", b"Bearer x", b"", b"Basic", credential("ci")]
)
def test_g07_an_authorization_header_decides(certified: Guarded, value: bytes) -> None:
    """A wrong one is wrong, also an empty one: nobody becomes somebody else by a mistake."""
    octets = request(b"GET", b"/v2/", b"Authorization: " + value, user=None)

    assert certified.ask(octets).status == 401
    assert certified.authenticator.asked == [value]


def test_g07_a_right_password_is_another_user(certified: Guarded) -> None:
    """On a connection of ci's, reader is reader."""
    client = certified.world.client()
    client.send(request(b"GET", b"/v2/", user="reader"))

    assert b"x-forwarded-user: reader" in bytes(certified.registry.connections[0].received).lower()


def test_g07_without_a_certificate_a_password_is_asked_for(guarded: Guarded) -> None:
    """As ever; and nothing that a client can say in a header stands for one."""
    for line in (b"X-Forwarded-User: ci", b"X-SSL-Client-CN: ci", b"X-Client-Cert: ci"):
        assert guarded.ask(request(b"GET", b"/v2/", line, user=None)).status == 401

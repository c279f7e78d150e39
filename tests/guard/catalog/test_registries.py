"""The catalog of registries that do as they like."""

from __future__ import annotations

import json

import pytest

from regguard.access import Policy, Rule
from tests.guard.catalog.door import NOBODY, error_of, linked, names_of, reply
from tests.guard.world import Guarded, request
from tests.relay.world import Answer, read_request, refused


def ask(guarded: Guarded, *replies: bytes, target: bytes = b"/v2/_catalog?n=2") -> Answer:
    """The answer when the registry gives these replies, one after the other."""
    client = guarded.world.client()
    client.send(request(b"GET", target))
    for octets in replies:
        assert guarded.registry.last.take(), "nothing was asked any more"
        guarded.registry.last.send(octets)
    return guarded.answer_of(client, b"GET")


def asked(guarded: Guarded) -> bytes:
    """The target that the registry was asked for last."""
    return read_request(guarded.registry.last.take()).target


@pytest.mark.parametrize("body", [b'{"repositories":null}', b'{"repositories":[]}'])
def test_an_empty_catalog_is_an_empty_list(guarded: Guarded, body: bytes) -> None:
    """Go writes null for no names; clients get a list."""
    assert names_of(ask(guarded, reply(200, body))) == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"{}", b"7", b'"repositories"', b"<html>", b"\xff\xfe", b"\x00"),
        *(b'{"repositories":7}', b'{"repositories":{"open/a":1}}', b'{"repositories":"open/a"}'),
        *(b'{"repositories":["open/a",7]}', b'{"repositories":[["open/a"]]}'),
        *(b'{"repositories":["open/a"', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000),
    ],
    ids=range(18),
)
def test_what_is_no_catalog_is_502(guarded: Guarded, body: bytes) -> None:
    """And nothing of it is told."""
    status, code, message = error_of(ask(guarded, reply(200, body)))

    assert (status, code) == (502, "UNAVAILABLE")
    assert message == "the registry's catalog is not understood"


@pytest.mark.parametrize("status", [201, 204, 206, 301, 307, 403, 429, 500, 503])
def test_an_answer_that_is_no_page_is_502(guarded: Guarded, status: int) -> None:
    """Its body may be about anything, so it is not passed on."""
    answer = ask(guarded, reply(status, b"" if status == 204 else b'{"repositories":["secret"]}'))

    assert error_of(answer)[:2] == (502, "UNAVAILABLE")
    assert b"secret" not in answer.body


def test_a_registry_that_refuses_every_size_is_502(guarded: Guarded) -> None:
    """It is asked without a size once, and no more."""
    answer = ask(guarded, reply(400, b"{}"), reply(400, b"{}"))

    assert error_of(answer) == (502, "UNAVAILABLE", "the registry's catalog answers 400")


@pytest.mark.parametrize("status", [404, 405])
def test_a_registry_without_a_catalog_is_404(guarded: Guarded, status: int) -> None:
    """The specification of OCI has none."""
    answer = ask(guarded, reply(status, b"{}"))

    assert error_of(answer) == (404, "UNSUPPORTED", "the registry has no catalog")


def test_a_registry_that_wants_credentials_is_502(guarded: Guarded) -> None:
    """Its challenge never reaches the client, on the first page or a later one."""
    challenge = b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
    first = reply(200, b'{"repositories":["open/a"]}', '</v2/_catalog?last=open/a>; rel="next"')
    for replies in ([challenge], [first, challenge]):
        answer = ask(guarded, *replies)

        assert answer.status == 502
        assert answer.all(b"www-authenticate") == []


def test_an_answer_that_is_too_long_is_502(guarded: Guarded) -> None:
    """More than a thousand names of any length take."""
    body = b'{"repositories":["' + b"a" * 1024 * 1024 + b'"]}'

    assert error_of(ask(guarded, reply(200, body)))[0] == 502


def test_an_answer_that_breaks_off_is_502(guarded: Guarded) -> None:
    """What was there of it may be a whole page of JSON."""
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2/_catalog"))
    body = b'{"repositories":["open/a"]}'
    guarded.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + body)
    guarded.registry.last.end()

    assert guarded.answer_of(client, b"GET").status == 502


def test_a_registry_that_falls_silent_is_504(guarded: Guarded) -> None:
    """Behind the first page, too."""
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2/_catalog"))
    link = '</v2/_catalog?last=open/a>; rel="next"'
    guarded.registry.last.send(reply(200, b'{"repositories":["open/a"]}', link))
    guarded.world.reactor.pass_time(110)

    assert guarded.answer_of(client, b"GET").status == 504


def test_a_registry_that_is_away_is_502(guarded: Guarded) -> None:
    """As for any other request."""
    guarded.registry.failure = refused()

    assert guarded.ask(request(b"GET", b"/v2/_catalog")).status == 502


PAGE = b'{"repositories":["open/a","open/b"]}'


@pytest.mark.parametrize(
    "links",
    [
        ['</v2/_catalog?last=open%2Fb&n=2>; rel="next"'],
        ["</v2/_catalog?last=open/b>;rel=next"],
        ['<http://registry.internal:5000/v2/_catalog?n=2&last=open%2Fb>; rel="next"'],
        ['<https://elsewhere.example/?last=open/b>; title=x; REL="NEXT"'],
        ['<//elsewhere.example/x?last=open/b>; rel="next"; title=x'],
        ['<?last=open/b>; rel="next"'],
        ['</v2/_catalog?last=q>; rel="prev", </v2/_catalog?last=open/b>; rel="next"'],
        ['</v2/_catalog?last=q>; rel="first"', '</v2/_catalog?last=open/b>; rel="next"'],
        ['</x?last=q,r>; rel=nextish, </v2/_catalog?last=open/b>; rel="next"'],
        # No cursor that is known: behind the last name is where the next page must begin.
        ['</v2/_catalog?next_page=gAAAA&n=2>; rel="next"'],
        ['</v2/_catalog>; rel="next"'],
        ['</v2/_catalog?last=>; rel="next"'],
        ['<>; rel="next"'],
    ],
)
def test_a_link_says_where_to_go_on_and_never_whom_to_ask(
    guarded: Guarded, links: list[str]
) -> None:
    """Whatever its path and host are, the question goes to this registry's catalog."""
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2/_catalog?n=2"))
    guarded.registry.last.take()
    guarded.registry.last.send(reply(200, PAGE, *links))

    assert asked(guarded) == b"/v2/_catalog?n=1000&last=open%2Fb"
    assert len(guarded.registry.connections) == 1
    guarded.registry.last.send(reply(200, b'{"repositories":["open/c","secret"]}'))
    answer = guarded.answer_of(client, b"GET")
    assert names_of(answer) == ["open/a", "open/b"]
    assert answer[b"link"] == b'</v2/_catalog?last=open%2Fb&n=2>; rel="next"'


@pytest.mark.parametrize(
    "link", ['</v2/_catalog?last=q>; rel="prev"', "nonsense", '<a; rel="next"', "<a>; rel=nexttime"]
)
def test_a_page_without_a_link_to_the_next_is_the_last(guarded: Guarded, link: str) -> None:
    """Links to other things say nothing about that."""
    answer = ask(guarded, reply(200, PAGE, link))

    assert (names_of(answer), answer.all(b"link")) == (["open/a", "open/b"], [])


def test_an_opaque_cursor_is_followed(guarded: Guarded) -> None:
    """Within a page of ours: it is told to the registry as it is, and to nobody else."""
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2/_catalog?n=2"))
    guarded.registry.last.take()
    link = '</v2/_catalog?last=%00a%22%3E%26n=9%0d%0a+b%2fc>; rel="next"'
    guarded.registry.last.send(reply(200, b'{"repositories":["secret","open/a"]}', link))

    assert asked(guarded) == b"/v2/_catalog?n=1000&last=%00a%22%3E%26n%3D9%0D%0A%20b%2Fc"
    guarded.registry.last.send(reply(200, b'{"repositories":["open/b","open/c"]}', ""))
    assert guarded.answer_of(client, b"GET")[b"link"] == (
        b'</v2/_catalog?last=open%2Fb&n=2>; rel="next"'
    )


@pytest.mark.parametrize(
    "replies",
    [
        # The same page for ever, as from a registry that does not know last.
        [linked("x", "w", "x"), linked("x", "w", "x")],
        [linked("x"), linked("x")],
        [linked("x", "w"), linked("y"), linked("x")],
        [linked("x", "w", "x"), linked("y", "x"), linked("x", "y")],
        [reply(200, b'{"repositories":[]}', '</v2/_catalog?n=2>; rel="next"')],
    ],
    ids=range(5),
)
def test_a_catalog_that_goes_round_in_circles_is_502(
    guarded: Guarded, replies: list[bytes]
) -> None:
    """At once, not after a hundred pages."""
    status, _, message = error_of(ask(guarded, *replies))

    assert status == 502
    assert message == "the registry's catalog does not go on behind a name"


def test_a_full_page_is_not_taken_for_the_last(guarded: Guarded) -> None:
    """Registry 2.8.2 forgets the link there; one that has no more says so when asked."""
    names = ["open/a", *(f"x{i}" for i in range(149))]
    full = reply(200, json.dumps({"repositories": names}).encode())
    rest = reply(200, b'{"repositories":["xopen/y","mine"]}')

    assert names_of(ask(guarded, full, rest, target=b"/v2/_catalog?n=50")) == ["open/a", "mine"]
    # One that knows neither n nor last, and has just as many, gives the same again.
    assert names_of(ask(guarded, full, full, target=b"/v2/_catalog?n=50")) == ["open/a"]
    # A page that is larger than what was asked for is all there is.
    full = reply(200, json.dumps({"repositories": [*names, "y"]}).encode())
    assert names_of(ask(guarded, full, target=b"/v2/_catalog?n=49")) == ["open/a"]


def test_a_registry_that_begins_anew_is_not_followed_for_ever(guarded: Guarded) -> None:
    """Our links must have an end, though the registry does not know ``last`` and links nothing."""
    page = reply(200, b'{"repositories":["open/a","open/b","open/c"]}')
    answer = ask(guarded, page, target=b"/v2/_catalog?n=1&last=open/b")

    assert answer.status == 502


def test_a_page_that_begins_with_the_last_name_told_does_not_repeat_it(guarded: Guarded) -> None:
    """Some count ``last`` in."""
    page = reply(200, b'{"repositories":["open/b","open/c"]}')
    answer = ask(guarded, page, target=b"/v2/_catalog?n=1&last=open/b")

    assert (names_of(answer), answer.all(b"link")) == (["open/c"], [])


def test_a_name_that_stands_on_two_pages_is_told_once(guarded: Guarded) -> None:
    """Or twice on one."""
    second = reply(200, b'{"repositories":["open/a","open/c","mine"]}')
    answer = ask(
        guarded,
        linked("open/b", "open/a", "open/a", "open/b"),
        second,
        target=b"/v2/_catalog?n=9",
    )

    assert names_of(answer) == ["open/a", "open/b", "open/c", "mine"]


@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_repository_is_not_told(guarded: Guarded, link: bool) -> None:
    """It could not be pulled, nor asked for as ``last``."""
    guarded.guard.policy = Policy(rules=[Rule(("closed",), pull=NOBODY)])
    odd = [*("", "/", "A", "a//b", "../x", "a/../b", "é", "a\r\nLink: x", "a b", "_catalog")]
    odd += ["\ud800", "a" * 256, "x" * 100_000, "a/", "/a", "host:5000/a", "<script>"]
    body = json.dumps({"repositories": [*odd, "good"]}).encode()
    links = ['</v2/_catalog?last=good>; rel="next"'] if link else []
    replies = [reply(200, body, *links), *([reply(200, b'{"repositories":["h"]}')] if link else [])]
    answer = ask(guarded, *replies, target=b"/v2/_catalog?n=1")

    assert names_of(answer) == ["good"]
    assert len(answer.all(b"link")) == link

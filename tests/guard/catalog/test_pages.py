"""The catalog of what a caller may pull: in memory, before registries of several kinds."""

from __future__ import annotations

import pytest

from regguard.access import Policy, Rule
from regguard.guard.catalog import MOST_PAGES
from tests.guard.catalog.door import (
    EVERYBODY,
    NOBODY,
    OPEN,
    Door,
    error_of,
    linked,
    names_of,
    reply,
)
from tests.guard.listings import Distribution, Lexical
from tests.guard.world import Guarded, request
from tests.relay.world import read_answers, read_request

# -- pages -----------------------------------------------------------------------------------


NAMES = ["closed/a", "mine", "open/a", "open/b", "open/c", "secret", "z"]


@pytest.mark.parametrize(
    ("query", "told", "link"),
    [
        ("", ["mine", "open/a", "open/b", "open/c"], None),
        ("?n=0", [], None),
        ("?n=1", ["mine"], b'</v2/_catalog?last=mine&n=1>; rel="next"'),
        ("?n=2", ["mine", "open/a"], b'</v2/_catalog?last=open%2Fa&n=2>; rel="next"'),
        ("?n=3", ["mine", "open/a", "open/b"], b'</v2/_catalog?last=open%2Fb&n=3>; rel="next"'),
        ("?n=4", ["mine", "open/a", "open/b", "open/c"], None),
        ("?n=1000", ["mine", "open/a", "open/b", "open/c"], None),
        ("?n=007", ["mine", "open/a", "open/b", "open/c"], None),
        ("?last=mine", ["open/a", "open/b", "open/c"], None),
        ("?n=1&last=mine", ["open/a"], b'</v2/_catalog?last=open%2Fa&n=1>; rel="next"'),
        ("?last=open%2Fb&n=1", ["open/c"], None),
        ("?last=open/b&n=1", ["open/c"], None),
        ("?last=open/c", [], None),
        ("?last=zz", [], None),
        ("?last=", ["mine", "open/a", "open/b", "open/c"], None),
        # Where a name that is hidden would be, and where none is: no difference.
        ("?last=secret", [], None),
        ("?last=secrets", [], None),
        ("?n=1&x=secret", ["mine"], b'</v2/_catalog?last=mine&n=1>; rel="next"'),
    ],
)
def test_d13_a_page_holds_what_the_caller_may_pull(
    guarded: Guarded, query: str, told: list[str], link: bytes | None
) -> None:
    """And goes on, if anything is left, behind the last name that was told."""
    answer = Door(guarded, Distribution(NAMES)).get("/v2/_catalog" + query)

    assert names_of(answer) == told
    assert answer.all(b"link") == ([] if link is None else [link])


def test_a_page_without_n_holds_a_hundred_names(guarded: Guarded) -> None:
    """Distribution's default, which then stands in the link."""
    door = Door(guarded, Distribution([f"open/x{i:03}" for i in range(150)]))
    answer = door.get("/v2/_catalog")

    assert len(names_of(answer)) == 100
    assert answer[b"link"] == b'</v2/_catalog?last=open%2Fx099&n=100>; rel="next"'


@pytest.mark.parametrize(
    "query",
    ["n=1001", "n=1000000000", "n=-1", "n=", "n=a", "n=1&n=2", "%6e=1", "n=1;last=a", "last=%00"],
)
def test_c15_a_page_that_is_none_is_refused(guarded: Guarded, query: str) -> None:
    """400, and the registry hears nothing (CVE-2023-2253)."""
    answer = Door(guarded, Distribution(NAMES)).get("/v2/_catalog?" + query)

    assert answer.status == 400
    assert guarded.registry.connections == []


def test_who_may_pull_everything_is_relayed_to_the_registry(guarded: Guarded) -> None:
    """Target and answer in their very octets."""
    guarded.guard.policy = Policy(rules=[Rule(("open/**",), push=NOBODY)])
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2/_catalog?last=%61&x=y&n=7"))
    assert read_request(guarded.registry.last.take()).target == b"/v2/_catalog?last=%61&x=y&n=7"
    body = b'{"repositories" : ["a/0","a"]}'
    guarded.registry.last.send(reply(200, body, '</v2/_catalog?n=7&last=a>; rel="next"'))
    [answer] = read_answers(client.take())

    assert (answer.status, answer.body) == (200, body)
    assert answer[b"link"] == b'</v2/_catalog?n=7&last=a>; rel="next"'


def test_who_may_pull_nothing_gets_an_empty_page_at_once(guarded: Guarded) -> None:
    """Without a question to the registry."""
    guarded.guard.policy = Policy(pull=NOBODY)
    answer = Door(guarded, Distribution(NAMES)).get("/v2/_catalog?n=1")

    assert (names_of(answer), answer.all(b"link")) == ([], [])
    assert guarded.registry.connections == []


def test_who_may_not_list_gets_403(guarded: Guarded) -> None:
    """``catalog = nobody``, whatever may be pulled."""
    guarded.guard.policy = Policy(pull=NOBODY, catalog=NOBODY, rules=[OPEN])
    status, code, message = error_of(Door(guarded, Distribution(NAMES)).get("/v2/_catalog"))

    assert (status, code) == (403, "DENIED")
    assert message.startswith("user reader may not list the catalog: catalog is open to nobody")
    assert guarded.registry.connections == []


def test_everybody_sees_what_is_his_own(guarded: Guarded) -> None:
    """Rules with ``{user}``."""
    guarded.guard.policy = Policy(
        pull=NOBODY, rules=[Rule(("home/{user}/**", "{user}"), pull=EVERYBODY)]
    )
    names = ["home/reader", "home/reader/a", "home/readers/a", "home/writer/b", "reader", "writer"]
    door = Door(guarded, Lexical(names))

    assert names_of(door.get("/v2/_catalog", "reader")) == ["home/reader/a", "reader"]
    assert names_of(door.get("/v2/_catalog", "writer")) == ["home/writer/b", "writer"]


def test_head_has_the_fields_of_get_and_no_body(guarded: Guarded) -> None:
    """RFC 9110 section 9.3.2; the registry is asked by GET, for it has no HEAD."""
    door = Door(guarded, Distribution(NAMES))
    got = door.get("/v2/_catalog?n=2")
    head = door.get("/v2/_catalog?n=2", method=b"HEAD")

    assert [h for h in head.headers if h[0] != b"date"] == [
        h for h in got.headers if h[0] != b"date"
    ]
    assert head[b"link"]
    assert head.body == b""


# -- how the registry is asked ---------------------------------------------------------------


def test_a_page_of_few_names_costs_one_question(guarded: Guarded) -> None:
    """A hundred names more, for the way to them costs the registry more than they do."""
    names = [f"closed/{i:02}" for i in range(90)] + ["open/a", "open/b"]
    door = Door(guarded, Distribution(names))

    assert names_of(door.get("/v2/_catalog?n=1")) == ["open/a"]
    assert names_of(door.get("/v2/_catalog?n=1&last=open/a")) == ["open/b"]
    assert door.asked == [b"/v2/_catalog?n=101", b"/v2/_catalog?n=101&last=open%2Fa"]


def test_what_is_hidden_is_passed_over_in_the_largest_pages(guarded: Guarded) -> None:
    """After a first page that was not enough."""
    names = [f"closed/x{i:04}" for i in range(2000)] + ["open/a"]
    door = Door(guarded, Distribution(names))

    assert names_of(door.get("/v2/_catalog?n=50")) == ["open/a"]
    assert door.asked == [
        b"/v2/_catalog?n=150",
        b"/v2/_catalog?n=1000&last=closed%2Fx0149",
        b"/v2/_catalog?n=1000&last=closed%2Fx1149",
    ]


def test_a_registry_with_smaller_pages_gives_those(guarded: Guarded) -> None:
    """Distribution's ``catalog.maxentries``: more is 400, but without n comes what it gives."""
    names = [f"open/x{i:03}" for i in range(120)] + [f"x{i:03}" for i in range(120)] + ["mine"]
    door = Door(guarded, Distribution(names), largest=50)

    assert names_of(door.get("/v2/_catalog?n=1000")) == sorted([*names[:120], "mine"])
    assert door.asked[:2] == [b"/v2/_catalog?n=1000", b"/v2/_catalog?"]
    # The last of them finds nothing more: without n, none is known to be full.
    assert len(door.asked) == 7


def test_a_long_way_through_what_is_hidden_is_bounded(guarded: Guarded) -> None:
    """503 where a hundred thousand names were none of the caller's."""
    names = [f"closed/x{i:06}" for i in range(100_001)]
    door = Door(guarded, Lexical(names))
    status, code, message = error_of(door.get("/v2/_catalog?n=1000"))

    assert (status, code) == (503, "UNAVAILABLE")
    assert message == "the registry's catalog is too long to look through"
    assert len(door.asked) == MOST_PAGES == 100


def test_a_page_is_cut_short_where_the_way_is_long(guarded: Guarded) -> None:
    """What was found is told, and the way on from there."""
    names = [f"open/x{i:03}" for i in range(150)] + [f"z{i:02}" for i in range(10)]
    door = Door(guarded, Distribution(names), largest=1)
    told = [names_of(page) for page in door.pages("/v2/_catalog?n=1000")]

    # One question is lost on n=1000, which is too much here.
    assert told == [names[: MOST_PAGES - 1], names[MOST_PAGES - 1 : 150]]


# -- in the middle ---------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [0, 1, 5])
def test_who_leaves_ends_the_questions(guarded: Guarded, pages: int) -> None:
    """The connection to the registry is cut, and nothing more is asked."""
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2/_catalog?n=9"))
    for number in range(pages):
        guarded.registry.last.send(linked(f"x{number}", f"x{number}"))
    assert len(guarded.world.relay.exchanges) == 1
    client.reset()

    assert guarded.world.relay.exchanges == set()
    assert guarded.registry.open == []
    assert len(guarded.registry.connections) == 1


def test_who_leaves_while_the_registry_is_connected_to_ends_that(guarded: Guarded) -> None:
    """Before the first question was sent."""
    guarded.registry.accepting = False
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2/_catalog"))
    client.reset()

    assert guarded.registry.cancelled == 1
    assert guarded.world.relay.exchanges == set()


def test_new_rules_hold_from_the_next_page_on(guarded: Guarded) -> None:
    """A page is the work of one policy: the one in force when it was asked for."""
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2/_catalog?n=2"))
    guarded.registry.last.send(linked("open/a", "open/a"))
    guarded.guard.policy = Policy(pull=NOBODY, rules=[Rule(("mine",), pull=EVERYBODY)])
    guarded.registry.last.send(reply(200, b'{"repositories":["open/b","mine"]}'))
    answer = guarded.answer_of(client, b"GET")

    assert names_of(answer) == ["open/a", "open/b"]
    guarded.registry.last.take()
    door = Door(guarded, Lexical(["mine", "open/a", "open/b", "open/c"]))
    assert names_of(door.get("/v2/_catalog?n=2&last=open/b")) == []
    assert names_of(door.get("/v2/_catalog?n=2")) == ["mine"]


def test_a_catalog_under_way_when_all_stops_is_503(guarded: Guarded) -> None:
    """The drain is over, and the client may come again elsewhere."""
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2/_catalog?n=2"))
    guarded.registry.last.send(linked("open/a", "open/a"))
    guarded.world.relay.stop()
    guarded.world.reactor.turn()

    assert guarded.answer_of(client, b"GET").status == 503

"""The catalog of what a caller may pull: in memory, before registries of several kinds."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regguard.access import Policy, Rule, Who
from regguard.guard.catalog import MOST_PAGES
from tests.guard.listings import AWKWARD, Distribution, Lexical, Listing, Page, by_segment
from tests.guard.world import Guarded, request
from tests.relay.world import Answer, read_answers, read_request, refused

NOBODY = Who.parse("nobody")
EVERYBODY = Who.parse("valid-user")
OPEN = Rule(("open/**",), pull=EVERYBODY)
# Only what is below open/, and the repository "mine".
SOME = Policy(pull=NOBODY, rules=[OPEN, Rule(("mine",), pull=Who.parse("user:reader"))])
LIMIT = 1000


class Door:
    """A guard before a registry that answers from a listing; what went over the wires."""

    def __init__(self, guarded: Guarded, listing: Listing, largest: int = LIMIT) -> None:
        self.guarded = guarded
        self.asked: list[bytes] = []
        self._listing = listing
        self._largest = largest
        self._client = guarded.world.client()

    def get(self, target: str, user: str = "reader", method: bytes = b"GET") -> Answer:
        """One request over the one kept connection, and the registry's part in it."""
        client = self._client
        client.send(request(method, target.encode("ascii"), user=user))
        while not client.received:
            registry = self.guarded.registry.last
            asked = read_request(registry.take())
            self.asked.append(asked.target)
            registry.send(self._reply(asked.target.decode("ascii")))
        [answer] = read_answers(client.take(), method)
        return answer

    def _reply(self, target: str) -> bytes:
        url = urlsplit(target)
        assert url.path == "/v2/_catalog"
        wanted = parse_qs(url.query)
        size = int(wanted["n"][0]) if "n" in wanted else min(100, self._largest)
        if size > self._largest:
            return reply(400, b"{}")
        page, more = self._listing(size, wanted.get("last", [""])[0])
        link = (
            f'</v2/_catalog?last={quote(page[-1], safe="")}&n={size}>; rel="next"' if more else ""
        )
        return reply(200, json.dumps({"repositories": page}).encode(), link)

    def pages(self, target: str) -> Iterator[Answer]:
        """The page, and those that the links lead to."""
        for _ in range(10_000):
            answer = self.get(target)
            assert answer.status == 200
            yield answer
            links = answer.all(b"link")
            if not links:
                return
            found = re.fullmatch(
                r'<(/v2/_catalog\?last=[^&>]+&n=\d+)>; rel="next"', links[0].decode()
            )
            assert found
            target = found[1]
        raise AssertionError("the links never end")


def reply(status: int, body: bytes, *links: str) -> bytes:
    """A registry's answer."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"Link: {link}" for link in links if link]
    return "\r\n".join([*lines, "", ""]).encode() + body


def names_of(answer: Answer) -> list[str]:
    """The repositories in a page, which is written as distribution writes it."""
    assert answer.status == 200
    assert answer.whole
    assert answer[b"content-type"] == b"application/json"
    content = json.loads(answer.body)
    assert list(content) == ["repositories"]
    assert answer.body == json.dumps(content, separators=(",", ":")).encode() + b"\n"
    names: list[str] = content["repositories"]
    return names


def error_of(answer: Answer) -> tuple[int, str, str]:
    """Status, code and message of an error."""
    [error] = json.loads(answer.body)["errors"]
    return answer.status, error["code"], error["message"]


@pytest.fixture
def guarded(guarded: Guarded) -> Guarded:
    """A reader who may pull what is below ``open``, and ``mine``."""
    guarded.guard.policy = SOME
    return guarded


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
    """502, and no Retry-After, where a hundred thousand names were none of the caller's."""
    names = [f"closed/x{i:06}" for i in range(100_001)]
    door = Door(guarded, Lexical(names))
    status, code, message = error_of(door.get("/v2/_catalog?n=1000"))

    assert (status, code) == (502, "UNAVAILABLE")
    assert message == "the registry's catalog is too long to look through"
    assert len(door.asked) == MOST_PAGES == 100


def test_a_page_is_cut_short_where_the_way_is_long(guarded: Guarded) -> None:
    """What was found is told, and the way on from there."""
    names = [f"open/x{i:03}" for i in range(150)] + [f"z{i:02}" for i in range(10)]
    door = Door(guarded, Distribution(names), largest=1)
    told = [names_of(page) for page in door.pages("/v2/_catalog?n=1000")]

    # One question is lost on n=1000, which is too much here.
    assert told == [names[: MOST_PAGES - 1], names[MOST_PAGES - 1 : 150]]


# -- every name once -------------------------------------------------------------------------


def test_distribution_is_as_it_was_seen() -> None:
    """Registry 2.8.2 loses and repeats names by itself, in just this way."""
    listing = Distribution(AWKWARD)

    assert listing(100, "") == (AWKWARD, False)
    assert listing(2, "a/0x") == (["a/0x/1", "a/0x/z"], True)
    assert listing(1, "a/0x-y") == (["a/b"], True)


@pytest.mark.parametrize("size", range(1, 14))
def test_names_that_the_registry_loses_are_told(guarded: Guarded, size: int) -> None:
    """A name stands before those below it, whatever the size of pages."""
    guarded.guard.policy = Policy(rules=[Rule(("closed",), pull=NOBODY)])
    door = Door(guarded, Distribution(AWKWARD), largest=6)
    told = [name for page in door.pages(f"/v2/_catalog?n={size}") for name in names_of(page)]

    assert told == sorted(AWKWARD, key=by_segment)


def test_a_name_behind_more_names_than_a_page_takes_stays_lost(guarded: Guarded) -> None:
    """And only that one: all others are told, and there is an end."""
    guarded.guard.policy = Policy(rules=[Rule(("closed",), pull=NOBODY)])
    names = [f"a/{i}" for i in range(10, 20)] + ["a", "b/1", "b", "c"]
    door = Door(guarded, Distribution(names), largest=5)
    told = [name for page in door.pages("/v2/_catalog?n=3") for name in names_of(page)]

    assert told == [*names[:10], "b", "b/1", "c"]


def test_a_name_behind_a_page_that_was_small_is_found_in_a_larger_one(guarded: Guarded) -> None:
    """The first question is for few names, and all of them may stand before theirs."""
    names = ["open/a", *(f"open/a/{i}" for i in range(100, 300))]
    door = Door(guarded, Distribution(names))
    pages = door.pages("/v2/_catalog?n=1")

    assert [names_of(next(pages)) for _ in range(3)] == [["open/a"], ["open/a/100"], ["open/a/101"]]
    # Behind that name nothing can be missing any more, and one question is enough again.
    assert door.asked == [
        b"/v2/_catalog?n=101",
        b"/v2/_catalog?n=1000",
        b"/v2/_catalog?n=101&last=open%2Fa",
        b"/v2/_catalog?n=101&last=open%2Fa%2F100",
    ]


def test_a_registry_that_puts_names_before_those_below_costs_no_more(guarded: Guarded) -> None:
    """No name can be missing from what stands behind it."""
    names = ["open/a", *(f"open/a/{i}" for i in range(100, 300))]
    door = Door(guarded, Lexical(names))

    assert names_of(door.get("/v2/_catalog?n=2")) == ["open/a", "open/a/100"]
    assert len(door.asked) == 1


def test_a_registry_in_the_order_of_its_walk_repeats_nothing(guarded: Guarded) -> None:
    """Distribution after 3.1 goes on behind ``a/0`` with ``a``, which was told before it."""
    walk = ["open/a/0", "open/a", "open/b"]

    def listing(size: int, last: str) -> Page:
        begin = walk.index(last) + 1 if last else 0
        return walk[begin : begin + size], len(walk) > begin + size

    door = Door(guarded, listing)
    told = [names_of(page) for page in door.pages("/v2/_catalog?n=2")]

    assert told == [["open/a", "open/a/0"], ["open/b"]]


# Few, so that many names are below others, and the faults that come of that are many, too.
WORDS = ("a", "a-b", "a.b", "0", "0a", "b")
ALL_NAMES = ["/".join(words) for depth in (1, 2, 3) for words in product(WORDS, repeat=depth)]
SEGMENTS = st.sampled_from(WORDS)
REPOSITORIES = st.sampled_from(ALL_NAMES)
# Hypothesis by itself prefers sets of very few.
SETS_OF_NAMES = st.builds(
    lambda seed, number: set(random.Random(seed).sample(ALL_NAMES, number)),
    st.integers(0, 2**32),
    st.integers(0, 100),
)
PATTERNS = st.lists(SEGMENTS | st.sampled_from(["*", "**", "{user}"]), min_size=1, max_size=3)
WHOS = st.sampled_from([None, NOBODY, EVERYBODY, Who.parse("user:reader"), Who.parse("group:x")])
RULES = st.builds(
    lambda match, pull: Rule(("/".join(match),), pull=pull), PATTERNS.filter(bool), WHOS
)
POLICIES = st.builds(
    lambda pull, rules: Policy(pull=pull, rules=rules),
    st.sampled_from([NOBODY, EVERYBODY]),
    st.lists(RULES, max_size=5),
).filter(lambda policy: policy.visible("reader", frozenset()) == "some")


def number_met_before(name: str, names: set[str]) -> int:
    """How many names distribution's walk meets below a name before itself."""
    return sum(1 for each in names if re.match(re.escape(name) + "/[0-9]", each))


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=SETS_OF_NAMES,
    policy=POLICIES,
    kind=st.sampled_from([Distribution, Lexical]),
    size=st.integers(1, 110),
    gives=st.integers(1, 110),
)
def test_d13_every_allowed_name_is_told_once_and_no_other_anywhere(
    names: set[str], policy: Policy, kind: Any, size: int, gives: int
) -> None:
    """By following the links, in order; no octet of an answer tells of a hidden name.

    The registry's largest page is any that can hold a name and what its walk meets before.
    """
    guarded = Guarded(policy)
    largest = max([gives, *(1 + number_met_before(name, names) for name in names)])
    door = Door(guarded, kind(list(names)), largest)
    allowed = {name for name in names if policy.may_pull("reader", frozenset(), name)}
    told: list[str] = []
    for answer in door.pages(f"/v2/_catalog?n={size}"):
        page = names_of(answer)
        told += page
        assert len(page) == size or not answer.all(b"link")
        octets = b" ".join([answer.body, *(b": ".join(field) for field in answer.headers)])
        words = set(re.findall(r"[a-z0-9._/-]+", octets.decode().replace("%2F", "/")))
        assert not words & {name for name in names - allowed if "/" in name}
        if answer.all(b"link"):
            assert answer[b"link"].decode() == (
                f'</v2/_catalog?last={quote(page[-1], safe="")}&n={size}>; rel="next"'
            )

    assert told == sorted(allowed, key=by_segment if kind is Distribution else None)
    guarded.world.close()


@settings(max_examples=100, deadline=None)
@given(
    hidden=st.lists(st.integers(0, 10**6), min_size=1, max_size=40, unique=True),
    shown=st.lists(st.integers(0, 10**6), max_size=40, unique=True),
    last=REPOSITORIES | st.just(""),
    size=st.integers(0, 50),
)
def test_d13_the_answer_is_the_one_without_the_hidden_names(
    hidden: list[int], shown: list[int], last: str, size: int
) -> None:
    """To the octet: nothing tells whether anything is hidden at all, or where."""
    answers = []
    seen = [f"open/x{i}" for i in shown]
    for names in (seen, seen + [f"x{i}" for i in hidden]):
        guarded = Guarded(SOME)
        answer = Door(guarded, Distribution(names)).get(f"/v2/_catalog?n={size}&last={last}")
        fields = [field for field in answer.headers if field[0] != b"date"]
        answers.append((answer.status, fields, answer.body))
        guarded.world.close()

    assert answers[0] == answers[1]


# -- registries that do as they like -----------------------------------------------------------


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


def linked(last: str, *names: str) -> bytes:
    """A page with a link to the next one."""
    body = json.dumps({"repositories": names}).encode()
    return reply(200, body, f'</v2/_catalog?last={quote(last, safe="")}>; rel="next"')


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

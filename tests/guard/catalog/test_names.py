"""The catalog tells every name that the caller may pull once, and no other."""

from __future__ import annotations

import random
import re
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regguard.access import Policy, Rule, Who
from tests.guard.catalog.door import EVERYBODY, NOBODY, SOME, Door, names_of
from tests.guard.listings import AWKWARD, Distribution, Lexical, Page, by_segment
from tests.guard.world import Guarded


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

"""regguard.access.matching: what a pattern fits, and which is the first."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regguard.access import matching
from regguard.access.matching import NO_MATCH, Matcher, check_pattern, tag_patterns
from tests.access.oracle import fits


def matched(pattern: str, repository: str, user: str = "al") -> bool:
    """Whether one pattern alone fits."""
    found = Matcher([(7, pattern)]).first(repository, user)
    assert found in (7, NO_MATCH)
    return found == 7


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        # A literal is a name, whole and to the letter.
        ("app", "app", "ap apps my-app app/x x/app"),
        ("team/app", "team/app", "team team/ap team/app/x x/team/app"),
        ("a.b", "a.b", "axb a-b ab a..b"),
        ("a-b_c", "a-b_c", "a-b-c abc"),
        # * stays in its segment, and may be nothing.
        ("*", "a app a.b", "a/b"),
        ("team/*", "team/app team/x", "team team/app/x teamevil/x team-b/x"),
        ("*/app", "a/app team/app", "app a/b/app a/apps"),
        ("*/*", "a/b", "a a/b/c"),
        ("team-*", "team-a team-a-b", "team team-a/x teama"),
        ("app*", "app apps app-1", "ap app/x my-app"),
        ("*-app", "my-app a-b-app", "app my-app/x my-apps x/my-app"),
        ("a*a", "aa aba aaa", "a ab aab"),
        ("a*b*c", "abc axbxc abbcc", "ac acb ab/c"),
        ("v*.x", "v1.x v.x", "v1-x vx"),
        ("team/*/app", "team/a/app", "team/app team/a/b/app"),
        # ** crosses slashes.
        ("**", "a a/b a/b/c", ""),
        ("team/**", "team/a team/a/b", "team teamevil/x a/team/x teams"),
        ("team**", "team teams team/a teamevil/x", "a/team tea"),
        ("**/app", "app a/app a/b/app", "apps my-app a/my-app app/x"),
        ("**app", "app my-app a/my-app a/app", "apps app/x"),
        ("a/**/b", "a/b a/x/b a/x/y/b", "a ab a/xb a/x/yb b a/b/c"),
        ("a**b", "ab a/b axb a/x/yb", "a b aba xab"),
        ("a**/b", "a/b ax/b a/x/b", "ab axb b"),
        ("a/**b", "a/b a/xb a/x/b a/x/yb", "ab a/bx"),
        ("**/a/**", "a/x x/a/y x/y/a/z/w", "a x/a xa/y"),
        ("**/**", "a a/b a/b/c", ""),
        ("a/**/**", "a/b a/b/c", "a ab"),
        ("**/a/**/b/**", "a/b/x a/y/b/x y/a/b/x y/a/y/b/x/x", "a/b b/a/x a/xb/x"),
        ("**/**/app", "app a/app a/b/app", "apps a/my-app"),
        ("a/**/**/b", "a/b a/x/b a/x/y/b", "ab a/xb"),
        # What fits early leaves the rest to what comes behind.
        ("**/a/**/x/**/b", "a/x/a/b a/x/b q/a/q/x/q/b a/a/x/x/b", "x/a/b a/b/x a/xx/b"),
        ("**a*b**c", "abc abac aab/abc a/ab/c xaxbxxc", "ac acb a/bc"),
        ("**a/*b*c/**d", "a/bc/d a/a/bc/d a/xbcxc/a/bc/d", "a/bc a/b/c/d a/cb/d"),
        ("**/*-x/**", "a-x/b q/a-x/b/c", "a-x ax/b q/a-x"),
        ("*/**", "a/b a/b/c", "a"),
        ("**/*", "a a/b", ""),
        # {user} is one name, wherever it stands.
        ("{user}", "al", "a all al/x x/al bob"),
        ("{user}/**", "al/x al/x/y", "al all/x x/al bob/x"),
        ("home/{user}/*", "home/al/x", "home/al home/bob/x home/al/x/y home/alx/y"),
        ("{user}-*", "al-x al-x-y", "al alx al-x/y bob-x"),
        ("**/{user}", "al a/al a/b/al", "xal al/x a/xal"),
        ("x-{user}/**", "x-al/a", "x-al x-bob/a x-ala/a"),
        ("{user}/{user}-{user}", "al/al-al", "al/al-bob bob/bob-bob al/al"),
        ("{user}**", "al al/x alx al/x/y", "bob x/al"),
        # The digit belongs to the name, and not to a number of a group.
        ("{user}1", "al1", "al al11 a1 al2"),
        ("{user}101/**", "al101/x", "h1/x al101 al1/x"),
        ("**/{user}0", "al0 x/al0", "al x/al"),
    ],
)  # fmt: skip
def test_d18_a_pattern_fits_the_whole_name(pattern: str, fitting: str, others: str) -> None:
    """Each pattern fits what its words say, from end to end, and nothing that resembles it."""
    for repository in fitting.split():
        assert fits(pattern, repository, "al")
        assert matched(pattern, repository)
    for repository in others.split():
        assert not fits(pattern, repository, "al")
        assert not matched(pattern, repository)


@pytest.mark.parametrize(
    "user",
    ["../x", "a*", "**", "*", "a/b", "..", "Alice", "ALICE", "alice2", "[a-z]+", ".*",
     "a|alice", "(alice)", "alice$", "^alice", "\\w+", "\\1", "(?i)ALICE", "{user}", "alice\n",
     "alice/", "/alice", "alice/x", "\x00", "\n", " alice", "älice"],
)  # fmt: skip
@pytest.mark.parametrize(
    "pattern", ["{user}/**", "{user}/x", "**/{user}/x", "{user}**x", "{user}*/x", "a/**/{user}/x"]
)
def test_d18_a_user_owns_only_what_bears_the_very_name(pattern: str, user: str) -> None:
    """No name acts as a pattern, as a path, or in another case."""
    for repository in ("alice/x", "a/alice/x", "a/x", "x", "b/x"):
        assert not matched(pattern, repository, user)


@pytest.mark.parametrize("user", ["alice/private", "a/b", "/", "a/", "/a"])
def test_d18_a_name_with_a_slash_fits_nowhere(user: str) -> None:
    """It would own what lies in the namespace of the name before its slash."""
    for pattern in ("{user}", "{user}/x", "{user}/**", "**/{user}", "**{user}**", "{user}-*/**"):
        for repository in (user.strip("/") or "x", f"{user.strip('/')}/x", f"{user}-a/x"):
            assert not matched(pattern, repository.strip("/"), user)


def test_d18_a_name_with_a_line_break_brings_no_pattern_of_its_own() -> None:
    """The user's name cannot reach into the part that is matched."""
    for pattern in ("{user}-*", "{user}*", "**/{user}-*", "x{user}*/**"):
        for user in ("x\nx-", "x\n", "\nx", "x\nxx\n"):
            assert not matched(pattern, "whatever", user)
            assert not matched(pattern, "whatever/a", user)


def test_d18_a_dot_in_a_name_is_a_dot() -> None:
    """``.`` as a user stands for itself."""
    assert matched("a{user}b", "a.b", ".")
    assert not matched("a{user}b", "acb", ".")
    assert matched("{user}/x", "j.doe/x", "j.doe")
    assert not matched("{user}/x", "jxdoe/x", "j.doe")
    assert matched("{user}-ci", "j.doe-ci", "j.doe")
    assert not matched("{user}-ci", "jxdoe-ci", "j.doe")


def test_d18_what_fits_no_pattern_is_told_apart() -> None:
    """No pattern and no fitting pattern are the same answer, which is no rule's number."""
    assert Matcher([]).first("a/b", "al") == NO_MATCH
    assert Matcher([(0, "team/*")]).first("teamevil/x", "al") == NO_MATCH


@pytest.mark.parametrize(
    "patterns",
    [
        ["**", "team/*", "team/app", "{user}/app", "**/app", "t*/app", "*/*"],
        ["team/app", "**"],
        ["*/app", "team/**", "team/app"],
    ],
)
def test_the_first_that_fits_is_not_the_narrowest(patterns: list[str]) -> None:
    """Only the order decides, whatever kinds of patterns compete."""
    for turn in range(len(patterns)):
        turned = patterns[turn:] + patterns[:turn]

        assert Matcher(enumerate(turned)).first("team/app", "team") == 0


def test_patterns_of_one_number_are_alternatives() -> None:
    """A table's match is a list; a name that stands in two tables belongs to the first."""
    matcher = Matcher([(0, "a/*"), (0, "b/**"), (1, "c"), (1, "a/x"), (2, "**")])

    assert [matcher.first(name, "al") for name in ("a/x", "b/x/y", "c", "d", "a/x/y")] == [
        0, 0, 1, 2, 2
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "cure"),
    [
        ("", "an empty pattern fits nothing; ** fits every repository"),
        ("Team/**", "'Team/**': repository names have no capital letters"),
        ("team/É", "no capital letters"),
        ("registry.example:5000/team/*", "leave out the registry's address and the tag"),
        ("https://r/team", "leave out the registry's address and the tag"),
        ("team/app:v1", "leave out the registry's address and the tag"),
        ("{group}/**", "'{group}/**': the only word in braces is {user}"),
        ("{user/x", "the only word in braces is {user}"),
        ("{USER}/x", "the only word in braces is {user}"),
        ("user}/x", "'}' stands in no repository name; patterns know *, ** and {user}"),
        ("${user}/x", "'$' stands in no repository name"),
        ("team/a?p", "'?' stands in no repository name; patterns know *, ** and {user}"),
        ("team/[ab]", "'[' stands in no repository name"),
        ("!team/*", "'!' stands in no repository name"),
        ("^team/.*$", "'^' stands in no repository name"),
        ("team/(a|b)", "'(' stands in no repository name"),
        ("team/*, b/*", "',' stands in no repository name"),
        (" team/*", "' ' stands in no repository name"),
        ("team/*\n", "'\\n' stands in no repository name"),
        ("team\\app", "'\\\\' stands in no repository name"),
        ("te%61m", "'%' stands in no repository name"),
        ("***", "write * for one segment's characters, ** for any"),
        ("team/***", "write * for one segment's characters, ** for any"),
        ("a****b", "write * for one segment's characters, ** for any"),
        ("/team/*", "'/team/*': an empty segment; write it like a repository, a/b"),
        ("team/", "an empty segment"),
        ("team//app", "an empty segment"),
        ("**//app", "an empty segment"),
        ("/", "an empty segment"),
        ("team/-app", "'team/-app': no repository can have this name"),
        ("a..b", "no repository can have this name"),
        ("a/../b", "no repository can have this name"),
        ("app.", "no repository can have this name"),
        ("a" * 256, "no repository can have this name"),
    ],
)
def test_a_pattern_said_wrongly_is_told_how(pattern: str, cure: str) -> None:
    """What could never fit, or not as meant, is an error in one line that says the cure."""
    for build in (check_pattern, lambda pattern: Matcher([(0, "ok"), (1, pattern)])):
        with pytest.raises(ValueError, match=re.escape(cure)) as caught:
            build(pattern)

        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    ["*a*a*a*a*a*a*b", "**/a/**/a/**/a/**/a/**/a/**/b", "**a**a**a**a**a**b", "**/*a*a*/**/*a*a*/b",
     "**/*a*a*a*a*a*b/**", "**{user}*{user}*{user}**{user}*{user}**b", "x**/*a/**/*a/**/*a/**/*b"],
)  # fmt: skip
def test_c13_a_long_name_does_not_confuse_a_pattern(pattern: str) -> None:
    """Names made to send a matcher back and forth are answered like any other (and at once)."""
    for unit in ("a", "a/", "aa/", "aaaa/", "xa", "x/a/"):
        name = (unit * 255)[:255].rstrip("/")

        assert not matched(pattern, name, "a")
        assert not tag_patterns(["*a*a*a*a*a*a*a*b"])(name)


# Few letters, so that much fits; digits, which a number of a group could swallow.
SEGMENTS = st.lists(
    st.sampled_from(["a", "b", "1", "01", "a.b", "-", "*", "*", "**", "{user}"]),
    min_size=1,
    max_size=4,
).map("".join)
PATTERNS = st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join)
NAMES = st.lists(
    st.lists(st.sampled_from(["a", "b", "1", "01", ".", "-"]), min_size=1, max_size=4).map("".join),
    min_size=1,
    max_size=6,
).map("/".join)
USERS = st.sampled_from(
    ["a", "b", "ab", "a-b", "1", "01", "a.b", ".", "", "a/b", "A", "a*", "*", "\\1", "\n", "a\nb"]
)


def is_pattern(pattern: str) -> bool:
    try:
        check_pattern(pattern)
    except ValueError:
        return False
    return True


@st.composite
def questions(draw: st.DrawFn, patterns: list[str]) -> tuple[str, str]:
    """A name and a user; more often than not a name that one of the patterns fits."""
    user = draw(USERS)
    name = draw(st.sampled_from([*patterns, ""]))
    name = re.sub(r"\*\*/", lambda _: draw(st.sampled_from(["", "a/", "b/1/"])), name)
    name = re.sub(r"\*\*", lambda _: draw(st.sampled_from(["", "a", "b/1"])), name)
    name = re.sub(r"\*", lambda _: draw(st.sampled_from(["", "b", "a.b"])), name)
    name = name.replace("{user}", user)
    # A repository has neither; {user} brings the one, a star for nothing the other.
    if "\n" in name or "" in name.split("/"):
        return draw(NAMES), user
    return name, user


@settings(max_examples=400, deadline=None)
@given(st.data(), st.lists(PATTERNS.filter(is_pattern), min_size=1, max_size=12))
def test_d18_the_first_is_what_a_naive_reading_finds(
    data: st.DataObject, patterns: list[str]
) -> None:
    """Tree, expressions and memory together say what trying one after the other says."""
    numbered = data.draw(st.permutations(list(enumerate(patterns))))
    matcher = Matcher(numbered)
    for name, user in data.draw(st.lists(questions(patterns), min_size=1, max_size=6)):
        least = next((i for i, p in enumerate(patterns) if fits(p, name, user)), NO_MATCH)

        assert matcher.first(name, user) == least
        assert matcher.first(name, user) == least
        assert Matcher(enumerate(patterns)).first(name, user) == least


@settings(max_examples=400, deadline=None)
@given(st.data(), PATTERNS.filter(is_pattern))
def test_d18_one_pattern_fits_what_a_naive_reading_fits(data: st.DataObject, pattern: str) -> None:
    """No other pattern hides a fault."""
    name, user = data.draw(questions([pattern]))

    assert matched(pattern, name, user) == fits(pattern, name, user)


@given(st.text(max_size=12) | PATTERNS)
def test_a_pattern_is_good_or_a_value_error(pattern: str) -> None:
    """What passes the check can be built and asked."""
    if is_pattern(pattern):
        Matcher([(0, pattern)]).first("a/b", "al")
    else:
        with pytest.raises(ValueError, match=r": |empty pattern"):
            Matcher([(0, pattern)])


def test_what_is_remembered_belongs_to_one_user() -> None:
    """Two users who ask for one repository get each their own answer, again and again."""
    matcher = Matcher([(0, "{user}/**"), (1, "**")])

    for _ in range(3):
        assert matcher.first("al/x", "al") == 0
        assert matcher.first("al/x", "bob") == 1
        assert matcher.first("bob/x", "bob") == 0


def test_remembering_is_bounded_and_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for ever new repositories fills no memory."""
    monkeypatch.setattr(matching, "_REMEMBERED", 5)
    matcher = Matcher([(0, "*-1/**"), (1, "a-*/x"), (2, "**/{user}")])
    names = [f"{word}-{number}/x" for number in range(8) for word in "ab"]
    once = {name: Matcher([(0, "*-1/**"), (1, "a-*/x")]).first(name, "al") for name in names}

    for name in names * 3 + names[::-1]:
        assert matcher.first(name, "al") == once[name]
        assert len(matcher._found) <= 5


def test_the_order_in_which_names_are_asked_does_not_matter() -> None:
    """A name that fits nothing is remembered as such and spoils nothing."""
    matcher = Matcher([(3, "a/**"), (1, "a/b/**"), (2, "a/*")])

    for _ in range(2):
        answers = [matcher.first(name, "al") for name in ("x", "a", "a/b", "a/b/c", "a/c/d")]
        assert answers == [NO_MATCH, NO_MATCH, 2, 1, 3]


@pytest.mark.parametrize(
    ("patterns", "fitting", "others"),
    [
        ("v*", "v v1 v1.0 v1-rc", "V1 1v xv1 latest"),
        ("v1.*", "v1. v1.0", "v1 v10 v1x0"),
        ("release-* v*", "release-1 v2 release-", "release xv2 prerelease-1"),
        ("*", "a A _x 1.0", ""),
        ("*-final", "a-final x.y-final", "final-a a-finals"),
        ("v*.*.*", "v1.2.3 v1.2.3.4", "v1.2 v1"),
        ("latest", "latest", "Latest latest1 late"),
        ("V*", "V1", "v1"),
        ("a**b", "ab axb", "a b"),
        ("a b* *c", "a bx xc", "ab x"),
    ],
)  # fmt: skip
def test_tag_patterns_fit_whole_tags(patterns: str, fitting: str, others: str) -> None:
    """``*`` is any characters, the rest is literal and has its case; one of them has to fit."""
    is_fitting = tag_patterns(patterns.split())

    assert [tag for tag in fitting.split() if not is_fitting(tag)] == []
    assert [tag for tag in others.split() if is_fitting(tag)] == []


@pytest.mark.parametrize(
    "pattern",
    ["", "v*,w*", "v ", "v1/x", "sha256:*", "^v.*$", "v[0-9]", "v?", "{user}", "v*\n", "é*", "v+"],
)
def test_a_tag_pattern_said_wrongly_is_told_how(pattern: str) -> None:
    """What no tag can have is an error that names the pattern and says the cure."""
    with pytest.raises(ValueError, match=r"write tags, with \* for any characters") as caught:
        tag_patterns(["ok", pattern])

    assert str(caught.value).startswith(repr(pattern))
    assert "\n" not in str(caught.value)


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", ".", "-", "*", "A"]), min_size=1, max_size=6).map(
            "".join
        ),
        min_size=1,
        max_size=4,
    ),
    st.text("abA.-", min_size=1, max_size=8),
)
def test_tag_patterns_fit_what_a_naive_reading_fits(patterns: list[str], tag: str) -> None:
    """A tag has no slash, so a star means the same as in a repository's segment."""
    naive = any(fits(re.sub(r"\*+", "*", pattern), tag, "") for pattern in patterns)

    assert bool(tag_patterns(patterns)(tag)) == naive

"""regguard.access.policy with rules: which of them decides, and under which condition."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regguard.access import (
    Access,
    Denial,
    Freeze,
    Grant,
    Policy,
    Refusal,
    Rule,
    Unchanged,
    Who,
    parse_access,
)
from tests.access.oracle import fits

D = "sha256:" + "0123456789abcdef" * 4
ID = "6f0a3a5c-1b2c-4d5e-8f90-a1b2c3d4e5f6"
NO_GROUPS: frozenset[str] = frozenset()
PUSHER = frozenset({"pusher"})
TEAM = frozenset({"team"})

who = Who.parse
NOBODY = who("nobody")
ALL = who("valid-user")


def access(line: str) -> Access:
    method, target = line.split()
    return parse_access(method.encode(), target.encode())


def denial(verdict: Grant | Denial) -> Denial:
    assert isinstance(verdict, Denial)
    return verdict


def grant(verdict: Grant | Denial) -> Grant:
    assert isinstance(verdict, Grant)
    return verdict


def may(policy: Policy, user: str, groups: frozenset[str], line: str) -> bool:
    return isinstance(policy.decide(user, groups, access(line)), Grant)


PULL = "GET /v2/team/app/manifests/v1"
PUSH = "PUT /v2/team/app/manifests/v1"
DELETE = "DELETE /v2/team/app/manifests/v1"
MOUNT = f"POST /v2/team/app/blobs/uploads/?mount={D}&from=secret/app&origin=x"


def test_the_first_table_that_fits_decides() -> None:
    """A later table, however narrow or kind, has no say."""
    strict = Rule(("team/*",), pull=NOBODY)
    kind = Rule(("team/app",), pull=ALL)

    assert not may(Policy(rules=[strict, kind]), "al", NO_GROUPS, PULL)
    assert may(Policy(rules=[kind, strict]), "al", NO_GROUPS, PULL)


def test_what_the_first_table_leaves_out_no_later_table_says() -> None:
    """An action that is left out falls back to the global word, past all other tables."""
    rules = [Rule(("team/**",), pull=who("group:team")), Rule(("**",), push=NOBODY, delete=NOBODY)]
    policy = Policy(rules=rules, said={"push": "regguard.toml:2"})

    assert may(policy, "al", PUSHER, PUSH)
    assert may(policy, "al", PUSHER, DELETE)
    assert not may(policy, "al", PUSHER, PULL)
    refused = denial(policy.decide("al", TEAM, access(PUSH)))
    assert refused.rule == "regguard.toml:2: push = group:pusher"
    assert refused.message == "user al may pull but not push team/app: push needs group:pusher"


def test_d18_what_no_table_fits_is_decided_by_the_global_words() -> None:
    """``team/`` is not ``teamevil/``, neither for more rights nor for less."""
    policy = Policy(rules=[Rule(("team/**",), pull=NOBODY, push=ALL)])

    assert may(policy, "al", NO_GROUPS, "GET /v2/teamevil/x/tags/list")
    assert not may(policy, "al", NO_GROUPS, "PUT /v2/teamevil/x/manifests/v1")
    assert may(policy, "al", NO_GROUPS, "GET /v2/team/tags/list")
    assert not may(policy, "al", NO_GROUPS, PULL)
    assert may(policy, "al", NO_GROUPS, PUSH)


def test_one_of_several_patterns_is_enough() -> None:
    """``match`` is a list of alternatives."""
    policy = Policy(rules=[Rule(("x", "{user}/**", "team/*"), pull=NOBODY)])

    assert not may(policy, "al", NO_GROUPS, "GET /v2/al/a/b/tags/list")
    assert not may(policy, "al", NO_GROUPS, PULL)
    assert may(policy, "bob", NO_GROUPS, "GET /v2/al/a/b/tags/list")


def test_login_and_catalog_are_no_rules_business() -> None:
    """``**`` fits every repository, and what is none does not become one."""
    policy = Policy(
        rules=[Rule(("**",), NOBODY, NOBODY, NOBODY, ("*",), hide=True)], catalog=who("user:al")
    )

    assert may(policy, "bob", NO_GROUPS, "GET /v2/")
    assert may(policy, "al", NO_GROUPS, "GET /v2/_catalog")
    assert not denial(policy.decide("bob", NO_GROUPS, access("GET /v2/_catalog"))).hidden


def test_a_denial_says_where_its_rule_stands() -> None:
    """The rule is the table's where the table speaks, with its file and line, word by word."""
    rule = Rule(
        ("team/**",),
        push=who("group:x"),
        delete=NOBODY,
        said={"push": "regguard.toml:14", "delete": "regguard.toml:15"},
    )
    policy = Policy(rules=[rule], said={"pull": "--pull", "push": "regguard.toml:2"})

    refused = denial(policy.decide("al", PUSHER, access(PUSH)))
    assert refused.rule == "regguard.toml:14: push = group:x"
    assert refused.message == "user al may pull but not push team/app: push needs group:x"
    refused = denial(policy.decide("al", frozenset({"x"}), access(DELETE)))
    assert refused.rule == "regguard.toml:15: delete = nobody"
    assert refused.message == (
        "user al may pull and push but not delete team/app: delete is open to nobody"
    )
    elsewhere = denial(policy.decide("al", NO_GROUPS, access("PUT /v2/b/manifests/v1")))
    assert elsewhere.rule == "regguard.toml:2: push = group:pusher"
    assert grant(policy.decide("al", NO_GROUPS, access(PULL))).rule == "--pull: pull = valid-user"
    granted = grant(policy.decide("al", frozenset({"x"}), access(PUSH)))
    assert granted.rule == "regguard.toml:14: push = group:x"


def test_where_a_word_stands_is_not_taken_from_another() -> None:
    """A place that is not known is left out."""
    policy = Policy(rules=[Rule(("**",), push=NOBODY, said={"pull": "f:1"})], said={"push": "f:2"})

    assert denial(policy.decide("al", PUSHER, access(PUSH))).rule == "push = nobody"


@pytest.mark.parametrize(
    ("everywhere", "in_table", "hidden"),
    [(False, None, False), (False, True, True), (False, False, False),
     (True, None, True), (True, False, False), (True, True, True)],
)  # fmt: skip
@pytest.mark.parametrize("line", [PULL, PUSH, DELETE, MOUNT, f"DELETE /v2/team/app/blobs/{D}"])
def test_d25_a_tables_hide_overrides_the_global_one(
    everywhere: bool, in_table: bool | None, hidden: bool, line: str
) -> None:
    """What the user may not pull is hidden, whatever the action, where hide says so."""
    policy = Policy(rules=[Rule(("team/*",), pull=NOBODY, hide=in_table)], hide=everywhere)

    assert denial(policy.decide("al", NO_GROUPS, access(line))).hidden is hidden


def test_d25_hide_hides_nothing_from_who_may_pull() -> None:
    """Who sees a repository anyway is told what is missing."""
    policy = Policy(rules=[Rule(("team/*",), pull=who("group:team"))], hide=True)

    assert not denial(policy.decide("al", TEAM, access(PUSH))).hidden
    assert denial(policy.decide("al", NO_GROUPS, access(PUSH))).hidden
    assert not denial(policy.decide("al", NO_GROUPS, access("PUT /v2/b/manifests/v1"))).hidden


def test_d25_hide_reaches_what_no_table_fits() -> None:
    """The global word holds for every repository without one of its own."""
    policy = Policy(pull=NOBODY, rules=[Rule(("team/*",), hide=False)], hide=True)

    assert denial(policy.decide("al", NO_GROUPS, access("GET /v2/b/tags/list"))).hidden
    assert not denial(policy.decide("al", NO_GROUPS, access(PULL))).hidden


@pytest.mark.parametrize(
    ("rules", "groups", "mounts"),
    [
        ([], NO_GROUPS, True),
        ([Rule(("secret/**",), pull=who("group:team"))], NO_GROUPS, False),
        ([Rule(("secret/**",), pull=who("group:team"))], TEAM, True),
        ([Rule(("secret/**",), pull=who("group:team"), hide=True)], NO_GROUPS, False),
        # The target's own table says nothing about the source.
        ([Rule(("team/**",), pull=NOBODY)], NO_GROUPS, True),
        ([Rule(("team/**",), pull=ALL), Rule(("**",), pull=NOBODY)], NO_GROUPS, False),
        # Push or delete on the source is no pull.
        ([Rule(("secret/**",), NOBODY, ALL, ALL)], NO_GROUPS, False),
        ([Rule(("secret/app",), pull=who("user:al")), Rule(("**",), pull=NOBODY)], NO_GROUPS, True),
        ([Rule(("secretive/**", "secret"), pull=NOBODY)], NO_GROUPS, True),
    ],
)
def test_d01_a_mount_is_judged_by_its_sources_own_rule(
    rules: list[Rule], groups: frozenset[str], mounts: bool
) -> None:
    """Who may not pull the source starts a plain upload, and is not told why."""
    verdict = grant(Policy(push=ALL, rules=rules).decide("al", groups, access(MOUNT)))

    asked = access(MOUNT)
    assert verdict.target == (asked.target if mounts else asked.target_without_mount)
    assert (b"mount" in verdict.target) is mounts


def test_d04_a_mount_from_the_repository_itself_needs_pull_on_it() -> None:
    """To push is not to read: a blob that is there would be found by its digest."""
    policy = Policy(push=ALL, rules=[Rule(("team/*",), pull=who("group:team"))])
    line = f"POST /v2/team/app/blobs/uploads/?mount={D}&from=team/app"

    assert b"mount" in grant(policy.decide("al", TEAM, access(line))).target
    assert grant(policy.decide("al", NO_GROUPS, access(line))).target == (
        b"/v2/team/app/blobs/uploads/"
    )


def test_d01_a_mount_into_a_forbidden_repository_is_denied_first() -> None:
    """The right to pull the source opens nothing."""
    policy = Policy(push=ALL, rules=[Rule(("team/*",), push=NOBODY)])

    assert not may(policy, "al", NO_GROUPS, MOUNT)


WRITES = [
    PUSH,
    f"PUT /v2/team/app/manifests/{D}?tag=v1",
    DELETE,
    f"DELETE /v2/team/app/manifests/{D}",
    f"DELETE /v2/team/app/blobs/{D}",
    "POST /v2/team/app/blobs/uploads/",
    MOUNT,
    *(f"{method} /v2/team/app/blobs/uploads/{ID}" for method in ("PATCH", "PUT", "GET", "DELETE")),
]
READS = [
    PULL,
    f"HEAD /v2/team/app/blobs/{D}",
    "GET /v2/team/app/tags/list",
    f"GET /v2/team/app/referrers/{D}",
    "GET /v2/_catalog",
    "GET /v2/",
]


@pytest.mark.parametrize("line", WRITES)
def test_a_freeze_stops_every_write(line: str) -> None:
    """It comes before all rights, whoever asks; an upload's cancelling is a write, too."""
    policy = Policy(
        ALL, ALL, ALL,
        rules=[Rule(("team/*",), ALL, ALL, ALL, ("v*",), hide=True)],
        freeze=Freeze("moving to new disks", "regguard.toml:1: freeze"),
    )  # fmt: skip

    found = denial(policy.decide("al", PUSHER, access(line)))

    action = access(line).action
    assert found == Denial(
        f"user al may not {action} team/app now: the registry is frozen: moving to new disks",
        "regguard.toml:1: freeze",
    )


@pytest.mark.parametrize("line", READS)
@pytest.mark.parametrize("rules", [[], [Rule(("team/*",), pull=NOBODY, immutable=("*",))]])
def test_a_freeze_touches_no_reading(line: str, rules: list[Rule]) -> None:
    """What could be read goes on to be, what could not does not, for the same reason."""
    thawed = Policy(rules=rules)
    frozen = Policy(rules=rules, freeze=Freeze("disks", "freeze"))

    assert frozen.decide("al", PUSHER, access(line)) == thawed.decide("al", PUSHER, access(line))


def test_a_freeze_comes_and_goes() -> None:
    """A file may say so while the program runs."""
    policy = Policy()

    assert may(policy, "al", PUSHER, PUSH)
    policy.freeze = Freeze("disks", "freeze")
    assert not may(policy, "al", PUSHER, PUSH)
    policy.freeze = None
    assert may(policy, "al", PUSHER, PUSH)


IMMUTABLE = Policy(
    push=ALL,
    delete=ALL,
    rules=[
        Rule(("team/*",), immutable=("v*", "release-*"), said={"immutable": "regguard.toml:9"}),
    ],
)
SAID = "regguard.toml:9: immutable = v*, release-*"


def judged(line: str) -> Grant | Denial:
    return IMMUTABLE.decide("al", NO_GROUPS, access(line))


@pytest.mark.parametrize(
    ("line", "tags"),
    [
        (PUSH, ("v1",)),
        ("PUT /v2/team/app/manifests/release-1", ("release-1",)),
        (f"PUT /v2/team/app/manifests/{D}?tag=v1", ("v1",)),
        (f"PUT /v2/team/app/manifests/{D}?tag=dev&tag=v2&tag=latest&tag=v1", ("v2", "v1")),
        (f"PUT /v2/team/app/manifests/{D}?tag=v1&tag=v1", ("v1",)),
        ("PUT /v2/team/app/manifests/dev?tag=v1", ("v1",)),
        ("PUT /v2/team/app/manifests/v1?tag=v2&tag=dev", ("v1", "v2")),
    ],
)
def test_a_push_to_immutable_tags_goes_on_if_they_do_not_change(
    line: str, tags: tuple[str, ...]
) -> None:
    """The grant names the tags that have to stand still, and none else."""
    granted = grant(judged(line))

    assert granted.target == access(line).target
    assert granted.rule == "push = valid-user"
    assert granted.unchanged is not None
    assert granted.unchanged.tags == tags
    assert granted.unchanged.deletes is None
    assert granted.unchanged.rule == SAID
    assert granted.unchanged.is_immutable("v1")
    assert not granted.unchanged.is_immutable("dev")


@pytest.mark.parametrize(
    "line",
    [
        "PUT /v2/team/app/manifests/dev",
        "PUT /v2/team/app/manifests/V1",
        "PUT /v2/team/app/manifests/xv1",
        f"PUT /v2/team/app/manifests/{D}",
        f"PUT /v2/team/app/manifests/{D}?tag=dev&tag=latest",
        "POST /v2/team/app/blobs/uploads/",
        f"DELETE /v2/team/app/blobs/uploads/{ID}",
        MOUNT,
        PULL,
        # A tag that may be moved may be taken away: its manifest stays.
        "DELETE /v2/team/app/manifests/dev",
        # Another repository.
        "PUT /v2/teamevil/app/manifests/v1",
        "DELETE /v2/b/manifests/v1",
        f"DELETE /v2/b/manifests/{D}",
        f"DELETE /v2/b/blobs/{D}",
    ],
)
def test_what_sets_no_immutable_tag_has_no_condition(line: str) -> None:
    """Nothing is asked of the registry where nothing immutable can change."""
    granted = grant(judged(line))

    assert granted.unchanged is None
    assert granted.target == access(line).target


@pytest.mark.parametrize(
    "line", [DELETE, f"DELETE /v2/team/app/manifests/{D}?tag=dev&tag=v1",
             "DELETE /v2/team/app/manifests/dev?tag=v1"],
)  # fmt: skip
def test_an_immutable_tag_is_not_deleted(line: str) -> None:
    """Not by its path, and not by a query that some registry may heed."""
    assert judged(line) == Denial(
        "user al may not delete team/app:v1: the tag is immutable", SAID
    )  # fmt: skip


@pytest.mark.parametrize("query", ["", "?tag=dev", "?x=1"])
def test_a_manifest_is_deleted_if_no_immutable_tag_stands_for_it(query: str) -> None:
    """A registry takes the tags along with the manifest; no query turns that away."""
    line = f"DELETE /v2/team/app/manifests/{D}{query}"
    granted = grant(judged(line))

    assert granted.target == access(line).target
    assert granted.rule == "delete = valid-user"
    assert granted.unchanged is not None
    assert granted.unchanged == Unchanged(SAID, granted.unchanged.is_immutable, True, (), D)
    assert granted.unchanged.is_immutable("release-2")


def test_a_blob_is_not_deleted_where_tags_are_immutable() -> None:
    """An immutable tag without its layers would be nothing."""
    assert judged(f"DELETE /v2/team/app/blobs/{D}") == Denial(
        "user al may not delete a blob of team/app: an immutable tag may need it", SAID
    )


def test_immutable_tags_give_no_right() -> None:
    """The rights come first: who may not write is told that, and nothing of tags."""
    policy = Policy(rules=[Rule(("team/*",), immutable=("v*",))])

    for line, rule in ((PUSH, "push"), (DELETE, "delete"), (f"DELETE /v2/team/app/blobs/{D}", "")):
        found = denial(policy.decide("al", NO_GROUPS, access(line)))
        assert found.rule == f"{rule or 'delete'} = group:pusher"


def test_immutable_tags_of_a_mount_are_none() -> None:
    """A mount that loses its source under tag rules loses it all the same."""
    rules = [Rule(("secret/*",), pull=NOBODY), Rule(("team/*",), immutable=("*",))]

    verdict = grant(Policy(push=ALL, rules=rules).decide("al", NO_GROUPS, access(MOUNT)))

    assert verdict.target == access(MOUNT).target_without_mount


@pytest.mark.parametrize(
    ("pull", "rules", "groups", "visible"),
    [
        (ALL, [], NO_GROUPS, "all"),
        (NOBODY, [], NO_GROUPS, "none"),
        (who("group:team"), [], TEAM, "all"),
        (who("group:team"), [], PUSHER, "none"),
        (ALL, [Rule(("a",), push=NOBODY)], NO_GROUPS, "all"),
        (ALL, [Rule(("a",), pull=who("group:team"))], NO_GROUPS, "some"),
        (ALL, [Rule(("a",), pull=who("group:team"))], TEAM, "all"),
        (NOBODY, [Rule(("a",), pull=who("group:team"))], NO_GROUPS, "none"),
        (NOBODY, [Rule(("a",), pull=who("group:team"))], TEAM, "some"),
        (NOBODY, [Rule(("a",), push=ALL)], TEAM, "none"),
    ],
)
def test_d13_how_much_of_a_catalog_is_visible(
    pull: Who, rules: list[Rule], groups: frozenset[str], visible: str
) -> None:
    """Only where the answer is ``some`` do names have to be looked at."""
    assert Policy(pull=pull, rules=rules).visible("al", groups) == visible


def test_d13_who_may_pull_is_asked_by_name() -> None:
    """The catalog shows what the pull would give, whether there is such a repository or not."""
    policy = Policy(
        pull=NOBODY, rules=[Rule(("{user}/**",), pull=ALL), Rule(("team/*",), who("group:team"))]
    )

    names = ("al/x", "bob/x", "team/app", "teamevil/x", "al")
    assert [policy.may_pull("al", NO_GROUPS, name) for name in names] == [
        True, False, False, False, False
    ]  # fmt: skip
    assert [policy.may_pull("bob", TEAM, name) for name in names] == [
        False, True, True, False, False
    ]  # fmt: skip


def test_a_bad_pattern_in_a_rule_is_a_value_error() -> None:
    """A policy that cannot be meant is not built."""
    with pytest.raises(ValueError, match="no capital letters"):
        Policy(rules=[Rule(("Team/**",))])
    with pytest.raises(ValueError, match="write tags"):
        Policy(rules=[Rule(("team/**",), immutable=("v1:2",))])


# The reference: the words of the documentation, one after the other, on plain texts.

USERS = ("al", "bob", "x")
GROUPS = ("pusher", "team")
WHOS = ("valid-user", "nobody", "user:al", "group:team", "user:bob, group:pusher")
REPOSITORIES = ("al/app", "bob/app", "team/app", "teamevil/app", "app", "team/app/x")
LINES = [
    "GET /v2/",
    "GET /v2/_catalog",
    *(
        line.replace("REPO", repository)
        for repository in REPOSITORIES
        for line in (
            "GET /v2/REPO/manifests/v1",
            f"HEAD /v2/REPO/blobs/{D}",
            "GET /v2/REPO/tags/list",
            "PUT /v2/REPO/manifests/v1",
            "PUT /v2/REPO/manifests/dev",
            f"PUT /v2/REPO/manifests/{D}?tag=dev&tag=v1&tag=w1",
            "DELETE /v2/REPO/manifests/v1",
            "DELETE /v2/REPO/manifests/dev",
            f"DELETE /v2/REPO/manifests/{D}",
            f"DELETE /v2/REPO/manifests/{D}?tag=dev",
            f"DELETE /v2/REPO/blobs/{D}",
            f"GET /v2/REPO/blobs/uploads/{ID}",
            f"PUT /v2/REPO/blobs/uploads/{ID}?digest={D}",
            *(
                f"POST /v2/REPO/blobs/uploads/?x=1&mount={D}&from={source}"
                for source in REPOSITORIES
            ),
        )
    ),
]


@dataclass(frozen=True)
class Table:
    """A rule as an operator writes it."""

    match: tuple[str, ...]
    words: dict[str, str]
    immutable: tuple[str, ...]
    hide: bool | None

    def rule(self) -> Rule:
        whos = {word: who(text) for word, text in self.words.items()}
        return Rule(
            self.match,
            whos.get("pull"),
            whos.get("push"),
            whos.get("delete"),
            self.immutable,
            self.hide,
        )


TABLES = st.builds(
    Table,
    st.lists(
        st.sampled_from(
            ["**", "team/**", "team/*", "{user}/**", "*/app", "app", "**/app", "t*/**", "{user}*/*"]
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    st.dictionaries(st.sampled_from(["pull", "push", "delete"]), st.sampled_from(WHOS)),
    st.lists(st.sampled_from(["v*", "w1", "*"]), max_size=2).map(tuple),
    st.sampled_from([None, True, False]),
)
GLOBALS = st.fixed_dictionaries(
    {word: st.sampled_from(WHOS) for word in ("pull", "push", "delete", "catalog")}
)


def admits(text: str, user: str, groups: frozenset[str]) -> bool:
    mine = {"valid-user", f"user:{user}", *(f"group:{group}" for group in groups)}
    return any(word in mine for word in text.split(", "))


def said_of(tables: list[Table], words: dict[str, str], repository: str, user: str) -> Table:
    """What holds for a repository: the first table that fits, completed by the global words."""
    for table in tables:
        if any(fits(pattern, repository, user) for pattern in table.match):
            return Table((), {**words, **table.words}, table.immutable, table.hide)
    return Table((), words, (), None)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(TABLES, max_size=4),
    GLOBALS,
    st.booleans(),
    st.sampled_from([None, None, Freeze("disks", "freeze")]),
    st.sampled_from(USERS),
    st.frozensets(st.sampled_from(GROUPS)),
    st.lists(st.sampled_from(LINES), min_size=1, max_size=12),
)
def test_a_policy_decides_as_its_documentation_says(
    tables: list[Table],
    words: dict[str, str],
    hide: bool,
    freeze: Freeze | None,
    user: str,
    groups: frozenset[str],
    lines: list[str],
) -> None:
    """Whatever the rules, users and requests: the verdict is the reference's, in every part."""
    policy = Policy(
        **{word: who(text) for word, text in words.items()},  # type: ignore[arg-type]
        rules=[table.rule() for table in tables],
        hide=hide,
        freeze=freeze,
    )
    for line in lines:
        asked = access(line)
        verdict = policy.decide(user, groups, asked)
        action = asked.action
        if action == "login":
            assert verdict == Grant(b"/v2/", "login = valid-user")
            continue
        table = said_of(tables, words, asked.repository, user)
        if freeze is not None and action in ("push", "delete"):
            assert denial(verdict).rule == "freeze"
            assert not denial(verdict).hidden
            continue
        if action == "catalog":
            table = Table((), words, (), False)
        rule = f"{action} = {table.words[action]}"
        if not admits(table.words[action], user, groups):
            hides = hide if table.hide is None else table.hide
            assert denial(verdict).rule == rule
            assert denial(verdict).hidden == (
                hides and not admits(table.words["pull"], user, groups)
            )
            continue
        protected = [
            tag for tag in asked.tags if any(fits(pattern, tag, "") for pattern in table.immutable)
        ]
        is_blob = "/blobs/sha256" in line
        if action == "delete" and table.immutable and (protected or is_blob):
            assert denial(verdict).rule == f"immutable = {', '.join(table.immutable)}"
            assert not denial(verdict).hidden
            continue
        granted = grant(verdict)
        assert granted.rule == rule
        source = asked.mount_source
        if source is None:
            assert granted.target == asked.target == line.split()[1].encode()
        else:
            pull = said_of(tables, words, source, user).words["pull"]
            plain = f"/v2/{asked.repository}/blobs/uploads/?x=1".encode()
            assert granted.target == (asked.target if admits(pull, user, groups) else plain)
        deletes = asked.reference if action == "delete" and ":" in asked.reference else None
        if table.immutable and (deletes or (action == "push" and protected)):
            assert granted.unchanged is not None
            assert granted.unchanged.tags == tuple(protected)
            assert granted.unchanged.deletes == deletes
            assert granted.unchanged.rule == f"immutable = {', '.join(table.immutable)}"
        else:
            assert granted.unchanged is None


ODD_QUERIES = st.lists(
    st.sampled_from(
        [f"mount={D}", "mount=sha256%3A" + D[7:], "from=team/app", "from=team%2Fapp",
         "from=al%2Fapp", "%66rom=team/app", "from=teamevil/app", "origin=r", "x=1",
         "from=../team/app", "tag=v1", "from=TEAM/app", f"digest={D}", ""]
    ),
    max_size=4,
).map("&".join)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.lists(TABLES, max_size=4),
    GLOBALS,
    st.sampled_from(USERS),
    st.frozensets(st.sampled_from(GROUPS)),
    st.sampled_from(LINES),
    ODD_QUERIES,
)
def test_d01_who_may_not_pull_gets_no_target_that_reads(
    tables: list[Table],
    words: dict[str, str],
    user: str,
    groups: frozenset[str],
    line: str,
    query: str,
) -> None:
    """What is granted never lets the registry read a repository that the user may not pull."""
    method, target = line.split()
    try:
        asked = access(f"{method} {target.partition('?')[0]}?{query}")
    except Refusal:
        return
    policy = Policy(
        **{word: who(text) for word, text in words.items()},  # type: ignore[arg-type]
        rules=[table.rule() for table in tables],
    )

    verdict = policy.decide(user, groups, asked)

    if isinstance(verdict, Denial):
        return
    # Read as a registry would, without a look at what the access says of itself.
    url = urlsplit(verdict.target.decode())
    read = set(parse_qs(url.query).get("from", ()) if method == "POST" else ())
    path = url.path.removeprefix("/v2/")
    if method in ("GET", "HEAD") and "/blobs/uploads/" not in path and path not in ("", "_catalog"):
        read.add(path.rpartition("/")[0].rpartition("/")[0])
    for repository in read:
        assert admits(said_of(tables, words, repository, user).words["pull"], user, groups)
        assert policy.may_pull(user, groups, repository)


@given(st.lists(TABLES, max_size=4), GLOBALS, st.frozensets(st.sampled_from(GROUPS)))
def test_d13_all_and_none_are_no_guess(
    tables: list[Table], words: dict[str, str], groups: frozenset[str]
) -> None:
    """Where no name is looked at any more, each would have given the same answer."""
    policy = Policy(
        **{word: who(text) for word, text in words.items()},  # type: ignore[arg-type]
        rules=[table.rule() for table in tables],
    )
    pulls = {policy.may_pull("al", groups, repository) for repository in REPOSITORIES}
    visible = policy.visible("al", groups)

    assert visible in ("all", "some", "none")
    assert visible != "all" or pulls == {True}
    assert visible != "none" or pulls == {False}

"""regguard.configuration: the lines of a TOML file's keys, and the rules per repository."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regguard.access import Who
from regguard.configuration import Configuration, _lines

FILE = "regguard.toml"


def read(text: str) -> Configuration:
    return Configuration(text.encode("utf-8", "surrogateescape"), FILE)


def complaint(text: str) -> str:
    """What is said about rules that can't be used: one line."""
    with pytest.raises(ValueError, match=FILE) as caught:
        read(text).rules(elsewhere=("push", "realm", "listen"))
    said = str(caught.value)
    assert said.isprintable()
    return said


# -- where a key stands ----------------------------------------------------------------------


def test_a_key_of_the_top_level_has_its_line() -> None:
    """Counted from 1, comments and empty lines counted."""
    configuration = read('# one\n\nrealm = "x"\n  push\t=\t"nobody"\n')

    assert configuration.place("realm") == "regguard.toml:3"
    assert configuration.place("push") == "regguard.toml:4"


def test_a_key_that_is_not_there_has_the_file_alone() -> None:
    """And no line that holds something else."""
    assert read('realm = "x"').place("push") == "regguard.toml"


HIDING = [
    "# [[repository]]\n# push = 1",
    "#'''\n#\"\"\"",
    "x = '[[repository]]' # it's",
    'x = "[[repository]]\\" #" # "',
    "x = '''\n[[repository]]\npush = 1\n'''",
    "x = '''\n[[repository]]'\npush = ''1'''''",
    "x = '''''''",
    'x = """\n[[repository]]\npush = 1\n"""',
    'x = """\n[[repository]]"\npush = ""\\"""1"""""',
    'x = """""""',
    'x = """\\\n  [[repository]]\\\\"""',
    'x = """\\""""',
    'x = """a"""" #" """',
    "x = '''a'''' #' '''",
    "x = [\n  '[[repository]]',\n  [1, 2]\n, [\n[3]\n]\n]",
    "x = {y = '[[repository]]', push = 1}",
    "x = [\n{push = 1},\n{push = '''\n'''}]",
    "x = 1\r\ny = '''\r\npush = 1\r\n'''\r",
    "['[[repository]]']\npush = 1",
    "[[x]]\npush = 1\n[x.repository]\npush = 1",
    "x.push = 1\nx.'y' . repository = 1",
    '"x" = 1\n"y" . push = 1',
]


@pytest.mark.parametrize("text", HIDING)
def test_what_only_looks_like_a_rule_hides_none(text: str) -> None:
    """Strings of all kinds, comments, arrays, inline tables, other tables, CR LF."""
    # What took a quote of the text for an opening one would find its end here.
    end = "# \"\"\" '''"
    configuration = read(f"{text}\n[[repository]]\nmatch = 'a'\npush = 'nobody'\n{end}\n")
    [rule] = configuration.rules()
    head = text.count("\n") + 2

    assert rule.said == {
        "": f"{FILE}:{head}",
        "match": f"{FILE}:{head + 1}",
        "push": f"{FILE}:{head + 2}",
    }


# Nothing of the top level stands behind a table.
@pytest.mark.parametrize("text", [text for text in HIDING if "\n[" not in f"\n{text}"])
def test_what_only_looks_like_a_key_is_none(text: str) -> None:
    """A key of the top level is never told to stand where only a string or a table has it."""
    configuration = read(f"{text}\npush = 'nobody'\n")

    assert configuration.place("push") == f"{FILE}:{text.count(chr(10)) + 2}"


@pytest.mark.parametrize(
    "text",
    [
        "repository = [{match = 'a', push = 'nobody'}]",
        "repository = [\n  {match = 'a', push = 'nobody'},\n]",
        "[['repository']]\nmatch = 'a'\npush = 'nobody'",
        '[["repository"]]\nmatch = "a"\npush = "nobody"\n[[repository]]\nmatch = "b"',
    ],
)
def test_another_picture_than_the_readers_tells_no_lines(text: str) -> None:
    """Rules may be written in other ways; then denials name the file."""
    rule = read(text).rules()[0]

    assert rule.match == ("a",)
    assert rule.said == {"": FILE, "match": FILE, "push": FILE}


def test_a_quoted_key_of_a_rule_is_told_by_the_rules_head() -> None:
    """That is near enough to find it."""
    [rule] = read("\n[[repository]]\nmatch = 'a'\n'push' = 'nobody'\n[x]\npush = 1").rules()

    assert rule.said["push"] == f"{FILE}:2"


def test_a_heads_spelling_does_not_matter() -> None:
    """Blanks, tabs and a comment."""
    [rule] = read("\t[[ repository\t]] # [[repository]]\r\n\tmatch\t='a'\r\n").rules()

    assert rule.said == {"": f"{FILE}:1", "match": f"{FILE}:2"}


def test_what_inline_tables_hold_on_lines_of_their_own_is_none_of_the_files() -> None:
    """TOML 1.1 allows such lines; not every Python's reader takes them yet."""
    top, rules = _lines("repository = [{\npush = 1\n[[repository]]\n}]\npush = 2")

    assert (top, rules) == ({"repository": 1, "push": 5}, [])


def test_tables_of_other_names_have_their_lines() -> None:
    """They are unknown keys, and the complaint names the line."""
    configuration = read("\n[push]\na = 1\n[[ realm . b ]]\n[ x ]\n[repository]\nmatch = 'a'")

    for line, name in ((2, "push"), (4, "realm"), (5, "x"), (6, "repository")):
        assert configuration.place(name) == f"{FILE}:{line}"


# Strings with all that could be taken for a key, a head, or a string's end.
_PIECES = st.sampled_from(
    ["[[repository]]", "push = 1", "match =", "[x]", "#", "'", '"', "''", '""', "\\", "\n", "{",
     "]", "a", " ", "\t", "=", ",", "ü", "\N{LINE SEPARATOR}", "\x85"]
)  # fmt: skip
_TEXTS = st.lists(_PIECES, max_size=8).map("".join)


def _toml_string(text: str, kind: str) -> str:
    """A TOML string of a kind, or of one that can hold the text."""
    if kind == "'" and not re.search("['\n]", text):
        return f"'{text}'"
    # A last quote would stand before the three that end the string: up to two may.
    if kind == "'''" and "'''" not in text:
        return f"'''\n{text}'''"
    if kind == '"""':
        body = text.replace("\\", "\\\\").replace('"""', '""\\"')
        return f'"""\n{body}"""'
    return json.dumps(text)


_STRINGS = st.builds(_toml_string, _TEXTS, st.sampled_from(["'", '"', "'''", '"""']))
_FILLERS = st.one_of(
    st.builds(lambda text: "#" + text.replace("\n", " "), _TEXTS),
    st.just(""),
)
_VALUES = st.recursive(
    _STRINGS | st.sampled_from(["1", "true", "1979-05-27"]),
    lambda values: (
        st.builds(
            lambda items, glue: f"[{glue}{f',{glue}'.join(items)}{glue}]",
            st.lists(values, max_size=3),
            st.sampled_from(["", " ", "\n", "# ]\n  "]),
        )
        | st.builds(lambda item: f"{{ push = {item}, match = 1 }}", values)
    ),
    max_leaves=5,
)
_KEYS = ["push", "pull", "match", "x-1", "realm"]


@dataclass
class Written:
    """A TOML file, and the line on which each key of the top level and of each rule stands."""

    text: str
    top: dict[str, int]
    rules: list[dict[str, int]]


@st.composite
def written(draw: st.DrawFn) -> Written:
    end = draw(st.sampled_from(["\n", "\r\n"]))
    lines: list[str] = []
    top: dict[str, int] = {}
    rules: list[dict[str, int]] = []

    def line_number() -> int:
        return "\n".join(lines).count("\n") + (2 if lines else 1)

    def keys(into: dict[str, int]) -> None:
        for key in draw(st.lists(st.sampled_from(_KEYS), unique=True)):
            lines.extend(draw(st.lists(_FILLERS, max_size=2)))
            into[key] = line_number()
            blank = draw(st.sampled_from(["", " ", "\t"]))
            value = draw(_VALUES)
            lines.append(f"{blank}{key}{blank}={blank}{value}{blank}{draw(_FILLERS)}")

    keys(top)
    for head in draw(st.lists(st.sampled_from(["[[repository]]", "[[ repository ]]"]), max_size=4)):
        lines.extend(draw(st.lists(_FILLERS, max_size=2)))
        rules.append({"": line_number()})
        lines.append(head)
        keys(rules[-1])
    text = "\n".join(lines) + "\n"
    # Nothing but a line's end differs; within strings, too.
    return Written(text.replace("\n", end), top, rules)


@given(written())
def test_every_told_line_holds_its_key(file: Written) -> None:
    """Whatever strings, comments and arrays stand around it."""
    configuration = read(file.text)

    assert {key: configuration.place(key) for key in file.top} == {
        key: f"{FILE}:{line}" for key, line in file.top.items()
    }
    assert configuration._rules == file.rules


# -- what a rule says ------------------------------------------------------------------------


def test_rules_stand_in_their_order_with_what_they_say() -> None:
    """And what they leave out is left to the global words."""
    first, second = read(
        "[[repository]]\n"
        'match = ["team-a/**", "team-a", "team-a"]\n'
        'pull = "group:team-a"\n'
        'push = "user:b,user:a"\n'
        'delete = "nobody"\n'
        'immutable = "v*"\n'
        "hide = true\n"
        "[[repository]]\n"
        'match = "{user}/*"\n'
        "hide = false\n"
    ).rules()

    assert first.match == ("team-a/**", "team-a")
    assert (first.pull, first.push, first.delete) == (
        *(Who.parse("group:team-a"), Who.parse("user:b, user:a"), Who.parse("nobody")),
    )
    assert (first.immutable, first.hide) == (("v*",), True)
    assert (second.match, second.pull, second.immutable, second.hide) == (
        *(("{user}/*",), None, (), False),
    )
    assert second.said == {"": f"{FILE}:8", "match": f"{FILE}:9", "hide": f"{FILE}:10"}


@pytest.mark.parametrize("text", ["", "repository = []"])
def test_no_rules_are_none(text: str) -> None:
    """A file need not have any."""
    assert read(text).rules() == ()


RULE = "[[repository]]\nmatch = 'a'\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RULE + "pul = 'nobody'", ":3: pul: unknown key; did you mean pull?"),
        (RULE + "tag = 1", ":3: tag: unknown key; known keys: delete, hide, immutable, match,"),
        (RULE + "listen = 'x'",
         ":3: listen: holds for all repositories; move it above the first [[repository]]"),
        (RULE + '"a\\nb" = 1', ":1: 'a\\nb': unknown key; known keys: "),
        ("\n[[repository]]\npull = 'nobody'",
         ":2: repository: no match; say which repositories: match = [\"team-a/**\"]"),
        ("[[repository]]\n", ":1: repository: no match; say"),
        ("[[repository]]\nmatch = []", ":2: match: takes a string or a list of strings, not an e"),
        ("[[repository]]\nmatch = ''", ":2: match: an empty pattern fits nothing; ** fits every"),
        ("[[repository]]\nmatch = 1", ":2: match: takes a string or a list of strings"),
        ("[[repository]]\nmatch = ['a', 1]", ":2: match: takes a string or a list of strings"),
        ("[[repository]]\nmatch = [\n'a',\n'A']", ":2: match: 'A': repository names have no capi"),
        ("[[repository]]\nmatch = 'a//b'", ":2: match: 'a//b': an empty segment"),
        ("[[repository]]\nmatch = 'a/***'", ":2: match: 'a/***': write * for one segment's"),
        ("[[repository]]\nmatch = '{name}'", ":2: match: '{name}': the only word in braces is {us"),
        ("[[repository]]\nmatch = \"a\\nb\"", ":2: match: 'a\\nb': '\\n' stands in no repository"),
        (RULE + "pull = 'devs'", ":3: pull: 'devs' is not understood: write user:devs or group:de"),
        (RULE + "push = ['group:a']", ":3: push: takes a string"),
        (RULE + "push = ''", ":3: push: nothing between two commas"),
        (RULE + "push = '''\ngroup:a\ngroup:b'''", ":3: push: a name of two lines; is there a com"),
        (RULE + "delete = 'nobody,user:a'", ":3: delete: nobody stands alone"),
        (RULE + "push.a = 1", ":3: push: takes a string"),
        (RULE + "[repository.push]\na = 1", ":1: push: takes a string"),
        (RULE + "hide = 'yes'", ":3: hide: takes true or false"),
        (RULE + "hide = 1", ":3: hide: takes true or false"),
        (RULE + "immutable = true", ":3: immutable: takes a string or a list of strings"),
        (RULE + "immutable = []", ":3: immutable: takes a string or a list of strings"),
        (RULE + "immutable = ''", ":3: immutable: '': write tags, with * for any characters"),
        (RULE + "immutable = 'v?'", ":3: immutable: 'v?': write tags, with * for any characters"),
        ("\n[repository]\nmatch = 'a'",
         ":2: repository: write each rule below a line of its own, [[repository]]"),
        ("[repository.a]\nmatch = 'a'", ":1: repository: write each rule below a line"),
        ("repository.match = 'a'", ":1: repository: write each rule below a line"),
        ("\nrepository = 'x'", ":2: repository: write each rule below a line"),
        ("repository = ['x']", ":1: repository: write each rule below a line"),
        (RULE + "[[repository]]\nmatch = ['b', 'a']",
         ":4: match: 'a' never decides, because 'a' in regguard.toml:2 comes first; take it out"),
        ("[[repository]]\nmatch = ['b', '**']\n" + RULE,
         ":4: match: 'a' never decides, because '**' in regguard.toml:2 comes first; take it out"),
        ("repository = [{match = 'A'}]", ": match: 'A': repository names have no capital letters"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_rule_is_told_with_its_line_and_cure(text: str, said: str) -> None:
    """File, line, key, what is wrong and what to do."""
    assert complaint(text).startswith(f"{FILE}{said}")


def test_patterns_that_overlap_are_fine() -> None:
    """The first decides on what fits both; each has something of its own."""
    assert len(read(f"{RULE}[[repository]]\nmatch = ['*', 'a/*', '**']\n").rules()) == 2
    assert len(read("[[repository]]\nmatch = ['a', '**', 'b']\n").rules()) == 1


def _deep(depth: int) -> str:
    return "x = " + "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        "realm = ",
        "a = '\udcff'",
        "\ufeffrealm = 'x'",
        pytest.param(_deep(100_000), id="deep"),
        pytest.param("x = " + "9" * 5000, id="long"),
        "x = 1979-13-01",
        "[[repository]]\n[repository]",
        "repository = []\n[[repository]]",
    ],
)
def test_what_python_cannot_read_is_no_toml(text: str) -> None:
    """One line that names the file, and no traceback."""
    with pytest.raises(ValueError, match=r"\Aregguard\.toml(:[0-9]+)?: is no TOML: [^\n]+\Z"):
        read(text)


@pytest.mark.parametrize("quotes", ["'''", '"""'])
def test_a_long_file_is_taken_apart_in_no_time(quotes: str) -> None:
    """No text takes more than a few steps for each of its characters."""
    fillers = (f"x{number} = {quotes}\n{'a ' * 500}{quotes}\n" for number in range(1000))
    text = "".join(fillers) + RULE

    assert read(text).rules()[0].said["match"] == f"{FILE}:2002"

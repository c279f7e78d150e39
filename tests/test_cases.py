"""Every case has a test that bears its number, or a reason why it has none."""

from __future__ import annotations

from tests.cases import CASES, EXCEPT, NOT_HELD, collect, held_by, state, table


def test_every_case_is_held_or_says_why_not() -> None:
    """And no test bears a number that no case has."""
    held = held_by(collect())

    assert [case for case in CASES if state(case, held) == "unknown"] == []
    assert sorted(set(held) - set(CASES)) == []
    assert "\nall     168" in table(held)


def test_a_case_has_one_reason() -> None:
    """Not held, or held but for a part; and each is a case."""
    reasons = [*NOT_HELD, *EXCEPT]

    assert len(set(reasons)) == len(reasons)
    assert set(reasons) <= set(CASES)


def test_what_holds_a_case_bears_its_number() -> None:
    """In its name, where a range names its ends only, or in the name of a parameter."""
    assert held_by(
        [
            "tests/e2e/test_x.py::test_a01_a02_two_are_held",
            "tests/e2e/test_x.py::test_b01_to_b04_a_range[tls-whole-b02-inner]",
            "tests/e2e/test_x.py::test_b01_to_b04_a_range[tls-whole-b03]",
            "tests/e2e/test_x.py::TestX::test_h11_is_in_a_class[c010-xc01-f1]",
            "tests/e2e/test_x.py::test_h11",
            "tests/e2e/test_x.py::test_as_h11_reads_them",
            "5 tests collected",
        ]
    ) == {
        "A01": ["tests/e2e/test_x.py::test_a01_a02_two_are_held"],
        "A02": ["tests/e2e/test_x.py::test_a01_a02_two_are_held"],
        "B01": ["tests/e2e/test_x.py::test_b01_to_b04_a_range"],
        "B02": ["tests/e2e/test_x.py::test_b01_to_b04_a_range"],
        "B03": ["tests/e2e/test_x.py::test_b01_to_b04_a_range"],
        "B04": ["tests/e2e/test_x.py::test_b01_to_b04_a_range"],
        "H11": [
            "tests/e2e/test_x.py::test_h11",
            "tests/e2e/test_x.py::test_h11_is_in_a_class",
        ],
    }

"""The cases of bad input, faults and attacks, by group and number, and what holds each of them.

A case is held by the tests that bear its number: at the front of their names
(``test_a01_a02_...``) or in the names of their parameters (``[tls-a01-...]``).
``python -m tests.cases`` prints the table, with ``--tests`` the tests, too.

- A: framing and smuggling
- B: hop-by-hop and identity headers
- C: paths
- D: what the registry would do for whom
- E: authentication
- F: logs and secrets
- G: TLS
- H: exhaustion
- I: faults
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping

GROUPS = {"A": 39, "B": 10, "C": 15, "D": 25, "E": 20, "F": 6, "G": 12, "H": 13, "I": 28}
CASES = [f"{group}{n:02d}" for group, count in GROUPS.items() for n in range(1, count + 1)]

NOT_HELD: dict[str, str] = {
    "I28": "24 hours fit into no test; tests.bench.soak ran for 12 minutes: no traceback, as many "
    "file descriptors in the end as at the start, memory level after the first two minutes",
}
"""Cases that do not hold, and why not.  README's part on limits says the same."""

EXCEPT = {
    "A07": "there is no limit for a body but the registry's own (4 MiB for manifests); 413 where "
    "a manifest has to be read whole because its tag is immutable",
    "A16": "obs-text is taken in logged fields, too, and escaped in the log (F02)",
    "F05": "lines of the access log that are lost are counted, the daemon's own words are not",
    "G02": "once for each connection: a client of OpenSSL gives up when it is refused",
    "G05": "a Host that differs from the server name is no 421: neither gives any right, and Host "
    "decides only where Location leads; --public-url pins it",
    "G06": "where clients show certificates OpenSSL sends two tickets in TLS 1.3 that resume "
    "nothing: pyOpenSSL has no SSL_CTX_set_num_tickets",
    "G07": "revocation by lists in the CA's file; OCSP is not asked",
    "H05": "the memory of 10,000 idle connections is measured by tests.bench.crowd, not here",
    "H07": "100 MB in chunks of one octet take minutes of one processor, 1.7 microseconds each; "
    "only who may push can send them",
    "H08": "5,000 connections; REGGUARD_CHURN=50000 makes as many as the case has",
    "H10": "the limit is a control group's only where root may make one; PSS is looked at anyway",
    "H11": "50 ms are printed and not demanded: timings gate no test",
    "I10": "registry 2.8 itself refuses to go on with an upload whose PATCH was cut",
    "I12": "containerd 1.6 sends a layer again to the same upload, and registry 2.8 refuses that "
    "if it kept some of the first try",
    "I17": "20 SIGHUPs in 4 s; 100 in a minute with REGGUARD_LONG=1",
    "I19": "a worker, and the parent of workers; a process of its own is systemd's to restart",
    "I20": "SIGSTOP for 30 s with REGGUARD_LONG=1; else by the clock of unit tests",
    "I24": "3 MB and not a GiB on bad lines, and without loss of packets",
    "I26": "2,000 closes, not 10,000",
}
"""Cases that hold but for a part of them, and why not that."""

_NODE = re.compile(r"(tests/\S+\.py)::(?:\w+::)*test((?:_[a-i][0-9]{2}|_to)*)(_\w+)?(?:\[(.*)\])?")
_IN_NAME = re.compile(r"[a-i][0-9]{2}")
_IN_PARAMETERS = re.compile(r"(?:(?<=-)|^)[a-i][0-9]{2}(?=-|\Z)")


def collect() -> list[str]:
    """The ids of all tests."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        check=True,
        text=True,
        errors="replace",
    )
    return done.stdout.splitlines()


def held_by(nodes: Iterable[str]) -> dict[str, list[str]]:
    """The tests that bear a case's number, by case."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for node in nodes:
        match = _NODE.fullmatch(node)
        if match is not None:
            file, numbers, words, parameters = match.groups()
            for number in (*_IN_NAME.findall(numbers), *_IN_PARAMETERS.findall(parameters or "")):
                found[number.upper()].add(f"{file}::test{numbers}{words or ''}")
    return {case: sorted(tests) for case, tests in sorted(found.items())}


def state(case: str, held: Mapping[str, object]) -> str:
    """What is to be said of a case in one word."""
    if case in NOT_HELD:
        return "not held"
    return "held" if case in held else "unknown"


STATES = ("held", "not held", "unknown")


def table(held: Mapping[str, object]) -> str:
    """The number of cases by group and state, and a reason for whatever is not held whole."""
    lines = [f"{'group':5} {'cases':>5}" + "".join(f"{each:>12}" for each in STATES)]
    sums = [0] * len(STATES)
    for group, count in GROUPS.items():
        states = [state(case, held) for case in CASES if case.startswith(group)]
        numbers = [states.count(each) for each in STATES]
        sums = [a + b for a, b in zip(sums, numbers, strict=True)]
        lines.append(f"{group:5} {count:5}" + "".join(f"{number:12}" for number in numbers))
    lines.append(f"{'all':5} {len(CASES):5}" + "".join(f"{number:12}" for number in sums))
    for title, reasons in (("not held", NOT_HELD), ("held, except", EXCEPT)):
        lines += ["", f"{title}:", *(f"  {case}: {reason}" for case, reason in reasons.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    tests = held_by(collect())
    sys.stdout.write(table(tests) + "\n")
    if "--tests" in sys.argv:
        for each, names in tests.items():
            sys.stdout.write("\n".join((f"\n{each} {state(each, tests)}", *names)) + "\n")

"""regguard.ops.metrics and exposition: what is counted, summed up, and shown to Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from regguard.ops.exposition import exposition, process_metrics
from regguard.ops.metrics import (
    DURATION_BOUNDS,
    LATENCY_BOUNDS,
    METRICS,
    MOST_RULES,
    Gathered,
    Snapshot,
    Tally,
    add_up,
    alone,
    by_label,
)

README = Path(__file__).parents[2] / "README.rst"
NOW = 1000.0


@dataclass
class Request:
    """What the tally reads of a ``front.Request``."""

    action: str | None = "pull"
    status: int = 200
    began: float = NOW - 0.02
    upstream_seconds: float | None = None
    refused_by: str | None = None
    head_bytes_in: int = 1
    body_bytes_in: int = 20
    head_bytes_out: int = 300
    body_bytes_out: int = 4000

    @property
    def access(self) -> Any:
        return None if self.action is None else SimpleNamespace(action=self.action)


def counted(*requests: Request) -> Snapshot:
    """What a process shows that has counted these."""
    tally = Tally(lambda: NOW)
    for request in requests:
        tally.count(request)
    return tally.snapshot()


def shown(snapshot: Snapshot) -> dict[str, float]:
    """What Prometheus reads, by ``name{label=value,...}``."""
    families = text_string_to_metric_families(exposition(snapshot).decode())
    return {
        sample.name + ",".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): float(
            sample.value
        )
        for family in families
        for sample in family.samples
    }


def test_requests_are_counted_by_action_and_status() -> None:
    """What no action could be told of is none; who left before an answer is 499."""
    found = shown(
        counted(Request(), Request(), Request("push", 201), Request(None, 404), Request(status=0))
    )

    assert {name: value for name, value in found.items() if "requests_total" in name} == {
        "regguard_requests_total{action=pull},{status=200}": 2,
        "regguard_requests_total{action=push},{status=201}": 1,
        "regguard_requests_total{action=none},{status=404}": 1,
        "regguard_requests_total{action=pull},{status=499}": 1,
    }


def test_octets_of_heads_and_bodies_are_counted_also_of_what_is_under_way() -> None:
    """A layer of gigabytes shows while it passes, and not twice when it is over."""
    tally = Tally(lambda: NOW)
    tally.count(Request())
    under_way = Request()

    during = shown(tally.snapshot([under_way]))
    tally.count(under_way)
    after = shown(tally.snapshot())

    for found in (during, after):
        assert found["regguard_received_bytes_total"] == 42
        assert found["regguard_sent_bytes_total"] == 8600
    assert during["regguard_requests_in_flight"] == 1
    assert after["regguard_requests_in_flight"] == 0


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, "0.005"), (0.005, "0.005"), (0.0051, "0.01"), (901, "+Inf")]
)
def test_a_duration_falls_into_the_bucket_that_it_does_not_exceed(
    seconds: float, bucket: str
) -> None:
    """And into all above it, as Prometheus has it."""
    # A clock that begins at 0: no digit of the difference is lost.
    tally = Tally(lambda: seconds)
    tally.count(Request(began=0.0))
    found = shown(tally.snapshot())

    bounds = [*map(str, map(float, DURATION_BOUNDS)), "+Inf"]
    name = "regguard_request_duration_seconds"
    buckets = [found[f"{name}_bucket{{action=pull}},{{le={bound}}}"] for bound in bounds]
    assert buckets == [float(at >= bounds.index(bucket)) for at in range(len(bounds))]
    assert found[f"{name}_count{{action=pull}}"] == 1
    assert found[f"{name}_sum{{action=pull}}"] == seconds


def test_latency_is_that_of_requests_that_the_registry_answered() -> None:
    """A refusal is no fast registry."""
    found = shown(counted(Request(), Request(upstream_seconds=0.5), Request("login")))

    assert found["regguard_upstream_latency_seconds_count{action=pull}"] == 1
    assert found["regguard_upstream_latency_seconds_sum{action=pull}"] == 0.5
    assert "regguard_upstream_latency_seconds_count{action=login}" not in found


def test_denials_are_counted_by_rule_and_rules_are_bounded() -> None:
    """However often a file with rules is changed, there is an end of new numbers."""
    rules = [f"r.toml:{line}: push = nobody" for line in range(MOST_RULES + 2)]
    found = shown(
        counted(
            *(Request(status=403, refused_by=rule) for rule in rules),
            *(Request(status=403, refused_by=rules[0]) for _ in range(2)),
        )
    )

    denials = {name: value for name, value in found.items() if "denials" in name}
    assert len(denials) == MOST_RULES + 1
    assert denials["regguard_denials_total{rule=r.toml:0: push = nobody}"] == 3
    assert denials["regguard_denials_total{rule=other}"] == 2


def test_several_processes_become_one() -> None:
    """Sums; but the first certificate to expire, a registry that is down for one, one file."""
    one = {
        **counted(Request(), Request("push", 403, refused_by="r")),
        "regguard_certificate_expiry_timestamp_seconds": by_label({"a.crt": 50.0, "b.crt": 9.0}),
        "regguard_upstream_up": by_label({"http://r": 1}),
        "regguard_files_refused": alone(1),
        "regguard_workers": alone(1),
        "process_start_time_seconds": alone(7.0),
        "process_max_fds": alone(100.0),
        "process_open_fds": alone(10.0),
    }
    other = {
        **counted(Request(), Request(upstream_seconds=3.0)),
        "regguard_certificate_expiry_timestamp_seconds": by_label({"a.crt": 40.0}),
        "regguard_upstream_up": by_label({"http://r": 0}),
        "regguard_files_refused": alone(1),
        "regguard_workers": alone(1),
        "process_start_time_seconds": alone(8.0),
        "process_max_fds": alone(100.0),
        "process_open_fds": alone(20.0),
    }
    through_a_pipe: list[Snapshot] = json.loads(json.dumps([one, other]))
    found = shown(add_up(through_a_pipe))

    assert {name: found[name] for name in found if "bucket" not in name} == {
        "regguard_requests_total{action=pull},{status=200}": 3,
        "regguard_requests_total{action=push},{status=403}": 1,
        "regguard_request_duration_seconds_count{action=pull}": 3,
        "regguard_request_duration_seconds_sum{action=pull}": pytest.approx(0.06),
        "regguard_request_duration_seconds_count{action=push}": 1,
        "regguard_request_duration_seconds_sum{action=push}": pytest.approx(0.02),
        "regguard_upstream_latency_seconds_count{action=pull}": 1,
        "regguard_upstream_latency_seconds_sum{action=pull}": 3,
        "regguard_denials_total{rule=r}": 1,
        "regguard_requests_in_flight": 0,
        "regguard_received_bytes_total": 84,
        "regguard_sent_bytes_total": 17200,
        "regguard_certificate_expiry_timestamp_seconds{path=a.crt}": 40,
        "regguard_certificate_expiry_timestamp_seconds{path=b.crt}": 9,
        "regguard_upstream_up{upstream=http://r}": 0,
        "regguard_files_refused": 1,
        "regguard_workers": 2,
        "process_start_time_seconds": 7,
        "process_max_fds": 100,
        "process_open_fds": 30,
    }
    assert found["regguard_request_duration_seconds_bucket{action=pull},{le=0.025}"] == 3
    assert found["regguard_upstream_latency_seconds_bucket{action=pull},{le=2.5}"] == 0
    assert found["regguard_upstream_latency_seconds_bucket{action=pull},{le=5.0}"] == 1


def test_adding_up_changes_no_snapshot_and_nothing_is_nothing() -> None:
    """The numbers of a process stay its own."""
    one = counted(Request(upstream_seconds=1.0))
    before = json.dumps(one)
    add_up([one, one])

    assert json.dumps(one) == before
    assert exposition(add_up([])) == b""


def test_label_values_cannot_break_a_line() -> None:
    """A rule may hold whatever a file holds."""
    odd = 'a"} 1\nregguard_workers 7\\'
    found = shown({"regguard_denials_total": by_label({odd: 1})})

    assert found == {f"regguard_denials_total{{rule={odd}}}": 1}


def test_bounds_rise() -> None:
    """Else a bucket would never be hit."""
    for bounds in (DURATION_BOUNDS, LATENCY_BOUNDS):
        assert list(bounds) == sorted(set(bounds))


def test_the_process_tells_of_itself() -> None:
    """By the names that every Prometheus client gives them: those of the table."""
    found = process_metrics()

    assert set(found) == {metric.name for metric in METRICS if metric.name.startswith("process_")}
    assert all(value > 0 for [[_, value]] in found.values())


def test_who_asks_for_no_metrics_does_not_load_them() -> None:
    """prometheus-client costs memory, and time at the start."""
    code = "import sys, regguard.service; sys.exit('prometheus_client' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_readme_has_every_metric_with_its_labels() -> None:
    """And no other one."""
    part = README.read_text().partition("\nMetrics and alerts\n")[2].partition("\n\n\n")[0]
    rows = re.findall(r"^``(regguard_\w+)(?:\{([^}`]+)\})?``", part, re.MULTILINE)

    assert {name: tuple(re.findall(r"\w+", labels)) for name, labels in rows} == {
        metric.name: metric.labels for metric in METRICS if not metric.name.startswith("process_")
    }


def test_no_counter_falls_when_a_worker_is_gone_or_silent() -> None:
    """Prometheus would take it for a new begin, and count once more what the others have done."""
    gathered = Gathered()

    def total(answers: dict[int, int], alive: set[int]) -> tuple[float, float, float]:
        snapshots = {
            number: {
                **counted(*[Request(upstream_seconds=0.5)] * requests),
                "regguard_workers": alone(1),
            }
            for number, requests in answers.items()
        }
        found = shown(add_up(gathered.all(snapshots, alive)))
        return (
            found["regguard_requests_total{action=pull},{status=200}"],
            found["regguard_upstream_latency_seconds_count{action=pull}"],
            found.get("regguard_workers", 0),
        )

    assert total({1: 5, 2: 7}, {1, 2}) == (12, 12, 2)
    assert total({1: 6}, {1, 2}) == (13, 13, 1)  # 2 is busy
    assert total({1: 6, 2: 9}, {1, 2}) == (15, 15, 2)
    assert total({1: 6}, {1, 3}) == (15, 15, 1)  # 2 was killed, and 3 begins
    assert total({1: 6, 3: 1}, {1, 3}) == (16, 16, 2)
    assert total({}, set()) == (16, 16, 0)


def test_what_the_gone_have_counted_is_bounded() -> None:
    """Each of them may have known other rules."""
    gathered = Gathered()
    for number in range(3):
        rules = {f"{number}: {rule}": 1 for rule in range(MOST_RULES)}
        gathered.all({number: {"regguard_denials_total": by_label(rules)}}, {number})
    (gone, *_) = gathered.all({}, set())

    assert len(gone["regguard_denials_total"]) == MOST_RULES
    assert gone["regguard_denials_total"][0] == [["0: 0"], 1]

"""/metrics of a real guard: what clients did is what it tells, in words that Prometheus takes."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from datetime import timezone
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

import regguard
from regguard.demo.image import random_image
from tests.canary import secret
from tests.e2e.clients import Skopeo, curl
from tests.e2e.programs import PATIENCE, Ground, Guard, Registry, StartGuard, binary, free_port
from tests.e2e.recorder import Recorder
from tests.e2e.stage import basic

README = Path(__file__).parents[2] / "README.rst"
COMBINEDIO = re.compile(r' (\d{3}) (?:-|\d+) "[^"]*" "[^"]*" (\d+) (\d+)$', re.MULTILINE)


def admin() -> tuple[str, str]:
    """Words that open an admin port."""
    return "--admin", f"tcp:127.0.0.1:{free_port()}"


class Metrics:
    """What /metrics tells now."""

    def __init__(self, guard: Guard) -> None:
        status, self.text = guard.ask_admin("/metrics")
        assert status == 200
        self._samples = [
            sample
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        ]

    def all(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of this name, by the values of their labels."""
        return {
            tuple(sample.labels.values()): sample.value
            for sample in self._samples
            if sample.name == name
        }

    def of(self, name: str, *labels: str) -> float:
        """The one with these values of its labels."""
        return self.all(name)[labels]


def promtool(*words: str, given: str = "") -> str:
    """What Prometheus' own tool says; "" if nothing is wrong."""
    done = subprocess.run(
        [binary("promtool"), *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return "" if done.returncode == 0 and not done.stderr else done.stdout + done.stderr


@pytest.fixture(scope="module")
def told(
    ground: Ground, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Metrics, str, str]:
    """The metrics after a push, a pull and some refusals; the access log; the rule that denied."""
    folder = tmp_path_factory.mktemp("told")
    log = folder / "access.log"
    words = ("--access-log", str(log), "--access-log-format", "combinedio")
    guard = Guard(ground, folder / "guard", registry.url, *words, *admin())
    try:
        skopeo = Skopeo(guard, folder)
        random_image((1_000, 300_000)).write_layout(folder / "in", "v1")
        assert not skopeo.push(folder / "in", "v1", "metrics/image:v1", ground.as_pusher)
        assert not skopeo.pull("metrics/image:v1", folder / "out", "v1", ground.as_reader)
        for _ in range(3):
            start = ("/v2/metrics/image/blobs/uploads/", "--request", "POST")
            denied = curl(guard, *start, credentials=ground.as_reader)
            assert denied.status == 403
        assert curl(guard, "/v2/", credentials=f"testuser:{secret('wrong')}").status == 401
        assert curl(guard, "/v2/", "--header", "Authorization: Basic !").status == 401
        assert curl(guard, "/v2/").status == 401
        assert curl(guard, "/nothing").status == 404
        guard.program.wait_until(
            "the end of every connection",
            lambda: Metrics(guard).of("regguard_connections") == 0,
        )
        guard.program.wait_until("the last line", lambda: "GET /nothing" in log.read_text())
        rule = json.loads(denied.body)["errors"][0]["detail"]["rule"]
        return Metrics(guard), log.read_text(), rule
    finally:
        guard.stop()


Told = tuple[Metrics, str, str]


def test_requests_and_octets_are_those_of_the_access_log(told: Told) -> None:
    """Two counts of the same things, kept apart."""
    metrics, log, _ = told
    lines = COMBINEDIO.findall(log)
    assert len(lines) == len(log.splitlines())
    by_status: Counter[str] = Counter()
    for (_, status), number in metrics.all("regguard_requests_total").items():
        by_status[status] += int(number)

    assert by_status == Counter(status for status, _, _ in lines)
    assert metrics.of("regguard_received_bytes_total") == sum(int(each[1]) for each in lines)
    assert metrics.of("regguard_sent_bytes_total") == sum(int(each[2]) for each in lines)
    assert metrics.of("regguard_sent_bytes_total") > 300_000


def test_requests_are_told_apart_by_what_they_do(told: Told) -> None:
    """By action and status, with a duration each, and a latency where the registry was asked."""
    metrics, _, _ = told
    requests = metrics.all("regguard_requests_total")

    assert requests["push", "201"] >= 4  # two layers, a configuration, a manifest
    assert requests["pull", "200"] >= 4
    assert requests["push", "403"] == 3
    assert requests["none", "404"] == 1
    assert metrics.all("regguard_requests_in_flight") == {(): 0}
    for action in ("login", "pull", "push"):
        number = sum(value for (each, _), value in requests.items() if each == action)
        assert metrics.of("regguard_request_duration_seconds_count", action) == number
    for action in ("pull", "push"):
        asked = metrics.of("regguard_upstream_latency_seconds_count", action)
        served = [n for key, n in requests.items() if key[0] == action and key[1] < "400"]
        assert asked >= sum(served)
        assert metrics.of("regguard_upstream_latency_seconds_sum", action) > 0
    denied = sum(value for (_, status), value in requests.items() if status in ("401", "403"))
    everything = metrics.all("regguard_upstream_latency_seconds_count").values()
    assert sum(everything) <= sum(requests.values()) - denied - 1


def test_denials_and_log_ins_are_counted(told: Told) -> None:
    """Denials by the rule that the user reads; log-ins by what came of them."""
    metrics, log, rule = told
    assert metrics.all("regguard_denials_total") == {(rule,): 3}

    results = {
        key: value for (key,), value in metrics.all("regguard_authentications_total").items()
    }
    assert results["wrong"] == 2
    assert results["verified"] >= 2
    assert results["cached"] > results["verified"]
    assert results["none"] >= 1
    assert results["throttled"] == results["undecided"] == 0
    # All but the one that is no registry path.
    assert sum(results.values()) == len(log.splitlines()) - 1


def test_what_is_there_is_told(told: Told, ground: Ground, registry: Registry) -> None:
    """Certificate, registry, versions, and the process itself."""
    metrics, _, _ = told
    certificate = x509.load_pem_x509_certificates(ground.certificate.read_bytes())[0]
    expires = certificate.not_valid_after_utc.astimezone(timezone.utc).timestamp()

    assert metrics.all("regguard_certificate_expiry_timestamp_seconds") == {
        (str(ground.certificate),): expires
    }
    assert metrics.all("regguard_upstream_up") == {(registry.url,): 1}
    assert set(metrics.all("regguard_upstream_failures_total").values()) == {0}
    assert metrics.of("regguard_connections_limit") >= 1000
    assert metrics.of("regguard_files_refused") == 0
    assert metrics.of("regguard_access_log_lost_lines_total") == 0
    assert metrics.of("regguard_workers") == 1
    [(build, one)] = metrics.all("regguard_build_info").items()
    assert regguard.__version__ in build
    assert one == 1
    assert metrics.of("process_resident_memory_bytes") > 1 << 20
    assert metrics.of("process_open_fds") > 3


def test_promtool_takes_the_metrics(told: Told) -> None:
    """The linter of Prometheus has nothing to say of names, types or words; of bad ones it has."""
    text = told[0].text

    assert promtool("check", "metrics", given=text) == ""
    assert promtool("check", "metrics", given=text.replace("regguard_workers", "regguardWorkers"))


def test_promtool_takes_the_alerts_of_the_readme(told: Told, tmp_path: Path) -> None:
    """They are rules, and every metric that they name is there."""
    part = README.read_text().partition("\nMetrics and alerts\n")[2]
    block = re.search(r"\.\. code-block:: yaml\n\n((?: {4}.*\n|\n)+)", part)
    assert block is not None
    rules = tmp_path / "rules.yml"
    rules.write_text(re.sub(r"^ {4}", "", block[1], flags=re.MULTILINE))

    assert promtool("check", "rules", str(rules)) == ""
    known = set(re.findall(r"^# TYPE (\S+)", told[0].text, re.MULTILINE))
    named = set(re.findall(r"\b((?:regguard|process)_\w+)", rules.read_text()))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= known
    assert len(re.findall(r"- alert: ", rules.read_text())) >= 4


def test_a_transfer_shows_while_it_runs(start_guard: StartGuard, ground: Ground) -> None:
    """It is in flight, on an open connection, and its octets count as they pass."""
    with Recorder() as recorder:
        guard = start_guard(recorder.url, *admin())
        before = Metrics(guard)
        assert before.of("regguard_requests_in_flight") == 0
        digest = "0123456789abcdef" * 4
        head = (
            f"PUT /v2/x/blobs/uploads/1?digest=sha256:{digest} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: {basic(ground.pusher).decode()}\r\nContent-Length: 600000\r\n\r\n"
        )
        with guard.connection() as connection:
            connection.sendall(head.encode() + b"x" * 500_000)
            guard.program.wait_until(
                "the octets to pass",
                lambda: Metrics(guard).of("regguard_received_bytes_total") >= 500_000,
            )
            during = Metrics(guard)
            assert during.of("regguard_requests_in_flight") == 1
            assert during.of("regguard_connections") == 1
            assert ("push", "200") not in during.all("regguard_requests_total")

            connection.sendall(b"x" * 100_000)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            guard.program.wait_until(
                "the end", lambda: Metrics(guard).of("regguard_requests_in_flight") == 0
            )
            after = Metrics(guard)
    assert after.of("regguard_connections") == 1  # kept for the next request
    assert after.of("regguard_requests_total", "push", "200") == 1
    assert after.of("regguard_received_bytes_total") == 600_000 + len(head)


def test_failures_of_the_registry_are_told_apart(start_guard: StartGuard, ground: Ground) -> None:
    """One that refuses, and one whose answer is none."""
    nowhere = start_guard(f"http://127.0.0.1:{free_port()}", *admin())
    for _ in range(2):
        assert curl(nowhere, "/v2/", credentials=ground.as_reader).status == 502
    refused = Metrics(nowhere)
    with Recorder(lambda asked: b"garbage\r\n\r\n") as recorder:
        odd = start_guard(recorder.url, *admin())
        assert curl(odd, "/v2/", credentials=ground.as_reader).status == 502
        answered = Metrics(odd)

    name = "regguard_upstream_failures_total"
    assert {kind: n for (kind,), n in refused.all(name).items() if n} == {"refused": 2}
    assert set(refused.all("regguard_upstream_up").values()) == {0}
    assert {kind: n for (kind,), n in answered.all(name).items() if n} == {"answer": 1}
    assert set(answered.all("regguard_upstream_up").values()) == {1}

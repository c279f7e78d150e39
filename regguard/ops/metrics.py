"""The metrics: what is counted, and how the numbers of several processes become one.

Counting happens in plain dicts and integers, because it happens for each request: a process has
one thread that counts, so there is nothing to lock.  A ``Snapshot`` is what one process has
counted, in words that JSON knows; ``add_up`` makes one of several, and ``Gathered`` remembers what
those have counted that are gone.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Snapshot = dict[str, list[Any]]
"""By the name of a metric: its samples, ``[values of the labels, value]`` each.

The value of a histogram is a list: how many observations fell into each bucket (not cumulated, the
last one without an upper bound), and their sum behind them.
"""

DURATION_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
"""Seconds: from a manifest out of a cache to a layer of gigabytes over a slow line."""

LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
"""Seconds until the registry begins to answer: a HEAD on a local disk takes one millisecond, the
end of a large upload on an object store minutes."""

MOST_RULES = 1000
"""Rules that have a number of their own.  Each reload may bring others, since the line is a part of
their name; what comes when there are so many is counted under ``other``."""

_OTHER = "other"


def _sum_lists(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


@dataclass(frozen=True, slots=True)
class Metric:
    """``kind`` is counter, gauge or histogram; ``merge`` makes one value of two processes'."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    merge: Callable[[Any, Any], Any] = operator.add
    bounds: tuple[float, ...] = ()


def _histogram(name: str, words: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> Metric:
    return Metric(name, "histogram", words, labels, _sum_lists, bounds)


METRICS = (
    Metric(
        "regguard_requests_total",
        "counter",
        "Requests that came to an end; 499: the client left before its answer.",
        ("action", "status"),
    ),
    _histogram(
        "regguard_request_duration_seconds",
        "From the end of a request's head to the end of its answer.",
        ("action",),
        DURATION_BOUNDS,
    ),
    _histogram(
        "regguard_upstream_latency_seconds",
        "From when a request went to the registry until that began to answer.",
        ("action",),
        LATENCY_BOUNDS,
    ),
    Metric(
        "regguard_denials_total", "counter", "Requests that a rule denied, by the rule.", ("rule",)
    ),
    Metric(
        "regguard_authentications_total",
        "counter",
        "Looks at who is asking, by what came of them.",
        ("result",),
    ),
    Metric("regguard_requests_in_flight", "gauge", "Requests that are under way."),
    Metric("regguard_connections", "gauge", "Connections of clients that are open."),
    Metric("regguard_connections_limit", "gauge", "Connections of clients that there may be."),
    Metric("regguard_received_bytes_total", "counter", "Octets of requests, as HTTP."),
    Metric("regguard_sent_bytes_total", "counter", "Octets of answers, as HTTP."),
    Metric(
        "regguard_upstream_failures_total",
        "counter",
        "Requests that the registry did not answer as it should, by kind.",
        ("kind",),
    ),
    Metric(
        "regguard_upstream_up",
        "gauge",
        "Whether the registry took the latest connection.",
        ("upstream",),
        min,
    ),
    Metric(
        "regguard_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the certificate in use expires.",
        ("path",),
        min,
    ),
    Metric(
        "regguard_files_refused",
        "gauge",
        "Files whose newest version is refused: the one before it is in force.",
        merge=max,
    ),
    Metric(
        "regguard_access_log_lost_lines_total", "counter", "Lines of the access log that are lost."
    ),
    Metric("regguard_workers", "gauge", "Processes that serve."),
    Metric(
        "regguard_build_info",
        "gauge",
        "What runs here.",
        ("version", "python", "twisted", "openssl"),
        max,
    ),
    Metric("process_cpu_seconds_total", "counter", "Processor time, of user and system."),
    Metric("process_resident_memory_bytes", "gauge", "Memory that is resident."),
    Metric("process_virtual_memory_bytes", "gauge", "Memory that is mapped."),
    Metric("process_open_fds", "gauge", "File descriptors that are open."),
    Metric("process_max_fds", "gauge", "File descriptors that one process may open.", merge=min),
    Metric("process_start_time_seconds", "gauge", "When the (oldest) process began.", merge=min),
)


class _Histogram:
    """Observations, by the bucket into which they fell, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class _Action:
    """What is counted of one kind of request."""

    __slots__ = ("duration", "latency", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.duration = _Histogram(DURATION_BOUNDS)
        self.latency = _Histogram(LATENCY_BOUNDS)


class Tally:
    """Counts requests that came to an end; ``seconds`` is the clock of their ``began``."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._actions: dict[str, _Action] = {}
        self._denials: dict[str, int] = {}
        self._received = 0
        self._sent = 0

    def count(self, request: Any) -> None:
        """Note a ``front.Request`` that came to an end."""
        access = request.access
        name = "none" if access is None else access.action
        action = self._actions.get(name)
        if action is None:
            action = self._actions[name] = _Action()
        status = request.status or 499
        statuses = action.statuses
        statuses[status] = statuses.get(status, 0) + 1
        action.duration.observe(self._seconds() - request.began)
        latency = request.upstream_seconds
        if latency is not None:
            action.latency.observe(latency)
        self._received += request.head_bytes_in + request.body_bytes_in
        self._sent += request.head_bytes_out + request.body_bytes_out
        rule = request.refused_by
        if rule is not None:
            denials = self._denials
            if rule not in denials and len(denials) >= MOST_RULES:
                rule = _OTHER
            denials[rule] = denials.get(rule, 0) + 1

    def snapshot(self, under_way: Collection[Any] = ()) -> Snapshot:
        """What was counted so far; the octets of requests ``under_way`` count as they pass."""
        requests: list[Any] = []
        durations: list[Any] = []
        latencies: list[Any] = []
        for name, action in self._actions.items():
            requests += [[[name, str(status)], n] for status, n in action.statuses.items()]
            for histogram, samples in (
                (action.duration, durations),
                (action.latency, latencies),
            ):
                if any(histogram.counts):
                    samples.append([[name], [*histogram.counts, histogram.sum]])
        received = sum(each.head_bytes_in + each.body_bytes_in for each in under_way)
        sent = sum(each.head_bytes_out + each.body_bytes_out for each in under_way)
        return {
            "regguard_requests_total": requests,
            "regguard_request_duration_seconds": durations,
            "regguard_upstream_latency_seconds": latencies,
            "regguard_denials_total": by_label(self._denials),
            "regguard_requests_in_flight": alone(len(under_way)),
            "regguard_received_bytes_total": alone(self._received + received),
            "regguard_sent_bytes_total": alone(self._sent + sent),
        }


def alone(value: float) -> list[Any]:
    """The sample of a metric without labels."""
    return [[[], value]]


def by_label(values: Mapping[str, Any]) -> list[Any]:
    """The samples of a metric with one label."""
    return [[[label], value] for label, value in values.items()]


def add_up(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot of several: sums, and the lowest or highest where a sum says nothing."""
    merged: dict[str, dict[tuple[str, ...], Any]] = {metric.name: {} for metric in METRICS}
    for snapshot in snapshots:
        for metric in METRICS:
            values = merged[metric.name]
            for words, value in snapshot.get(metric.name, ()):
                labels = tuple(words)
                known = labels in values
                values[labels] = metric.merge(values[labels], value) if known else value
    return {
        name: [[list(labels), value] for labels, value in values.items()]
        for name, values in merged.items()
    }


class Gathered:
    """What several processes have counted, of which some end and others are too busy to answer.

    Their counters stay: Prometheus takes one that falls for one that began anew, and would count
    once more what all the others have done.
    """

    def __init__(self) -> None:
        self._latest: dict[int, Snapshot] = {}
        self._gone: Snapshot = {}

    def all(self, answers: Mapping[int, Snapshot], alive: Collection[int]) -> list[Snapshot]:
        """Snapshots to add up: of who answers, and the counters of everybody else.

        ``answers`` and ``alive`` know a process by a number that no other one ever has.
        """
        self._latest.update((number, _counters(snapshot)) for number, snapshot in answers.items())
        for number in self._latest.keys() - set(alive):
            sum_of_both = add_up((self._gone, self._latest.pop(number)))
            # Who comes after a new configuration has other rules.
            self._gone = {name: samples[:MOST_RULES] for name, samples in sum_of_both.items()}
        silent = (counters for number, counters in self._latest.items() if number not in answers)
        # Who has ended since its answer is among the gone.
        present = (answers[number] for number in answers if number in self._latest)
        return [self._gone, *silent, *present]


def _counters(snapshot: Snapshot) -> Snapshot:
    """Without what says how things are just now."""
    return {
        metric.name: snapshot[metric.name]
        for metric in METRICS
        if metric.kind != "gauge" and metric.name in snapshot
    }

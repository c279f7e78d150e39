"""Snapshots as Prometheus reads them, by prometheus-client.

Apart from ``metrics``, because that library is imported only where metrics are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from regguard.ops.metrics import METRICS, Metric, Snapshot, alone

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format, which every version of it reads."""


def exposition(snapshot: Snapshot) -> bytes:
    """The page that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot))
    return generate_latest(registry)


def process_metrics() -> Snapshot:
    """What the system says of this process; nothing on systems without Linux' /proc."""
    families: Iterable[Family] = ProcessCollector(registry=None).collect()
    return {sample.name: alone(sample.value) for each in families for sample in each.samples}


class _Collector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            if samples := self._snapshot.get(metric.name):
                yield _family(metric, samples)


def _family(metric: Metric, samples: list[Any]) -> Any:
    family = _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)
    bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
    for labels, value in samples:
        if isinstance(value, list):
            *counts, total = value
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        else:
            family.add_metric(labels, value)
    return family


_FAMILIES: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}

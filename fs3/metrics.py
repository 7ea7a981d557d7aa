"""Metrics of one process: pre-bound counters that cost an addition, read out when somebody asks.

``Metrics`` is a component: each server is handed one (in a simulated world each node has its own). A child
is bound once, where the server is built, and kept::

    self._reads = metrics.counter("fs3_storage_reads_total", outcome="ok")     # at start
    self._reads.value += 1                                                     # on the fast path: 50 ns

prometheus-client's own children take a lock and cost a microsecond; ours are plain attributes of one thread
(the event loop's), and threads that count for themselves are summed by ``computed``. Everything is handed to
prometheus-client only at exposition. Only metrics of the catalogue can be made, with exactly their labels.

Source: design 9, 5.3 (no label look-ups on the fast path).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from fs3.metric_catalogue import CATALOGUE, Kind, Metric

CHILDREN_MAX = 1000
"""Children of one metric: more means that something unbounded became a label."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counter:
    """A number that only grows: ``counter.value += n``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Gauge:
    """A number as it is now: ``gauge.value = n``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """A distribution. ``observe`` takes the catalogue's unit and costs about 200 ns."""

    __slots__ = ("_ends", "counts", "total")

    def __init__(self, ends: tuple[float, ...]) -> None:
        self._ends = ends
        self.counts = [0] * (len(ends) + 1)
        """Observations by bucket, not accumulated; the last bucket is above all ends."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self._ends, value)] += 1
        self.total += value

    def quantile(self, share: float) -> float:
        """Upper end of the bucket in which the quantile lies (infinity above the last end); 0 if empty."""
        assert 0 <= share <= 1, share
        count = sum(self.counts)
        if not count:
            return 0.0
        seen = 0
        for end, in_bucket in zip((*self._ends, float("inf")), self.counts, strict=True):
            seen += in_bucket
            if seen >= share * count and in_bucket:
                return end
        return float("inf")


class _Computed:
    """A counter or gauge whose value is asked for at exposition."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read

    @property
    def value(self) -> float:
        return self._read()


Rows = Mapping[str, tuple[str, Mapping[str, str]]]
"""Of a dataclass of plain counters: field → (metric, labels)."""

_Child = Counter | Gauge | Histogram | _Computed
_LabelValues = tuple[str, ...]


class Metrics(Collector):
    """All metrics of one process (or of one simulated node)."""

    def __init__(self, catalogue: Iterable[Metric] = CATALOGUE) -> None:
        self._catalogue = {metric.name: metric for metric in catalogue}
        self._children: dict[str, dict[_LabelValues, _Child]] = {}

    def counter(self, name: str, **labels: object) -> Counter:
        """The counter of ``name`` with these labels, made if new."""
        child = self._child(name, Kind.COUNTER, labels, lambda _: Counter())
        assert isinstance(child, Counter), name
        return child

    def gauge(self, name: str, **labels: object) -> Gauge:
        """The gauge of ``name`` with these labels, made if new."""
        child = self._child(name, Kind.GAUGE, labels, lambda _: Gauge())
        assert isinstance(child, Gauge), name
        return child

    def histogram(self, name: str, **labels: object) -> Histogram:
        """The histogram of ``name`` with these labels, made if new."""
        child = self._child(name, Kind.HISTOGRAM, labels, lambda metric: Histogram(metric.buckets))
        assert isinstance(child, Histogram), name
        return child

    def computed(self, name: str, read: Callable[[], float], **labels: object) -> None:
        """A counter or gauge whose value is ``read()`` at exposition; ``read`` is quick and does not fail.

        A second call with the same labels replaces the first (a component that was started again).
        """
        metric = self._catalogue.get(name)
        assert metric is not None, f"metric {name!r} is not in the catalogue"
        assert metric.kind is not Kind.HISTOGRAM, name
        self._children.get(name, {}).pop(_label_values(metric, labels), None)
        self._child(name, metric.kind, labels, lambda _: _Computed(read))

    def computed_fields(self, counters: object, rows: Rows, **labels: object) -> None:
        """``computed`` for each field of a dataclass of counters that ``rows`` names, read at exposition."""
        for field, (name, own_labels) in rows.items():
            self.computed(name, partial(getattr, counters, field), **own_labels, **labels)

    def _child(
        self, name: str, kind: Kind, labels: dict[str, object], make: Callable[[Metric], _Child]
    ) -> _Child:
        metric = self._catalogue.get(name)
        assert metric is not None, f"metric {name!r} is not in the catalogue"
        assert metric.kind is kind, f"{name} is a {metric.kind.value}"
        children = self._children.setdefault(name, {})
        values = _label_values(metric, labels)
        child = children.get(values)
        if child is None:
            assert len(children) < CHILDREN_MAX, f"{name}: more than {CHILDREN_MAX} label sets"
            child = children[values] = make(metric)
        return child

    def collect(self) -> Iterable[Family]:
        """What prometheus-client asks of a collector."""
        for name, metric in self._catalogue.items():
            children = self._children.get(name)
            if children:
                yield _family(metric, children)

    def exposition(self, *, with_process: bool = False) -> bytes:
        """The text that a Prometheus server scrapes; ``with_process`` adds CPU, memory, descriptors."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        if with_process:
            ProcessCollector(registry=registry)
        return generate_latest(registry)

    def values(self) -> dict[str, float]:
        """Every counter's and gauge's value under ``name{label="…"}``: for tests and status displays."""
        found: dict[str, float] = {}
        for name, children in self._children.items():
            labels = self._catalogue[name].labels
            for values, child in children.items():
                if not isinstance(child, Histogram):
                    pairs = ",".join(f'{k}="{v}"' for k, v in zip(labels, values, strict=True))
                    found[f"{name}{{{pairs}}}" if pairs else name] = child.value
        return found


def _label_values(metric: Metric, labels: dict[str, object]) -> _LabelValues:
    assert set(labels) == set(metric.labels), (
        f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}"
    )
    return tuple(str(labels[label]) for label in metric.labels)


def _family(metric: Metric, children: dict[_LabelValues, _Child]) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        histograms = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for values, child in children.items():
            assert isinstance(child, Histogram), metric.name
            histograms.add_metric(values, _accumulated(metric, child), child.total)
        return histograms
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    numbers = kind(metric.name, metric.help, labels=metric.labels)
    for values, child in children.items():
        assert not isinstance(child, Histogram), metric.name
        numbers.add_metric(values, child.value)
    return numbers


def _accumulated(metric: Metric, child: Histogram) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    seen = 0
    for end, count in zip((*metric.buckets, float("inf")), child.counts, strict=True):
        seen += count
        buckets.append(("+Inf" if end == float("inf") else repr(end), seen))
    return buckets

"""Metrics: the exposition is what Prometheus reads, and only the catalogue can be exported."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fs3.metric_catalogue import CATALOGUE, Kind, Metric
from fs3.metrics import CHILDREN_MAX, Metrics

HITS = Metric("t_hits_total", Kind.COUNTER, "hits", "Hits.", ("who",))
ROOM = Metric("t_room_bytes", Kind.GAUGE, "bytes", "Room.")
WAIT = Metric("t_wait_seconds", Kind.HISTOGRAM, "seconds", "Wait.", ("who",), (0.1, 1.0))
THREE = (HITS, ROOM, WAIT)


def samples(metrics: Metrics) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}[{labels}]"] = sample.value
    return found


def test_exposition_is_read_back() -> None:
    metrics = Metrics(THREE)
    metrics.counter(HITS.name, who="a").value += 3
    metrics.counter(HITS.name, who="a").value += 1
    metrics.counter(HITS.name, who='b"\n').value += 1
    metrics.gauge(ROOM.name).value = 1.5
    wait = metrics.histogram(WAIT.name, who="a")
    for value in (0.05, 0.1, 0.5, 7):
        wait.observe(value)
    assert samples(metrics) == {
        "t_hits_total[who=a]": 4,
        't_hits_total[who=b"\n]': 1,
        "t_room_bytes[]": 1.5,
        "t_wait_seconds_bucket[le=0.1,who=a]": 2,
        "t_wait_seconds_bucket[le=1.0,who=a]": 3,
        "t_wait_seconds_bucket[le=+Inf,who=a]": 4,
        "t_wait_seconds_count[who=a]": 4,
        "t_wait_seconds_sum[who=a]": pytest.approx(7.65),
    }
    assert metrics.values() == {
        't_hits_total{who="a"}': 4,
        't_hits_total{who="b"\n"}': 1,
        "t_room_bytes": 1.5,
    }


def test_computed_values_are_asked_for_at_exposition() -> None:
    metrics = Metrics(THREE)
    now = [1]
    metrics.computed(ROOM.name, lambda: now[0])
    now[0] = 2
    assert samples(metrics) == {"t_room_bytes[]": 2}
    metrics.computed(ROOM.name, lambda: 9)
    assert samples(metrics) == {"t_room_bytes[]": 9}


def test_only_the_catalogue_with_its_kinds_and_labels() -> None:
    metrics = Metrics(THREE)
    with pytest.raises(AssertionError, match="not in the catalogue"):
        metrics.counter("t_other_total")
    with pytest.raises(AssertionError, match="is a counter"):
        metrics.gauge(HITS.name, who="a")
    with pytest.raises(AssertionError, match="has the labels"):
        metrics.counter(HITS.name)
    for number in range(CHILDREN_MAX):
        metrics.counter(HITS.name, who=number)
    with pytest.raises(AssertionError, match="label sets"):
        metrics.counter(HITS.name, who="one more")


def test_process_figures_on_request() -> None:
    assert b"process_resident_memory_bytes" in Metrics(THREE).exposition(with_process=True)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_the_end_of_the_bucket_that_holds_it(values: list[float], share: float) -> None:
    histogram = Metrics(THREE).histogram(WAIT.name, who="a")
    for value in values:
        histogram.observe(value)
    rank = max(0, -int(-share * len(values) // 1) - 1)
    exact = sorted(values)[rank]
    found = histogram.quantile(share)
    assert exact <= found
    assert histogram.total == pytest.approx(sum(values))


def test_the_catalogue_keeps_its_own_rules() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(set(names)) == len(names)
    for metric in CATALOGUE:
        assert re.fullmatch(r"fs3_[a-z0-9]+(_[a-z0-9]+)+", metric.name), metric
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric
        assert metric.help.endswith("."), metric
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM), metric
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric
        if metric.unit in ("seconds", "bytes"):
            assert metric.name.removesuffix("_total").endswith(metric.unit), metric

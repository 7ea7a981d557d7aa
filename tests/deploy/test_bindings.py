"""Counters of the core's layers become metrics, all of them."""

from __future__ import annotations

import dataclasses

import pytest

from fs3.deploy.bindings import BOUND, bind
from fs3.metrics import Metrics


@pytest.mark.parametrize("kind", BOUND)
def test_every_field_is_exported_once_and_read_anew(kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    assert set(BOUND[kind]) == set(names)
    counters = kind()
    metrics = Metrics()
    bind(metrics, counters)
    for number, name in enumerate(names, 1):
        setattr(counters, name, number)
    assert sorted(metrics.values().values()) == list(range(1, len(names) + 1))

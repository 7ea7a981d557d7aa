"""Counters of the core's layers become metrics, all of them; the catalogue lists what is made, no more."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fs3.deploy import bindings
from fs3.kv.owner import OwnerStats
from fs3.kv.owner_link import LinkStats
from fs3.member import correspondence
from fs3.member import exported as member_exported
from fs3.metric_catalogue import CATALOGUE
from fs3.metrics import Metrics, Rows
from fs3.rpc import exported
from fs3.rpc.bulk_client import BulkClientCounters
from fs3.rpc.counters import ClientCounters, ServerCounters

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("kind", "rows", "labels"),
    [
        (ServerCounters, exported.SERVER, {"plane": "small"}),
        (ClientCounters, exported.CLIENT, {}),
        (BulkClientCounters, exported.BULK_CLIENT, {}),
        (correspondence.Counters, member_exported.DATAGRAMS, {}),
        (OwnerStats, bindings.OWNER, {}),
        (LinkStats, bindings.LINK, {}),
    ],
)
def test_every_field_is_exported_once_and_read_anew(kind: type, rows: Rows, labels: dict[str, str]) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    assert set(rows) == set(names)
    counters = kind()
    metrics = Metrics()
    metrics.computed_fields(counters, rows, **labels)
    for number, name in enumerate(names, 1):
        setattr(counters, name, number)
    assert sorted(metrics.values().values()) == list(range(1, len(names) + 1))


def test_every_metric_of_the_catalogue_is_made_somewhere() -> None:
    folders = ("fs3", "meta", "storage", "mgmtd", "client", "deploy")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources if path.name != "metric_catalogue.py")
    never = [metric.name for metric in CATALOGUE if f'"{metric.name}"' not in text]
    assert not never

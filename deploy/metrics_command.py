"""``fs3 metrics``: the catalogue of metrics, for people and for programs."""

from __future__ import annotations

import json

import click

from fs3.metric_catalogue import CATALOGUE


@click.command(epilog="Example: fs3 metrics --json | jq '.[].name'")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead of a table.")
def metrics(as_json: bool) -> None:
    """List every metric that fs3's daemons export at /metrics: name, type, labels, meaning."""
    if as_json:
        rows = [metric._asdict() | {"kind": metric.kind.value} for metric in CATALOGUE]
        click.echo(json.dumps(rows, indent=2))
        return
    for metric in CATALOGUE:
        labels = f"{{{', '.join(metric.labels)}}}" if metric.labels else ""
        click.echo(f"{metric.name}{labels}\n    {metric.kind.value}, {metric.unit}: {metric.help}")

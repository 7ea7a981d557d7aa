"""The fs3 command: its table holds, and its help is made from the table alone."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import fs3
from fs3.deploy.main import COMMANDS, Row, TableGroup, cli
from fs3.metric_catalogue import CATALOGUE

NAMES = [name for rows in COMMANDS.values() for name in rows]


@pytest.mark.parametrize("name", NAMES)
def test_every_row_leads_to_a_command_that_explains_itself(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help


def test_help_names_every_command_and_imports_none() -> None:
    code = (
        "import sys; from fs3.deploy import main\n"
        "try: main.cli(['--help'])\nexcept SystemExit: pass\n"
        "slow = {'asyncio', 'uvloop', 'rich', 'msgspec', 'lmdb', 'structlog', 'prometheus_client'}\n"
        "print('IMPORTED', sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "IMPORTED []"
    for name in NAMES:
        assert f"\n  {name} " in done.stdout


def test_version_and_an_unknown_command() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"fs3, version {fs3.__version__}\n"
    done = CliRunner().invoke(cli, ["metrisc"])
    assert done.exit_code == 2
    assert "No such command 'metrisc'. Did you mean 'metrics'?" in done.output


def test_a_name_is_listed_once() -> None:
    row = Row("fs3.deploy.metrics_command:metrics", "M.")
    with pytest.raises(AssertionError, match="listed twice"):
        TableGroup({"A": {"m": row}, "B": {"m": row}}, name="x")


def test_metrics_lists_the_catalogue() -> None:
    text = CliRunner().invoke(cli, ["metrics"]).output
    rows = json.loads(CliRunner().invoke(cli, ["metrics", "--json"]).output)
    assert [row["name"] for row in rows] == [metric.name for metric in CATALOGUE]
    for metric in CATALOGUE:
        assert metric.name in text
        assert metric.help in text

"""Settings files of the daemons: few, with units, and each written and read back."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest

from fs3.config import BadSettings, assert_names_carry_units, parse_settings
from fs3.daemon import DaemonSettings
from fs3.deploy.compose_mgmtd import MgmtdDaemonSettings, timing_of, timings_fit

DEPLOY = Path(__file__).parents[2] / "deploy"
SETTINGS_MAX = 12
"""Of one daemon, without the table [daemon] that all share (design 2.10)."""


def settings_classes() -> list[type]:
    """Every class of settings with a field ``daemon`` that a module of deploy defines."""
    found = []
    for path in sorted(DEPLOY.glob("compose_*.py")):
        module = importlib.import_module(f"fs3.deploy.{path.stem}")
        found += [
            one
            for one in vars(module).values()
            if dataclasses.is_dataclass(one) and isinstance(one, type) and one.__module__ == module.__name__
        ]
    return [one for one in found if any(field.name == "daemon" for field in dataclasses.fields(one))]


@pytest.mark.parametrize("kind", settings_classes())
def test_a_daemon_has_at_most_a_dozen_settings_with_units(kind: type) -> None:
    assert_names_carry_units(kind)
    own = [field.name for field in dataclasses.fields(kind) if field.name != "daemon"]
    assert len(own) <= SETTINGS_MAX, own


def test_the_shared_part_is_small_too() -> None:
    assert len(dataclasses.fields(DaemonSettings)) <= 6
    assert settings_classes()


def test_times_that_do_not_fit_together_are_refused_with_their_line() -> None:
    text = 'node_id = 1\nlisten = "h:1"\ncluster_key = "k"\nkv = "lmdb:///d"\n'
    settings = parse_settings(MgmtdDaemonSettings, text + "link_quarantine_s = 5\n", "m.toml", timings_fit)
    assert timing_of(settings).link_quarantine_s == 5.0
    with pytest.raises(BadSettings, match=r"m\.toml:5: link_quarantine_s must be long enough"):
        parse_settings(MgmtdDaemonSettings, text + "link_quarantine_s = 1\n", "m.toml", timings_fit)

"""Scenarios of one chain against their transcripts; random ones, after which everybody serves again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.routing import TargetState

from .chain_play import CHAIN, SCENARIOS, Play, play
from .chain_rules import check_record

HEALING_S = 65.0
"""A quarantine of links, and then all that follows."""


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.txt")), ids=lambda path: path.stem)
def test_a_scenario_goes_as_written(path: Path) -> None:
    text = path.read_text()
    assert play(text) == text, "if it is right: python -m tests.mgmtd.chain_play, and read the difference"


FAULTS = (
    *("kill", "start", "silence", "heard", "disk", "forged"),
    *("unwanted", "wanted", "deaf", "hears", "primary", "cut", "mend"),
)
TROUBLE = st.tuples(st.integers(0, 60), st.sampled_from(FAULTS), st.integers(1, 4))
"""How long after the last one (0.1 s), what, and to whom."""


@given(count=st.integers(1, 4), trouble=st.lists(TROUBLE, max_size=14))
def test_after_any_trouble_everybody_serves_again(count: int, trouble: list[tuple[int, str, int]]) -> None:
    numbers = [str(n) for n in range(1, count + 1)]
    script = [(0.0, ["members", *numbers])]
    at_s = 2.0
    for wait, name, number in trouble:
        at_s += wait / 10
        which = str((number - 1) % count + 1)
        other = str(number % count + 1)
        words = {"primary": [], "cut": [which, other], "mend": [which, other]}
        script.append((at_s, [name, *words.get(name, [which])]))
    for one in numbers:  # all is mended: what stored its bytes still has them
        script += [(at_s + 4.0, [name, one]) for name in ("heard", "hears", "wanted", "kill")]
        script += [(at_s + 4.0, ["mend", one, other]) for other in numbers]
        script.append((at_s + 5.0, ["start", one]))
    script.append((at_s + HEALING_S, ["end"]))
    played = Play()
    lines = played.run(sorted(script, key=lambda step: step[0]))
    info = played.routing.chains[CHAIN]
    check_record(info)
    states = [m.state for m in info.members if not m.joining]
    assert states == [TargetState.SERVING] * count, "\n".join(lines)

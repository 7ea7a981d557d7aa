"""``docs/kv.md`` says what the code does: numbers of messages, mutations and verdicts, and the bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from fs3.kv.conflicts import WINDOW_S
from fs3.kv.messages import FRAME_MAX_BYTES, PROTOCOL, ToClient, ToOwner
from fs3.kv.mutations import Kind
from fs3.kv.owner_link import verdict_error
from fs3.kv.resolver import Verdict

PAGE = (Path(__file__).parents[2] / "docs" / "kv.md").read_text()


def table(heading: str) -> dict[str, list[str]]:
    """First column → the other cells, of the table whose first heading is ``heading``."""
    _, _, after = PAGE.partition(f"| {heading} |")
    assert after, heading
    rows: dict[str, list[str]] = {}
    for line in after.splitlines()[2:]:
        if not line.startswith("|"):
            break
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        rows[first] = rest
    return rows


def test_messages() -> None:
    for heading, union in (("from client", ToOwner), ("from owner", ToClient)):
        kinds = {kind.__name__: str(kind.__struct_config__.tag) for kind in get_args(union)}
        assert {name: cells[0] for name, cells in table(heading).items()} == kinds


def test_mutations_and_verdicts() -> None:
    assert {name: int(cells[0]) for name, cells in table("mutation").items()} == {
        kind.name: kind.value for kind in Kind
    }
    verdicts = table("verdict")
    assert {name: int(cells[0]) for name, cells in verdicts.items()} == {v.name: v.value for v in Verdict}
    for verdict in Verdict:
        if verdict is not Verdict.COMMITTED:
            assert type(verdict_error(verdict, "")).__name__ == verdicts[verdict.name][1]


def test_bounds() -> None:
    assert f"at most {FRAME_MAX_BYTES // 2**20} MiB" in PAGE
    assert f"protocol ({PROTOCOL})" in PAGE
    assert re.search(rf"at most {WINDOW_S:g} s old", PAGE)

"""Power cuts under the embedded store, and that the check would find a store that does not sync."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from .owner_process import ROOT
from .power_cut import run


async def test_power_cuts_sampled(tmp_path: Path) -> None:
    await run(tmp_path, commits=60, stride=5, subsets=1, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 6))
async def test_power_cuts_everywhere(tmp_path: Path, seed: int) -> None:
    await run(tmp_path, commits=400, stride=1, subsets=3, seed=seed)


@pytest.mark.parametrize("mode", ["syncs", "none"])
async def test_the_check_finds_a_store_without_syncs(tmp_path: Path, mode: str) -> None:
    """Were the pages not synced before the meta page, the meta page could name pages that are not there."""
    command = (sys.executable, "-m", "tests.kv.power_cut", os.fspath(tmp_path), mode)
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL)
    code = await child.wait()
    assert (code == 0) == (mode == "syncs"), code

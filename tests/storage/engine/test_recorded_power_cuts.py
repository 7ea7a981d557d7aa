"""Power cuts of the real pair, files and LMDB: its calls are recorded, each prefix is made into a disk again,
with random parts of what was not synced, opened and checked."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fs3.errors import InvalidRequest
from fs3.rng import Rng, derived_rng
from fs3.storage.disk import OsDisk
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import EngineParts

from ...power.calls import Call, Write, decode
from ...power.image import write_image
from .crash_work import Run, matches
from .model import Model
from .shop import SMALL, TARGET, HandClock, SimShop

ROOT = Path(__file__).parents[3]


def record(folder: Path, seed: int, steps: int) -> list[Call]:
    """Run the workload under the recorder."""
    work = folder / "work"
    work.mkdir()
    program = [sys.executable, "-m", "tests.storage.engine.recorded_work", str(work), str(seed), str(steps)]
    recorder = [sys.executable, "-m", "tests.power.recorder", str(folder / "calls"), str(work), "--"]
    done = subprocess.run(recorder + program, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return decode((folder / "calls").read_bytes())


class LoggedRun(Run):
    """Keeps what was allowed at each mark."""

    log: list[list[Model]]

    def changed(self) -> None:
        self.log.append(list(self.allowed))


def allowed_states(seed: int, steps: int) -> list[list[Model]]:
    """The same workload on a simulated disk: what each mark stands for."""
    shop = SimShop()
    run = LoggedRun(seed, shop.create(), Model(), 1)
    run.log = [list(run.allowed)]
    for _ in range(steps):
        shop.clock.now_s += 8
        run.step()
    return run.log


def check_cut(calls: list[Call], cut: int, states: list[list[Model]], seed: int, share: float) -> None:
    """Open what a cut leaves."""
    marks = sum(isinstance(call, Write) and call.path == "marks" for call in calls[:cut])
    with tempfile.TemporaryDirectory() as folder:
        write_image(calls, cut, Path(folder), derived_rng(seed, f"image {cut} {share}"), share)
        disk = OsDisk()
        parts = EngineParts(disk, index_opener(disk, Rng(seed)), HandClock(5000.0))
        try:
            store = ChunkStore.open(f"{folder}/t", TARGET, parts, SMALL)
        except InvalidRequest:
            assert marks == 0, "a store that was made is gone"
            return
        try:
            matches(store, states[max(0, marks - 1)])
        finally:
            store.close()
            disk.close()


def test_a_sample_of_cuts_of_the_real_pair(tmp_path: Path) -> None:
    calls, states = record(tmp_path, 1, 25), allowed_states(1, 25)
    rng = derived_rng(1, "cuts")
    marks = [number for number, call in enumerate(calls) if isinstance(call, Write) and call.path == "marks"]
    assert len(marks) == len(states)
    for cut in sorted(rng.sample(range(marks[0], len(calls) + 1), 30)):
        check_cut(calls, cut, states, 1, rng.choice((0.0, 0.3, 0.7, 1.0)))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 8))
def test_every_cut_of_the_real_pair(tmp_path: Path, seed: int) -> None:
    calls, states = record(tmp_path, seed, 40), allowed_states(seed, 40)
    for cut in range(len(calls) + 1):
        for share in (0.0, 0.3, 0.7, 1.0):
            check_cut(calls, cut, states, seed, share)

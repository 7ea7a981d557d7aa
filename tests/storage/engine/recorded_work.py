"""The workload of the power cut tests on real files and LMDB, as a program that the recorder runs.

    python -m tests.storage.engine.recorded_work FOLDER SEED STEPS

Makes a store in FOLDER/t. Each time that another set of states is allowed it appends a byte to FOLDER/marks.
"""

from __future__ import annotations

import os
import sys

from fs3.rng import Rng
from fs3.storage.disk import OsDisk
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import EngineParts

from .crash_work import Run
from .model import Model
from .shop import SMALL, TARGET, HandClock

LOG_BYTES = 8 * 4096
"""So little that checkpoints are among the calls."""


class MarkedRun(Run):
    """Marks each change of what is allowed."""

    marks = -1

    def changed(self) -> None:
        if self.marks >= 0:
            os.write(self.marks, b".")


def main() -> None:
    folder, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    disk = OsDisk(lanes=1)
    clock = HandClock()
    parts = EngineParts(disk, index_opener(disk, Rng(seed), LOG_BYTES), clock)
    store = ChunkStore.create(f"{folder}/t", TARGET, 5, parts, SMALL)
    run = MarkedRun(seed, store, Model(), 1)
    run.marks = os.open(f"{folder}/marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    run.changed()
    for _ in range(steps):
        clock.now_s += 8
        run.step()
    os._exit(0)  # no clean close: the power goes at the latest here


if __name__ == "__main__":
    main()

"""Looks at each disk now and then: one that nobody writes to fails unseen otherwise. Event loop only.

A file system that was unmounted under its open files, or is read-only since the kernel found an error, still
answers reads from memory. Its targets go OFFLINE when that is seen, not when the next write comes. A disk
that does not answer at all keeps its own lane waiting, and nobody else.

Source: design 4.7.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from fs3.tasks import TaskScope

from .disk import Disk, DiskFailed
from .disks import disk_marker
from .lanes import Lanes
from .runner import TargetRunner

PROBE_S = 2.0


def watch_disks(
    disks: Sequence[tuple[Disk, str, Sequence[TargetRunner]]], lanes: Lanes, scope: TaskScope
) -> None:
    """Begin. ``disks``: each with its directory and its targets in use."""
    for number, (disk, directory, runners) in enumerate(disks):
        scope.spawn(f"disk {directory}", _watch(disk, directory, runners, lanes, f"probe-{number}"))


async def _watch(
    disk: Disk, directory: str, runners: Sequence[TargetRunner], lanes: Lanes, lane: str
) -> None:
    """Until the disk has failed."""
    while True:
        await asyncio.sleep(PROBE_S)
        try:
            await lanes.run(lane, partial(disk.probe, disk_marker(directory)))
        except DiskFailed as error:
            for runner in runners:
                runner.report_disk_failed(str(error))
            return

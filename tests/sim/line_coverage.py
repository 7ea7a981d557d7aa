"""Which lines of the product the simulator alone reaches, by package.

``coverage`` slows seeds down several times, so a sample of them is run for it. Lines of what the simulated
world replaces by its own (threads, sockets, real disks) are counted apart: no seed can reach them.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import coverage

PACKAGES = ("rpc", "storage", "mgmtd", "meta")
REPLACED = (
    "rpc/blocking*.py", "rpc/bulk_*.py", "rpc/thread_calls.py",  # the bulk plane: sockets in threads
    "storage/disk.py", "storage/lanes.py", "storage/lane_writes.py",  # the disk, and threads
    "storage/engine/lmdb_records.py", "storage/engine/log_file.py", "storage/engine/logged_index.py",
    "storage/engine/index_log.py",  # the index below the seam, which the world has one of its own for
    "storage/hop.py",  # a hop of the bulk plane
)  # fmt: skip
"""Files below ``fs3`` that the simulated world has something else for."""


def shares(directory: Path, tree: Path) -> dict[str, float]:
    """Share of lines that ran, by package, from what workers left in ``directory``.

    Beside it: a list of the lines that did not (``uncovered.txt``).
    """
    measured = coverage.Coverage(
        data_file=str(directory / "lines"), config_file=False, source_pkgs=["fs3"], messages=False
    )
    measured.combine([str(path) for path in sorted(directory.glob("lines.*"))], strict=True)
    counts: dict[str, list[int]] = {}
    missing: list[str] = []
    for path in sorted(measured.get_data().measured_files()):
        name = _name(Path(path), tree)
        package = name.partition("/")[0]
        if package not in PACKAGES:
            continue
        _, statements, _, lines, text = measured.analysis2(path)
        places = [package, f"{package}, with what is replaced"]
        for place in places[_is_replaced(name) :]:
            of_place = counts.setdefault(place, [0, 0])
            of_place[0] += len(statements) - len(lines)
            of_place[1] += len(statements)
        if lines:
            missing.append(f"{name}{' (replaced)' * _is_replaced(name)}: {text}")
    (directory / "uncovered.txt").write_text("\n".join(missing) + "\n")
    return {place: ran / max(1, all_of_it) for place, (ran, all_of_it) in sorted(counts.items())}


def _name(path: Path, tree: Path) -> str:
    """As it is imported: ``storage/gate.py``, wherever the link leads."""
    inside = path.relative_to(tree).as_posix()
    return inside.removeprefix("fs3/")


def _is_replaced(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in REPLACED)

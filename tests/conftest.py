"""What holds for every test: nothing leaks, nothing is skipped in silence, tiers and profiles.

Tiers: without options the default tier runs (everything not marked ``slow``). ``--tier=slow`` runs the rest,
``--tier=all`` both; ``--slice=3/10`` takes the fourth tenth of the slow tests, the same on every machine.

Skips: only tests marked ``fdb`` may be skipped (they need a FoundationDB cluster); any other skip fails.

Leaks: a test that leaves a thread, a file descriptor, a child process or a pending asyncio task fails.

Hypothesis: the profile ``default`` is small and derandomized, ``soak`` long and random
(``--hypothesis-profile=soak``).
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    derandomize=True,
    max_examples=60,
    deadline=None,  # two cores shared with others: time says nothing about the code
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "soak", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("default")

SETTLE_S = 1.0
"""How long what was closed may take to be gone: a joined thread's entry, a reaped child."""
LASTING_THREADS = ("pytest_timeout", "execnet")
LASTING_FILES = ("/dev/null", "/dev/urandom", "/dev/random", "anon_inode:[pidfd]")
LASTING_PROCESSES = ("resource_tracker", "forkserver")
"""multiprocessing's own, one a Python process until its end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fs3")
    group.addoption("--tier", choices=["default", "slow", "all"], default="default", help="which tests run")
    group.addoption("--slice", metavar="N/M", help="of the slow tests only slice N (from 0) of M")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tier = config.getoption("--tier")
    number, _, count = (config.getoption("--slice") or "0/1").partition("/")
    has_loop_devices = os.geteuid() == 0 and os.path.exists("/dev/loop-control")
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        if item.get_closest_marker("slow") is not None:
            wanted = tier != "default" and _slice_of(item.nodeid, int(count)) == int(number)
        else:
            wanted = tier != "slow"
        if item.get_closest_marker("loop_devices") is not None:
            wanted = wanted and has_loop_devices
        (kept if wanted else dropped).append(item)
    kept.sort(key=lambda item: item.get_closest_marker("slow") is not None)  # quick ones first
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    items[:] = kept


def _slice_of(name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("fdb") is None:
        report.outcome = "failed"
        report.longrepr = f"only tests that need FoundationDB may be skipped: {report.longrepr}"
    return report


_pending_tasks: list[str] = []
_runners: Any = asyncio.runners
_cancel_all_tasks = _runners._cancel_all_tasks


def _note_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
    """asyncio.Runner cancels what is left at its end without a word, and nothing public tells of it."""
    _pending_tasks.extend(task.get_name() for task in asyncio.all_tasks(loop))
    _cancel_all_tasks(loop)


_runners._cancel_all_tasks = _note_and_cancel


def _threads() -> set[str]:
    return {
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if not thread.name.startswith(LASTING_THREADS) and "pytest_timeout" not in thread.name
    }


def _descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the listing's own descriptor
            continue
        if target not in LASTING_FILES:
            found.add(f"descriptor {number} -> {target}")
    return found


def _children() -> set[str]:
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            children = path.read_text().split()
            commands = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        for child, command in commands.items():
            shown = command.replace(b"\0", b" ").decode(errors="replace").strip()
            if not any(name in shown for name in LASTING_PROCESSES):
                found.add(f"process {child}: {shown[:200] or 'ended and not waited for'}")
    return found


def _resources() -> set[str]:
    return _threads() | _descriptors() | _children()


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Set up before, and torn down after, all other fixtures of a test (but not those of wider scope)."""
    _pending_tasks.clear()
    before = _resources()
    yield
    left = _resources() - before
    deadline_s = time.monotonic() + SETTLE_S
    while left and time.monotonic() < deadline_s:
        gc.collect()
        time.sleep(0.01)
        left = _resources() - before
    tasks = [f"task {name}" for name in _pending_tasks]
    _pending_tasks.clear()
    if left or tasks:
        pytest.fail("left behind: " + "; ".join([*sorted(left), *tasks]), pytrace=False)

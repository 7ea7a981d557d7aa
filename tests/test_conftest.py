"""The suite's own guards, run on small suites: leaks and silent skips fail, tiers and slices divide."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SETTINGS = """
[tool.pytest.ini_options]
addopts = "--import-mode=importlib -p no:cacheprovider"
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
markers = ["slow", "fdb"]
"""


def run(tmp_path: Path, tests: str, *options: str) -> str:
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    shutil.copy(HERE / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text("import asyncio, os, subprocess, threading, pytest\n" + tests)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


LEAKS = {
    "a thread": ("threading.Thread(target=E.wait, name='lost', daemon=True).start()", "thread lost"),
    "a descriptor": ("os.open('/etc/hostname', os.O_RDONLY)", "-> /etc/hostname"),
    "a child": ("P.append(subprocess.Popen(['sleep', '60']))", ": sleep 60"),
    "a task": (
        "async def f():\n        t = asyncio.create_task(asyncio.sleep(60), name='lost')\n"
        "        await asyncio.sleep(0)\n    asyncio.run(f())",
        "task lost",
    ),
}


def test_each_kind_of_leak_fails_the_test_that_leaves_it(tmp_path: Path) -> None:
    tests = "E = threading.Event()\nP = []\n"
    for number, (body, _) in enumerate(LEAKS.values()):
        tests += f"def test_{number}():\n    {body}\n"
    tests += "async def test_async():\n    T = asyncio.create_task(E_wait(), name='lost too')\n"
    tests += "async def E_wait():\n    await asyncio.Event().wait()\n"
    tests += "def test_clean():\n    E.set()\n    [p.kill() or p.wait() for p in P]\n"
    out = run(tmp_path, tests)
    for _, shown in LEAKS.values():
        assert "left behind: " in out
        assert shown in out
    assert "task lost too" in out
    assert "6 passed, 5 errors" in out


def test_a_skip_fails_unless_it_waits_for_foundationdb(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        "def test_a():\n    pytest.skip('no')\n"
        "@pytest.mark.fdb\ndef test_b():\n    pytest.skip('no cluster')\n"
        "@pytest.mark.xfail(reason='x')\ndef test_c():\n    assert False\n",
    )
    assert "1 failed, 1 skipped, 1 xfailed" in out


FORTY_SLOW = "@pytest.mark.slow\n@pytest.mark.parametrize('n', range(40))\ndef test_slow(n): pass\n"


@pytest.mark.parametrize(
    ("options", "summary"),
    [
        ([], "1 passed, 40 deselected"),
        (["--tier=slow"], "40 passed, 1 deselected"),
        (["--tier=all"], "41 passed"),
    ],
)
def test_tiers(tmp_path: Path, options: list[str], summary: str) -> None:
    tests = "def test_quick(): pass\n" + FORTY_SLOW
    assert f"= {summary} in " in run(tmp_path, tests, *options)


def test_slices_divide_the_slow_tests(tmp_path: Path) -> None:
    seen: list[str] = []
    for number in range(2):
        out = run(tmp_path, FORTY_SLOW, "--tier=slow", f"--slice={number}/2")
        seen += [line.split(" ")[1] for line in out.splitlines() if line.startswith("PASSED")]
    assert len(seen) == 40
    assert len(set(seen)) == 40

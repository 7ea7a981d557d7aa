"""``.ci/set-up`` says what a machine lacks, and does nothing when the environment is ready.

The machine is a folder of links to the few tools the script may use, so that what is missing is missing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "dirname", "id", "sed", "sha256sum", "cut", "cat", "flock", "rm", "env")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    clone = tmp_path / "a clone"
    (clone / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/set-up", clone / ".ci")
    shutil.copy(ROOT / "pyproject.toml", clone)
    return clone


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    machine = tmp_path / "bin"
    machine.mkdir()
    for tool in (*TOOLS, "git"):
        found = shutil.which(tool)
        assert found is not None, tool
        (machine / tool).symlink_to(found)
    return machine


def script(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
    path.chmod(0o755)


def set_up(clone: Path, machine: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(clone / ".ci/set-up")],
        env={"PATH": str(machine), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_python(clone: Path, machine: Path) -> None:
    done = set_up(clone, machine)
    assert done.returncode == 1
    assert "Python 3.11 or newer is missing" in done.stderr
    assert "install" in done.stderr


def test_an_old_python_is_named(clone: Path, machine: Path) -> None:
    script(machine / "python3", 'if [ "$1" = --version ]; then echo "Python 3.9.2"; else exit 1; fi')
    done = set_up(clone, machine)
    assert done.returncode == 1
    assert "Python 3.11 or newer is missing (python3 is Python 3.9.2)" in done.stderr


def test_no_venv_module(clone: Path, machine: Path) -> None:
    script(machine / "apt-get", "")
    script(
        machine / "python3",
        f'case "$2" in *"import venv"*) exit 1 ;; esac; exec "{sys.executable}" "$@"',
    )
    done = set_up(clone, machine)
    assert done.returncode == 1
    assert "the package python3-venv is missing" in done.stderr
    assert "apt-get install -y python3 python3-venv git make" in done.stderr


def test_no_git(clone: Path, machine: Path) -> None:
    (machine / "git").unlink()
    done = set_up(clone, machine)
    assert done.returncode == 1
    assert "git is missing" in done.stderr


def test_a_failing_install_is_a_failure_and_leaves_no_stamp(clone: Path, machine: Path) -> None:
    pip = '[ "$2" = pip ] && exit 1\nexit 0'
    script(
        machine / "python3",
        'if [ "$2" = venv ]; then "$0-make"; else ' + f'exec "{sys.executable}" "$@"; fi',
    )
    script(clone / "fake-python", pip)
    script(machine / "python3-make", "mkdir -p .venv/bin && cp fake-python .venv/bin/python")
    for tool in ("mkdir", "cp"):
        (machine / tool).symlink_to(str(shutil.which(tool)))
    done = set_up(clone, machine)
    assert done.returncode == 1
    assert "is the package index reachable?" in done.stderr
    assert not (clone / ".venv/fs3-set-up").exists()


def test_a_ready_environment_is_left_alone(clone: Path, machine: Path) -> None:
    (machine / "python3").symlink_to(sys.executable)
    (clone / ".venv").mkdir()
    contents = hashlib.sha256((clone / "pyproject.toml").read_bytes()).hexdigest()
    version = sys.version.split()[0]
    (clone / ".venv/fs3-set-up").write_text(f"{contents}\n{version} {clone}\n")
    done = set_up(clone, machine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""Packaging: the hand-written lists equal the tree, links lead where the map says, a wheel leaks no name."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
MAPPED: dict[str, str] = {name: folder for name, folder in SETUPTOOLS["package-dir"].items() if name != "fs3"}


def packages_of_the_tree() -> set[str]:
    found = set()
    for name, folder in {"fs3": "fs3", **MAPPED}.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            inner = path.parent.relative_to(ROOT / folder)
            linked = any((ROOT / folder / part).is_symlink() for part in (inner, *inner.parents) if part.name)
            if not linked:
                found.add(".".join((name, *inner.parts)))
    return found


def test_the_list_of_packages_equals_the_tree() -> None:
    listed = SETUPTOOLS["packages"]
    assert len(set(listed)) == len(listed)
    assert set(listed) == packages_of_the_tree()


def test_no_folder_with_code_lacks_its_init() -> None:
    folders = {path.parent for top in ("fs3", *MAPPED.values()) for path in (ROOT / top).rglob("*.py")}
    assert not [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()]


@pytest.mark.parametrize(("name", "folder"), MAPPED.items())
def test_links_and_guards(name: str, folder: str) -> None:
    link = ROOT / "fs3" / name.removeprefix("fs3.")
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"import this package as {name}, not {folder}" in done.stderr


def test_what_a_wheel_holds(tmp_path: Path) -> None:
    """Built from a copy of the files alone: a stale egg-info or build folder must not help."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "fs3", *MAPPED.values()):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, clone / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, clone)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(tmp_path), str(clone)],
        check=True,
        timeout=100,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    outside = [name for name in names if not name.startswith(("fs3/", "fs3_filesystem-"))]
    assert not outside
    modules = {name for name in names if name.endswith(".py")}
    expected = {
        f"{package.replace('.', '/')}/{path.name}"
        for package in SETUPTOOLS["packages"]
        for path in _folder_of(package).glob("*.py")
    }
    assert modules == expected
    assert "fs3/py.typed" in names


def _folder_of(package: str) -> Path:
    for name, folder in MAPPED.items():
        if package == name or package.startswith(name + "."):
            return ROOT / folder / package.removeprefix(name).replace(".", "/").strip("/")
    return ROOT / package.replace(".", "/")


def test_the_console_script_is_the_composition_root() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="fs3")
    assert script.value == "fs3.deploy.main:main"
    assert callable(script.load())

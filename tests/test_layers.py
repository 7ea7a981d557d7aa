"""The star of imports: components import the core and themselves, never one another; nobody imports deploy.

The contracts of import-linter say the same to tools that draw import graphs; here it is read from the files,
which also sees imports inside functions and the form (relative inside a component, absolute for the core).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPONENTS = ("meta", "storage", "mgmtd", "client")


def violations(folder: str, text: str, depth: int = 1) -> list[str]:
    """What the imports of a file break. ``depth``: its folder's distance from the component's parent."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level > depth:
                found.append(f"{node.lineno}: climbs out of {folder}")
            continue
        else:
            continue
        found += [f"{node.lineno}: {broken}" for module in modules if (broken := _broken(folder, module))]
    return found


def _broken(folder: str, module: str) -> str | None:
    top, _, rest = module.partition(".")
    part = rest.split(".")[0]
    if top in (*COMPONENTS, "deploy", "tests"):
        return f"imports {module}: the name is fs3.{module}" if top != "tests" else "imports the tests"
    if top != "fs3" or folder == "deploy":
        return None
    if part == folder:
        return f"imports itself as {module}: relatively, from .x import y"
    if part in COMPONENTS or part == "deploy":
        return f"imports {module}: components share only the core"
    return None


def files() -> list[Path]:
    return [
        path
        for folder in ("fs3", *COMPONENTS, "deploy")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not any(parent.is_symlink() for parent in path.parents)
    ]


def test_every_import_keeps_the_star() -> None:
    found = []
    for path in files():
        relative = path.relative_to(ROOT)
        broken = violations(relative.parts[0], path.read_text(), len(relative.parts) - 1)
        found += [f"{relative}:{violation}" for violation in broken]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("folder", "text", "expected"),
    [
        ("meta", "from fs3.storage import engine", "components share only the core"),
        ("meta", "from fs3 import storage", "components share only the core"),
        ("meta", "def f():\n    import fs3.client.x", "components share only the core"),
        ("fs3", "from fs3.meta import inode", "components share only the core"),
        ("client", "from fs3.deploy.main import cli", "components share only the core"),
        ("meta", "from fs3.meta.inode import Inode", "relatively"),
        ("meta", "import storage.disk", "the name is fs3.storage.disk"),
        ("meta", "from .. import storage", "climbs out"),
        ("meta", "from tests.sim import loop", "imports the tests"),
    ],
)
def test_a_planted_import_is_found(folder: str, text: str, expected: str) -> None:
    (found,) = violations(folder, text)
    assert expected in found


def test_what_is_allowed_passes() -> None:
    assert not violations(
        "meta", "from fs3.wire import meta\nfrom .inode import Inode\nimport fs3.ids\nimport os"
    )
    assert not violations("deploy", "from fs3.storage import server\nfrom fs3.meta import server as other")


def test_the_import_contracts_hold() -> None:
    code = "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [3-9] kept, 0 broken", done.stdout), done.stdout

"""``docs/mistakes.md``: every row names tests that exist, or says what is open."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[^`]+\.py)::([a-z0-9_]+)`")


def _tests_of(path: Path) -> set[str]:
    functions = ast.FunctionDef, ast.AsyncFunctionDef
    return {
        node.name.removeprefix("test_")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, functions) and node.name.startswith("test_")
    }


def test_every_mistake_has_its_tests_or_says_what_is_open() -> None:
    rows = ROW.findall((ROOT / "docs" / "mistakes.md").read_text())
    assert [int(number) for number, *_ in rows] == list(range(1, 35))
    for number, _, _, tests in rows:
        named = NAMED.findall(tests)
        assert named or "*open: " in tests, f"mistake {number} names no test"
        for path, name in named:
            assert name in _tests_of(ROOT / path), f"mistake {number}: {path} has no test_{name}"

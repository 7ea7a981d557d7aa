"""The house rules hold in the whole tree, and the rules find what they are meant to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import house_rules
from tests.house_rules import violations

ROOT = Path(__file__).parents[1]
FOLDERS = ("fs3", "meta", "storage", "mgmtd", "client", "deploy", "tests")


def tree() -> list[str]:
    """Every Python file of ours, once: the links fs3/meta … are not followed."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if not any(parent.is_symlink() for parent in path.parents)
    )


def test_the_tree_keeps_the_house_rules() -> None:
    found = [str(one) for path in tree() for one in violations(path, (ROOT / path).read_text())]
    assert not found, "\n" + "\n".join(found)


def test_no_exception_from_the_rules_is_stale() -> None:
    lists = house_rules.PURE + house_rules.SHELLS + house_rules.THREADED + house_rules.TASK_MAKERS
    stale = [path for path in lists if "*" not in path and path not in tree()]
    assert not stale


HEAD = '"""A module."""\n'
LONG = "def _f():\n" + "    x = 1\n" * 60
DEEP = "def _f(a):\n" + "".join(" " * 4 * n + "if a:\n" for n in range(1, 6)) + " " * 24 + "pass\n"
ELIF = "def _f(a):\n" + "    if a:\n        pass\n" + "    elif a:\n        pass\n" * 8


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("storage/utils.py", "", "named for what it holds"),
        ("tests/helpers.py", "", "named for what it holds"),
        ("meta/a.py", LONG, "_f has 61 lines"),
        ("meta/a.py", "\n" * 500, "501 lines"),
        ("meta/a.py", DEEP, "nests 5 deep"),
        ("meta/a.py", "# TO" + "DO: more\n", "done later"),
        ("tests/a.py", "# FIX" + "ME\n", "done later"),
        ("meta/a.py", "def _f():\n    raise NotImplementedError\n", "no stubs"),
        ("meta/a.py", "try:\n    pass\nexcept Exception:\n    pass\n", "catches Exception"),
        ("meta/a.py", "try:\n    pass\nexcept (ValueError, BaseException):\n    pass\n", "name the errors"),
        ("meta/a.py", "try:\n    pass\nexcept:\n    pass\n", "catches everything"),
        ("meta/a.py", "def f():\n    pass\n", "f is public"),
        ("meta/a.py", "class C:\n    pass\n", "C is public"),
        ("meta/a.py", 'class C:\n    """C."""\n    def f(self):\n' + "        x = 1\n" * 20, "C.f is public"),
        ("meta/a.py", "import time\n", "take a clock"),
        ("meta/a.py", "from random import choice\n", "rng as argument"),
        ("meta/a.py", "import uuid\n", "rng as argument"),
        ("meta/a.py", "import threading\nt = threading.Thread(target=f)\n", "no threads"),
        ("meta/a.py", "from concurrent.futures import Executor\n", "no threads"),
        ("meta/a.py", "import os\nx = os.urandom(4)\n", "os.urandom"),
        ("meta/a.py", "import datetime\nx = datetime.datetime.now()\n", "datetime.now"),
        ("meta/a.py", "import asyncio\nasyncio.create_task(x)\n", "TaskScope"),
        ("meta/a.py", "import asyncio\nasyncio.gather(f(), g())\n", "TaskScope"),
        ("meta/a.py", "loop.create_task(x)\n", "TaskScope"),
        ("fs3/layout.py", "import os\n", "does not import os"),
        ("fs3/wire/meta.py", "async def _f():\n    pass\n", "does not wait"),
        ("meta/a.py", "def _f(timeout: float) -> None:\n    pass\n", "timeout is a number without unit"),
        ("meta/a.py", "retry_delay: int = 3\n", "retry_delay is a number without unit"),
        ("meta/a.py", "import asyncio\nq = asyncio.Queue()\n", "without a bound"),
        ("meta/a.py", "import queue\nq = queue.SimpleQueue()\n", "say in a comment what bounds it"),
        ("meta/a.py", "for x in {1, 2}:\n    pass\n", "a set has no order"),
        ("meta/a.py", "y = [x for x in set(z)]\n", "a set has no order"),
    ],
)
def test_a_planted_violation_is_found(path: str, body: str, expected: str) -> None:
    found = [one.message for one in violations(path, HEAD + body)]
    assert len(found) == 1
    assert expected in found[0]


def test_a_file_without_docstring_and_a_claim_of_purity_that_is_not_kept_are_found() -> None:
    assert violations("meta/a.py", "x = 1\n")[0].message == "a module says in its docstring what it is"
    false_claim = violations("meta/a.py", '"""Plans moves. Pure."""\nimport socket\n')
    assert [one.message for one in false_claim] == [
        "a pure file does not import socket: what it needs is an argument"
    ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("meta/a.py", ELIF),
        (
            "meta/a.py",
            "try:\n    pass\nexcept Exception:  # border: a handler may raise anything\n    pass\n",
        ),
        ("meta/a.py", "try:\n    pass\nexcept BaseException:\n    undo()\n    raise\n"),
        ("meta/a.py", "for x in sorted({1, 2}):\n    pass\n"),
        ("meta/a.py", "import asyncio\nq = asyncio.Queue(maxsize=5)\n"),
        ("meta/a.py", "import asyncio\nasyncio.gather(*tasks)\n"),
        ("meta/a.py", "def _f(timeout_s: float) -> None:\n    pass\n"),
        ("deploy/a.py", "import time\n"),
        ("meta/a.py", "import threading\nlock = threading.Lock()\n"),
        ("tests/a.py", "import time\ndef f():\n    pass\n"),
        ("fs3/wire/a.py", "import struct\n"),
    ],
)
def test_what_is_allowed_passes(path: str, body: str) -> None:
    assert violations(path, HEAD + body) == []

"""The house rules that no linter knows, as functions from a file's text to its violations.

``tests/test_tidy.py`` runs them over the tree and over planted violations. A rule says what to do instead:
whoever breaks it reads the message, not this file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import NamedTuple

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 500
NESTING_MAX = 4
"""Blocks within blocks of one function, ``try`` and ``with`` included."""
METHOD_LINES_UNDOCUMENTED_MAX = 20
"""A longer public method says in a docstring what it means."""

BANNED_FILE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}

TASK_MAKERS = ("fs3/tasks.py",)
"""The only files that create asyncio tasks."""

SHELLS = (
    "fs3/clock.py",  # the system's clock
    "fs3/rng.py",  # the system's entropy
    "fs3/identity/key_file.py",  # makes keys
    "deploy/*",  # starts and watches processes
    "client/cli/*",  # progress bars, wall-clock figures
    "fs3/rpc/bulk_client.py",  # the bulk plane is blocking sockets in threads; in the simulated world
    "fs3/rpc/bulk_connection.py",  # everything goes over the small plane
    "fs3/rpc/bulk_server.py",
)
"""Files that never run in the simulated world, or are what it replaces: they may ask time and chance."""

THREADED = (
    "deploy/*",  # processes are its trade
    "client/loop_thread.py",  # the event loop of the blocking face
    "client/loop_thread.py",  # the blocking face: its event loop runs beside the application's threads
    "storage/disk.py",  # the lanes that others are handed
    "storage/lane_writes.py",
    "storage/lanes.py",
)
"""Files that may start threads and processes; everything else is handed lanes. Locks are free to use."""

PURE = (
    "fs3/ids.py",
    "fs3/identity/capability.py",
    "fs3/identity/datagram.py",
    "fs3/identity/handshake.py",
    "fs3/identity/token.py",
    "fs3/kv/conflicts.py",
    "fs3/kv/mutations.py",
    "fs3/kv/overlay.py",
    "fs3/kv/ranges.py",
    "fs3/kv/resolver.py",
    "fs3/kv/watches.py",
    "fs3/layout.py",
    "fs3/metric_catalogue.py",
    "fs3/routing.py",
    "fs3/rpc/framing.py",
    "fs3/toml_lines.py",
    "fs3/wire/*",
    "storage/arrival.py",
    "storage/engine/allocate.py",
    "storage/engine/format.py",
    "storage/engine/index_log.py",
    "storage/engine/overlay.py",
    "storage/engine/plan.py",
    "storage/resync/job.py",
    "storage/resync/pace.py",
    "storage/resync/plan.py",
    "storage/scrub_round.py",
)
"""State machines, formats and planners: no clock, socket, disk, chance, thread or await.

A file whose docstring says "Pure." is held to the same, listed or not; the list keeps the claim from being
dropped by the way.
"""

NOT_PURE_MODULES = {
    *("asyncio", "os", "time", "random", "socket", "threading", "secrets", "uuid", "subprocess", "select"),
    *("multiprocessing", "concurrent", "aiofiles", "lmdb", "uvloop", "asyncio_dgram", "signal", "datetime"),
}
_TIME_AND_CHANCE = {"time", "random", "secrets", "uuid"}
_THREADS = {"multiprocessing", "concurrent", "subprocess", "_thread"}
_LANE = "take a lane as argument; the simulated world has no threads"
_THREAD_MAKERS = {("threading", "Thread"), ("threading", "Timer")}
_CALLS = {
    ("os", "urandom"): "take an rng as argument",
    ("os", "getrandom"): "take an rng as argument",
    ("os", "fork"): "processes are started by deploy/",
    ("datetime", "now"): "take a clock as argument",
    ("datetime", "utcnow"): "take a clock as argument",
    ("date", "today"): "take a clock as argument",
}
_BARE_DURATION = re.compile(r"(^|_)(timeout|interval|delay|duration|elapsed|ttl|latency|period)$")
_UNFINISHED = re.compile(
    r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b|To be " + "written"
)
_BORDER = re.compile(r"# (border|dispatch|worker runner): ")
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
_SOURCES = ("fs3/", "meta/", "storage/", "mgmtd/", "client/", "deploy/")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Violation(NamedTuple):
    """A rule broken at a line."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


Found = Iterator[tuple[int, str]]
Rule = Callable[[str, str, ast.Module], Found]


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether ``path`` is one of the patterns (``*`` crosses directories)."""
    return any(fnmatch(path, pattern) for pattern in patterns)


def is_source(path: str) -> bool:
    """Whether ``path`` is part of the product, not of its tests."""
    return path.startswith(_SOURCES)


def violations(path: str, text: str) -> list[Violation]:
    """Everything that file ``path`` (relative to the root, with slashes) breaks."""
    tree = ast.parse(text, path)
    rules = RULES + (SOURCE_RULES if is_source(path) else ())
    found = [Violation(path, line, message) for rule in rules for line, message in rule(path, text, tree)]
    return sorted(found)


def _names(path: str, text: str, tree: ast.Module) -> Found:
    stem = path.rsplit("/", 1)[-1].removesuffix(".py")
    if stem in BANNED_FILE_NAMES:
        yield 1, f"a file is named for what it holds, not {stem!r}"


def _lengths(path: str, text: str, tree: ast.Module) -> Found:
    count = text.count("\n")
    if count > FILE_LINES_MAX:
        yield FILE_LINES_MAX, f"{count} lines: a file has at most {FILE_LINES_MAX}, divide it by ideas"
    for function in _functions(tree):
        count = (function.end_lineno or function.lineno) - function.lineno + 1
        if count > FUNCTION_LINES_MAX:
            yield function.lineno, f"{function.name} has {count} lines: at most {FUNCTION_LINES_MAX}"


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _nesting(path: str, text: str, tree: ast.Module) -> Found:
    for function in _functions(tree):
        depth = max((_depth(statement) for statement in function.body), default=0)
        if depth > NESTING_MAX:
            yield function.lineno, f"{function.name} nests {depth} deep: at most {NESTING_MAX}"


def _depth(node: ast.AST) -> int:
    """Blocks nested from ``node`` down; an ``elif`` counts as its ``if``, inner functions for themselves."""
    if isinstance(node, Function | ast.ClassDef | ast.Lambda):
        return 0
    own = 1 if isinstance(node, _BLOCKS) else 0
    deepest = 0
    for child in ast.iter_child_nodes(node):
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, _depth(child) - (1 if is_elif else 0))
    return own + deepest


def _unfinished(path: str, text: str, tree: ast.Module) -> Found:
    for number, line in enumerate(text.splitlines(), 1):
        if _UNFINISHED.search(line):
            yield number, "nothing is left to be done later: do it, or write an issue"
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node):
            yield node.lineno, "no stubs: use a Protocol for what others implement"


def _borders(path: str, text: str, tree: ast.Module) -> Found:
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = "everything" if node.type is None else ast.unparse(node.type)
            blind = node.type is None or re.search(r"\b(Base)?Exception\b", caught)
            if blind and not _BORDER.search(lines[node.lineno - 1]) and not _reraises(node):
                yield node.lineno, f"catches {caught}: name the errors, or mark a border (# border: why)"


def _reraises(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _docstrings(path: str, text: str, tree: ast.Module) -> Found:
    if tree.body and ast.get_docstring(tree) is None:
        yield 1, "a module says in its docstring what it is"
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            is_message = node.name.endswith(("Request", "Response"))  # the service's table says what it means
            if ast.get_docstring(node) is None and not is_message:
                yield node.lineno, f"{node.name} is public: say what it means"
            if isinstance(node, ast.ClassDef):
                yield from _method_docstrings(node)


def _method_docstrings(owner: ast.ClassDef) -> Found:
    for node in owner.body:
        if isinstance(node, Function) and not node.name.startswith("_") and ast.get_docstring(node) is None:
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > METHOD_LINES_UNDOCUMENTED_MAX:
                yield node.lineno, f"{owner.name}.{node.name} is public and long: say what it means"


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, module) of every import outside ``if TYPE_CHECKING``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""


def _time_and_chance(path: str, text: str, tree: ast.Module) -> Found:
    if matches(path, SHELLS):
        return
    for line, module in _imports(tree):
        top = module.split(".")[0]
        if top in _TIME_AND_CHANCE:
            yield line, f"imports {top}: take a clock or an rng as argument (fs3.clock, fs3.rng)"
        if top in _THREADS and not matches(path, THREADED):
            yield line, f"imports {top}: {_LANE}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (owner, node.attr) in _THREAD_MAKERS and not matches(path, THREADED):
                yield node.lineno, f"{owner}.{node.attr}: {_LANE}"
            if (instead := _CALLS.get((owner, node.attr))) is not None:
                yield node.lineno, f"{owner}.{node.attr}: {instead}"


def _tasks(path: str, text: str, tree: ast.Module) -> Found:
    if path in TASK_MAKERS:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future"):
            yield node.lineno, f"{node.attr}: every task has an owner, see fs3.tasks.TaskScope"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("asyncio.gather", "asyncio.TaskGroup"):
            bare = [a for a in node.args if not isinstance(a, ast.Starred)]
            if ast.unparse(node.func) == "asyncio.TaskGroup" or bare:
                yield node.lineno, "makes tasks without names: see fs3.tasks.TaskScope"


def _pure(path: str, text: str, tree: ast.Module) -> Found:
    says_so = re.search(r"\bPURE\b|\bPure[.:,]", ast.get_docstring(tree) or "")
    claims = says_so is not None and not path.endswith("__init__.py")  # a package tells of its files
    if not claims and not matches(path, PURE):
        return
    for line, module in _imports(tree):
        if module.split(".")[0] in NOT_PURE_MODULES:
            yield line, f"a pure file does not import {module}: what it needs is an argument"
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield (
                node.lineno,
                "a file that is (or says that it is) pure does not wait: give effects back to a shell",
            )


def _units(path: str, text: str, tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        name: str | None = None
        if isinstance(node, ast.arg):
            name, annotation = node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name, annotation = node.target.id, node.annotation
        else:
            continue
        if annotation is not None and _BARE_DURATION.search(name) and ast.unparse(annotation) in _NUMBERS:
            yield node.lineno, f"{name} is a number without unit: {name}_s, {name}_ms, {name}_ns"


_NUMBERS = {"int", "float", "int | None", "float | None"}


def _bounds(path: str, text: str, tree: ast.Module) -> Found:
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            says_why = "#" in lines[node.lineno - 1]
            is_simple = called.endswith("SimpleQueue") and not says_why
            if is_simple or (called.endswith(".Queue") and not (node.args or node.keywords)):
                yield (
                    node.lineno,
                    f"{called} without a bound: give it one, or say in a comment what bounds it",
                )


def _set_order(path: str, text: str, tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension):
            over = node.iter
            named_set = isinstance(over, ast.Call) and ast.unparse(over.func) in ("set", "frozenset")
            if named_set or isinstance(over, ast.Set | ast.SetComp):
                yield over.lineno, "a set has no order: sort it, or use dict.fromkeys"


RULES: tuple[Rule, ...] = (_names, _lengths, _unfinished)
"""Rules for every file."""
SOURCE_RULES: tuple[Rule, ...] = (
    _nesting,
    _borders,
    _docstrings,
    _time_and_chance,
    _tasks,
    _pure,
    _units,
    _bounds,
    _set_order,
)
"""Further rules for the product's own files."""

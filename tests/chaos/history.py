"""What the workers' logs say, judged: what was lost or stale, and how long it all stood still."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sim.checkers import Register, linearizable


@dataclass(slots=True)
class Operation:
    """One operation of one worker; ``end_s`` inf: nobody knows whether it happened."""

    kind: str
    register: str
    start_s: float
    end_s: float = math.inf
    value: Any = None
    error: str = ""


@dataclass(slots=True)
class History:
    """All operations, and what is wrong about them."""

    operations: list[Operation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    corrupt: int = 0
    """Reads that returned no value that a slot can hold."""

    @property
    def errors(self) -> list[str]:
        """Errors that an application saw."""
        return [f"{o.kind} {o.register}: {o.error}" for o in self.operations if o.error]

    def acknowledged(self) -> int:
        """Writes that were answered."""
        return sum(o.kind == "write" and o.end_s < math.inf for o in self.operations)

    def stalls_s(self, kinds: Iterable[str]) -> list[float]:
        """How long the operations of these kinds took."""
        wanted = frozenset(kinds)
        return [o.end_s - o.start_s for o in self.operations if o.kind in wanted and o.end_s < math.inf]

    def add_read(self, register: str, value: int | None, start_s: float, end_s: float) -> None:
        """A read that no worker made."""
        shown = value if value is not None else "torn"
        self.operations.append(Operation("read", register, start_s, end_s, shown))

    def judge(self) -> None:
        """Fill ``problems``: each register's history must be that of one register."""
        found: dict[str, Register] = {}
        reads: list[Operation] = []
        for operation in self.operations:
            register = found.setdefault(operation.register, Register(operation.register))
            if operation.kind == "write":
                register.wrote(operation.value, operation.start_s, operation.end_s)
            elif operation.kind == "read" and operation.end_s < math.inf:
                reads.append(operation)
        for operation in reads:
            if isinstance(operation.value, str):
                self.corrupt += 1
                self.problems.append(f"{operation.register}: {operation.value}")
                continue
            register = found[operation.register]
            self.problems.append(register.read(operation.value, operation.start_s, operation.end_s))
        self.problems += [linearizable(register) for register in found.values()]
        self.problems = [problem for problem in self.problems if problem]


def read_logs(paths: Iterable[Path]) -> History:
    """The history in some workers' logs; lines that a killed worker did not finish are left out."""
    history = History()
    for path in paths:
        begun: dict[int, Operation] = {}
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if "begin" in entry:
                operation = Operation(
                    entry["kind"], entry.get("register", entry.get("path", "")), entry["at_s"],
                    value=entry.get("value"),
                )  # fmt: skip
                begun[entry["begin"]] = operation
                history.operations.append(operation)
                continue
            operation = begun[entry["end"]]
            operation.error = entry.get("error", "")
            if not operation.error:
                operation.end_s = entry["at_s"]
                operation.value = entry.get("value", operation.value)
            if entry.get("wrong"):
                history.corrupt += 1
                history.problems.append(f"{operation.register}: a small file had other bytes")
    return history

"""What the workers' logs say, judged: what was lost or stale, and how long it all stood still."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sim.checkers import Register, linearizable

READS = ("read", "quiet read", "last read")
"""Of a slot that is written to, of one that is not, and after the faults."""
WRITES = ("write", "first write")
"""During the faults, and before them."""


@dataclass(slots=True)
class Operation:
    """One operation of one worker; ``end_s`` inf: nobody knows whether it happened."""

    kind: str
    register: str
    start_s: float
    end_s: float = math.inf
    value: Any = None
    error: str = ""
    errno: int = 0
    failed_s: float = math.inf
    """When its error was seen."""
    worker: str = ""
    """The stem of its worker's log."""

    @property
    def is_done(self) -> bool:
        """It was answered, and not with an error."""
        return self.end_s < math.inf


@dataclass(slots=True)
class History:
    """All operations, and what is wrong about them."""

    operations: list[Operation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Slots whose last read shows that an acknowledged write is gone."""
    corrupt: int = 0
    """Reads that returned no value that a slot can hold."""

    @property
    def errors(self) -> list[Operation]:
        """Those that ended with an error that an application saw."""
        return [o for o in self.operations if o.error]

    def acknowledged(self) -> int:
        """Writes that were answered."""
        return sum(o.kind == "write" and o.is_done for o in self.operations)

    def longest_s(
        self,
        kinds: Iterable[str],
        since_s: float = -math.inf,
        until_s: float = math.inf,
        clip_s: float = math.inf,
    ) -> float:
        """The longest operation of these kinds, of those under way at some time between the first two;
        what is before ``since_s`` or after ``clip_s`` does not count."""
        wanted = frozenset(kinds)
        return max(
            (min(o.end_s, clip_s) - max(o.start_s, since_s) for o in self.operations
             if o.kind in wanted and o.is_done and o.start_s <= until_s and since_s <= o.end_s),
            default=0.0,
        )  # fmt: skip

    def judge(self) -> None:
        """Fill ``problems`` and ``lost``: each slot's history must be that of one register."""
        during = self._judged(("read", "quiet read"))
        self.problems += [problem for problem in during.values() if problem]
        later = self._judged(("read", "quiet read", "last read"))
        self.lost += [problem for name, problem in later.items() if problem and not during[name]]
        for operation in self.operations:
            if operation.kind in READS and operation.is_done and isinstance(operation.value, str):
                self.corrupt += 1
                self.problems.append(f"{operation.register}: {operation.value}")

    def _judged(self, reads: Iterable[str]) -> dict[str, str]:
        """Slot -> what is wrong with it, as far as these kinds of reads show it; ""."""
        wanted = frozenset(reads)
        registers = {o.register: Register(o.register) for o in self.operations if o.kind != "names"}
        found = dict.fromkeys(registers, "")
        for o in self.operations:
            if o.kind in WRITES:
                registers[o.register].wrote(o.value, o.start_s, o.end_s)
        for o in self.operations:
            if o.kind in wanted and o.is_done and not isinstance(o.value, str):
                problem = registers[o.register].read(o.value, o.start_s, o.end_s)
                found[o.register] = found[o.register] or problem
        for name, register in registers.items():
            found[name] = found[name] or linearizable(register)
        return found


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
                    value=entry.get("value"), worker=path.stem,
                )  # fmt: skip
                begun[entry["begin"]] = operation
                history.operations.append(operation)
                continue
            operation = begun[entry["end"]]
            operation.error = entry.get("error", "")
            operation.errno = entry.get("errno") or 0
            operation.failed_s = entry["at_s"]
            if not operation.error:
                operation.end_s = entry["at_s"]
                operation.value = entry.get("value", operation.value)
            if entry.get("wrong"):
                history.corrupt += 1
                history.problems.append(f"{operation.register}: a small file had other bytes")
    return history

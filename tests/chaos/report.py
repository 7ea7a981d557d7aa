"""What a run came to: the keys that others read, and what is behind them."""

from __future__ import annotations

import errno
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .faults import Faults, Struck
from .history import History, Operation
from .kinds import EVERYTHING

SETTLE_S = 10.0
"""An operation that began within a fault may still fail for it this long after it was mended."""
FELT_S = 1.0
"""An operation that begins this long after a fault may be the first to feel it."""
READ_STALL_MAX_S = 1.0
KILLED_MAX_S = 3.0
SILENT_MAX_S = 8.0
SERVING_MAX_S = 15.0
"""Design 8. Said when passed, no failure: other things may keep the machine busy."""
LEAKS = frozenset(
    ("orphan-chunk", "no-session", "no-entry", "no-removal", "no-intent", "old-intent", "stray-record")
)
"""Findings of ``fs3 fsck`` that mean: something was left behind."""


@dataclass(slots=True)
class Outcome:
    """All that a run found out."""

    seed: int
    faults: Faults
    history: History
    stores: list[str] = field(default_factory=list)
    """What is wrong on the disks."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """Of ``fs3 fsck``, notices left out."""
    unchecked: list[str] = field(default_factory=list)
    """Why ``fs3 fsck`` did not look at everything."""
    stalls: list[dict[str, Any]] = field(default_factory=list)
    """The longest, with what they were made of."""


def excuse(operation: Operation, faults: Sequence[Struck]) -> str:
    """Which error this may be counted as: "enospc", "metadata deadline", or "" for none."""
    near = [
        one.kind for one in faults
        if operation.start_s <= (one.ended_s or operation.start_s) + SETTLE_S
        and one.began_s <= operation.failed_s
    ]  # fmt: skip
    if operation.errno == errno.ENOSPC and any(kind.fills for kind in near):
        return "enospc"
    is_late = operation.kind in ("names", "sync") and operation.errno == errno.ETIMEDOUT
    return "metadata deadline" if is_late and any(kind.stops_names for kind in near) else ""


def report_of(outcome: Outcome) -> dict[str, object]:
    """The keys that others read come first."""
    history, faults = outcome.history, outcome.faults
    excused = Counter(excuse(error, faults.struck) for error in history.errors)
    leaked = [f for f in outcome.findings if f["kind"] in LEAKS]
    everything = ("read", "quiet read", "write", "sync", "names")
    stalls = [_stall_s(outcome, one, everything) for one in faults.struck]
    return {
        "faults": len(faults.struck),
        "by_kind": dict(sorted(Counter(one.kind.name for one in faults.struck).items())),
        "acknowledged_writes": history.acknowledged(),
        "lost": len(history.lost) + len(outcome.stores),
        "stale_reads": len(history.problems) - history.corrupt,
        "client_errors": excused[""],
        "corrupt": history.corrupt,
        "longest_stall_s": round(history.longest_s(everything), 2),
        "longest_read_stall_s": _longest_s(outcome, "quiet read"),
        "median_stall_s": round(statistics.median(stalls), 2) if stalls else 0.0,
        "recovery_s": _spread(faults.recovery_s),
        "leaked": len(leaked),
        "seed": outcome.seed,
        "operations": len(history.operations),
        "enospc_errors": excused["enospc"],
        "metadata_deadline_errors": excused["metadata deadline"],
        "fsck_findings": len(outcome.findings) - len(leaked) + len(outcome.unchecked),
        "unexpected": len(faults.problems),
        "longest_read_stall_of_written_s": _longest_s(outcome, "read"),
        "longest_write_stall_s": _longest_s(outcome, "write"),
        "longest_sync_s": _longest_s(outcome, "sync"),
        "while_everything_was_killed_s": {
            kind: _longest_s(outcome, kind, meanwhile=True)
            for kind in ("quiet read", "read", "write", "sync")
        },
        "serving_after_everything_was_killed_s": _spread(faults.ground.served_after_s),
        "stalls_by_kind_s": _stalls_by_kind(outcome),
        "too_long": too_long(outcome),
        "longest_stalls": outcome.stalls,
    }


def problems_of(outcome: Outcome) -> list[str]:
    """Everything that must not be, in words."""
    history, struck = outcome.history, outcome.faults.struck
    errors = [
        f"{o.kind} {o.register}, {o.start_s:.2f} to {o.failed_s:.2f} s: {o.error}"
        for o in history.errors
        if not excuse(o, struck)
    ]
    findings = [f"fsck: {f['kind']}: {f['where']}: {f['detail']}" for f in outcome.findings]
    return [
        *outcome.faults.problems, *history.problems, *history.lost, *outcome.stores, *errors, *findings,
        *(f"fsck did not check: {text}" for text in outcome.unchecked),
    ]  # fmt: skip


def too_long(outcome: Outcome) -> list[str]:
    """Times above those of design 8, of faults that came alone."""
    found: list[str] = []
    for one in outcome.faults.struck:
        if one.name and _is_alone(one, outcome.faults.struck):
            limits = ((("quiet read",), READ_STALL_MAX_S), (("write",), _write_max_s(one)))
            for kinds, limit_s in limits:
                took_s = _stall_s(outcome, one, kinds)
                if took_s > limit_s:
                    found.append(f"{one.kind.name} {one.name}: a {kinds[0]} took {took_s:.1f} s")
    late = [s for s in outcome.faults.ground.served_after_s if s > SERVING_MAX_S]
    return found + [f"everything killed: serving after {s:.1f} s" for s in late]


def _write_max_s(one: Struck) -> float:
    return KILLED_MAX_S if one.kind.name == "storage killed" else SILENT_MAX_S


def _longest_s(outcome: Outcome, kind: str, *, meanwhile: bool = False) -> float:
    """The longest operation of a kind; of those that met the kill of everything (``meanwhile``), or none."""
    spans = [
        (one.began_s, one.whole_s or math.inf) for one in outcome.faults.struck if one.kind.name == EVERYTHING
    ]

    def met_it(o: Operation) -> bool:
        return any(o.start_s <= until_s and since_s <= o.end_s for since_s, until_s in spans)

    operations = [o for o in outcome.history.operations if o.kind == kind and o.is_done]
    return round(max((o.end_s - o.start_s for o in operations if met_it(o) is meanwhile), default=0.0), 2)


def _is_alone(one: Struck, struck: Sequence[Struck]) -> bool:
    """No other fault overlaps it."""
    return not any(o for o in struck if o is not one and o.began_s < one.whole_s and one.began_s < o.whole_s)


def _stall_s(outcome: Outcome, one: Struck, kinds: Sequence[str]) -> float:
    """The longest operation under way at some time from a fault until it was mended, or shortly after; as far
    as the next fault."""
    later = [o.began_s for o in outcome.faults.struck if o.began_s >= one.whole_s]
    until_s = min([max(one.ended_s, one.began_s) + FELT_S, *later])
    return outcome.history.longest_s(kinds, one.began_s, until_s, min(later, default=math.inf))


def _stalls_by_kind(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Longest reads (of what nobody writes) and writes, by kind; faults that came alone only."""
    found: dict[str, dict[str, float]] = {}
    for one in outcome.faults.struck:
        if _is_alone(one, outcome.faults.struck):
            longest = found.setdefault(one.kind.name, {"read": 0.0, "write": 0.0})
            for name, kinds in (("read", ("quiet read",)), ("write", ("write",))):
                longest[name] = round(max(longest[name], _stall_s(outcome, one, kinds)), 2)
    return dict(sorted(found.items()))


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {"median": 0.0, "max": 0.0}
    return {"median": round(statistics.median(seconds), 2), "max": round(max(seconds), 2)}

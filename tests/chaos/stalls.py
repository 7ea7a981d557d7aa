"""What the longest stalls of a run were made of: faults, changes of chains, and every call that took long.

Workers' calls come from their clients' logs (``fs3.client.call_log``), the rest from the daemons'. Lines of
logs have wall-clock times, which this machine's own difference of clocks turns into those of the history.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .faults import Struck
from .history import History, Operation

STALLS_TOLD = 5
LINES_MAX = 60
"""Of one story."""
BEFORE_S = 1.0
AFTER_S = 0.2
"""Around a stall, what happened then is told as well."""
FOLD_S = 1.0
"""Failures that come again within this are one line."""
QUICK_S = 0.1
"""Calls that were answered well within this are only counted."""
KINDS = ("read", "quiet read", "write")
FRAME = ("time", "level", "daemon", "event", "pid", "method", "took_ms")
"""Fields that a line shows otherwise, or not at all."""


@dataclass(frozen=True, slots=True)
class Told:
    """A line of some log."""

    at_s: float
    """When it was written: of a call, when it was over."""
    who: str
    fields: dict[str, Any]

    @property
    def began_s(self) -> float:
        """Of a call, when it was made."""
        return self.at_s - float(self.fields.get("took_ms", 0.0)) / 1000

    @property
    def is_call(self) -> bool:
        """A client's call, over."""
        return self.fields.get("event") == "call"

    def text(self) -> str:
        """Who says what."""
        fields = self.fields
        rest = " ".join(f"{key}={value}" for key, value in fields.items() if key not in FRAME)
        if not self.is_call:
            return f"{self.who}: {fields.get('event')} {rest}".rstrip()
        return f"{self.who}: {fields.get('method')} {float(fields['took_ms']) / 1000:.2f} s {rest}"


def read_told(paths: Iterable[Path]) -> list[Told]:
    """The lines of logs, in order of time, in the history's clock (``time.monotonic``)."""
    ahead_s = time.time() - time.monotonic()
    found: list[Told] = []
    for path in paths:
        for line in path.read_text(errors="replace").splitlines():
            try:
                fields = json.loads(line)
                moment = datetime.datetime.fromisoformat(fields["time"])
            except (ValueError, TypeError, KeyError):
                continue  # a line of a process that was killed, or a traceback
            found.append(Told(moment.timestamp() - ahead_s, path.stem, fields))
    return sorted(found, key=lambda told: told.at_s)


def longest(history: History, count: int = STALLS_TOLD) -> list[Operation]:
    """The longest operations on slots, of several at the same time one only."""
    found: list[Operation] = []
    done = [o for o in history.operations if o.kind in KINDS and o.is_done]
    for operation in sorted(done, key=lambda o: o.start_s - o.end_s):
        if len(found) == count:
            break
        if not any(operation.start_s < o.end_s and o.start_s < operation.end_s for o in found):
            found.append(operation)
    return found


def stories(history: History, struck: Sequence[Struck], told: Sequence[Told]) -> list[dict[str, Any]]:
    """The longest stalls with what happened meanwhile; times count from the begin of the operation."""
    return [_story(operation, struck, told) for operation in longest(history)]


def _story(operation: Operation, struck: Sequence[Struck], told: Sequence[Told]) -> dict[str, Any]:
    since_s, until_s = operation.start_s - BEFORE_S, operation.end_s + AFTER_S
    near = [line for line in told if since_s <= line.at_s and line.began_s <= until_s]
    calls = [line for line in near if line.is_call and line.who == operation.worker]
    chains = {str(line.fields["chain"]) for line in calls if "chain" in line.fields and _is_long(line)}
    lines = _faults(struck, since_s, until_s)
    lines += _folded([line for line in calls if _is_long(line)], operation.start_s)
    lines += [(line.at_s, line.text()) for line in near if _is_news(line, chains)]
    return {
        "kind": operation.kind,
        "register": operation.register,
        "worker": operation.worker,
        "took_s": round(operation.end_s - operation.start_s, 2),
        "quick_calls": sum(not _is_long(line) for line in calls),
        "story": [f"{at_s - operation.start_s:+.2f} {text}" for at_s, text in sorted(lines)][:LINES_MAX],
    }


def _faults(struck: Sequence[Struck], since_s: float, until_s: float) -> list[tuple[float, str]]:
    """Those that were there at some time: when they began, when what was broken was mended."""
    found: list[tuple[float, str]] = []
    for one in struck:
        if one.began_s <= until_s and since_s <= (one.whole_s or one.ended_s):
            name = f"{one.kind.name} {one.name}".rstrip()
            found.append((one.began_s, f"{name} begins, {one.away_s:g} s"))
            found.append((one.ended_s, f"{name} is over"))
    return found


def _folded(calls: Sequence[Told], start_s: float) -> list[tuple[float, str]]:
    """Calls as lines; those that fail quickly in the same way, one after the other, are one line."""
    groups: dict[str, list[Told]] = {}
    found: list[tuple[float, str]] = []
    for call in [*calls, None]:
        for key, group in list(groups.items()):
            if call is None or call.at_s > group[-1].at_s + FOLD_S:
                found.append(_line(groups.pop(key), start_s))
        if call is None:
            break
        key = f"{call.fields.get('method')} {call.fields.get('chain')} {call.fields.get('error', '')}"[:40]
        if "error" in call.fields and call.at_s - call.began_s < QUICK_S:
            groups.setdefault(key, []).append(call)
        else:
            found.append((call.began_s, call.text()))
    return found


def _line(group: Sequence[Told], start_s: float) -> tuple[float, str]:
    more = len(group) - 1
    until = f" (and {more} more until {group[-1].at_s - start_s:+.2f})" if more else ""
    return group[0].began_s, group[0].text() + until


def _is_long(call: Told) -> bool:
    return "error" in call.fields or call.at_s - call.began_s > QUICK_S


def _is_news(line: Told, chains: set[str]) -> bool:
    """Of a daemon; of chains, those only that the operation was about."""
    if line.is_call or line.fields.get("level") == "debug":
        return False
    chain = line.fields.get("chain")
    return chain is None or str(chain) in chains

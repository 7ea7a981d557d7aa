"""What clients did to one chunk, and whether one chunk could have behaved so. PURE.

A chunk is a row of blocks; 0 stands for zeros. Operations write some blocks, cut all from one on, or read
some. ``judge`` looks for an order of the operations in which each lies between its start and its end and each
read sees what was written before it. It goes through the ends in order of time and keeps every state that the
chunk may be in, with those of the open operations that have had their effect ("just-in-time linearization",
Lowe, "Testing for linearizability", 2017). A read takes effect as soon as it can: it changes nothing.

An operation without an end (its client was killed, or got an error) may have its effect at any time or never;
one that ``lapses`` had it before that moment or never will (its session is over).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from fs3.ids import ChunkId

Values = tuple[int, ...]
STATES_MAX = 50_000
"""States and orders that are kept for one chunk at a time; more is a history that nobody can judge."""
UNKNOWN = -1
"""Of a block that a read did not get: it lay beyond the length that the client knew."""


@dataclass(slots=True, eq=False)
class ChunkOp:
    """One operation on one chunk. ``values``: of the blocks from ``first`` on."""

    kind: str
    """``write``, ``cut`` or ``read``."""
    client: str
    start_s: float
    first: int
    values: Values
    end_s: float = math.inf
    lapses_s: float = math.inf
    is_final: bool = False
    """A read of the end, when everything was calm: what was acknowledged must be there."""
    version: int = 0
    """Update version that a read was answered with, 0 if it was not told."""
    where: str = ""
    """Who answered a read."""

    def ended(self, end_s: float) -> None:
        """It was acknowledged."""
        self.end_s = end_s

    @property
    def has_ended(self) -> bool:
        return self.end_s < math.inf

    def after(self, state: Values) -> Values | None:
        """The chunk after it; None: a read does not see this."""
        first, end = self.first, self.first + len(self.values)
        if self.kind == "write":
            return (*state[:first], *self.values, *state[end:])
        if self.kind == "cut":
            return (*state[:first], *(0 for _ in state[first:]))
        seen = state[first:end]
        if all(wanted in (UNKNOWN, found) for wanted, found in zip(self.values, seen, strict=True)):
            return state
        return None

    def __str__(self) -> str:
        what = f"from {self.first}" if self.kind == "cut" else f"{list(self.values)} at {self.first}"
        end = f"{self.end_s:.6f}" if self.has_ended else "…"
        more = "".join(
            (
                f", version {self.version}" if self.version else "",
                f", by {self.where}" if self.where else "",
                f", over at {self.lapses_s:.6f}" if self.lapses_s < math.inf else "",
            )
        )
        return f"{self.start_s:.6f} to {end} {self.client} {self.kind} {what}{more}"


@dataclass(slots=True)
class ChunkHistory:
    """All operations on one chunk."""

    name: str
    chunk: ChunkId
    block_count: int
    ops: list[ChunkOp] = field(default_factory=list)

    def begin(
        self, kind: str, client: str, start_s: float, first: int, values: Iterable[int] = ()
    ) -> ChunkOp:
        """Note that an operation begins; its end is noted with ``ChunkOp.ended``."""
        op = ChunkOp(kind, client, start_s, first, tuple(values))
        assert op.first + len(op.values) <= self.block_count, op
        self.ops.append(op)
        return op

    def overlapping_count(self) -> int:
        """Operations that overlap another one of this chunk in time."""
        ops = sorted((op for op in self.ops if not op.is_final), key=lambda op: op.start_s)
        overlapping: set[int] = set()
        latest: ChunkOp | None = None
        for op in ops:
            if latest is not None and op.start_s < latest.end_s:
                overlapping |= {id(op), id(latest)}
            if latest is None or op.end_s > latest.end_s:
                latest = op
        return len(overlapping)


@dataclass(frozen=True, slots=True)
class Impossible:
    """A history that one chunk cannot have."""

    op: ChunkOp
    """The operation at whose end no possible state is left."""
    text: str


_Config = tuple[Values, frozenset[int]]
"""A state, and the open operations (by number) that have had their effect."""


def judge(history: ChunkHistory) -> Impossible | None:
    """None if the history is linearizable, else where it breaks."""
    ops = [op for op in history.ops if op.kind != "read" or op.has_ended]
    events = sorted(
        [(op.start_s, 0, number) for number, op in enumerate(ops)]
        + [(op.end_s, 1, number) for number, op in enumerate(ops) if op.has_ended]
        + [(op.lapses_s, 2, number) for number, op in enumerate(ops) if _may_lapse(op)]
    )
    configs: set[_Config] = {((0,) * history.block_count, frozenset())}
    open_ops: dict[int, ChunkOp] = {}
    for _, kind, number in events:
        op = ops[number]
        if kind == 0:
            open_ops[number] = op
            continue
        if kind == 2:
            configs = _reachable(configs, open_ops)
            del open_ops[number]
            configs = {(state, done - {number}) for state, done in configs}
            continue
        before, configs = configs, _ending(configs, open_ops, number)
        del open_ops[number]
        if not configs:
            return Impossible(op, _explained(history, op, before, open_ops))
        if len(configs) > STATES_MAX:
            return Impossible(op, f"{history.name}: too many operations at once to be judged")
    return None


def _may_lapse(op: ChunkOp) -> bool:
    return op.lapses_s < math.inf and not op.has_ended


def _ending(configs: set[_Config], open_ops: dict[int, ChunkOp], number: int) -> set[_Config]:
    """What may be once operation ``number`` has ended: it has had its effect, perhaps after others."""
    found: set[_Config] = set()
    seen: set[_Config] = set()
    waiting = [_with_reads(config, open_ops) for config in configs]
    while waiting:
        config = waiting.pop()
        if config in seen or len(seen) > STATES_MAX:
            continue
        seen.add(config)
        state, done = config
        if number in done:
            found.add((state, done - {number}))
            continue
        waiting += _next(config, open_ops)
    return found


def _reachable(configs: set[_Config], open_ops: dict[int, ChunkOp]) -> set[_Config]:
    """What may be by now, whoever has had its effect."""
    seen: set[_Config] = set()
    waiting = [_with_reads(config, open_ops) for config in configs]
    while waiting:
        config = waiting.pop()
        if config not in seen and len(seen) <= STATES_MAX:
            seen.add(config)
            waiting += _next(config, open_ops)
    return seen


def _next(config: _Config, open_ops: dict[int, ChunkOp]) -> list[_Config]:
    state, done = config
    found = []
    for number, op in open_ops.items():
        if number not in done and op.kind != "read":
            after = op.after(state)
            assert after is not None, op
            found.append(_with_reads((after, done | {number}), open_ops))
    return found


def _with_reads(config: _Config, open_ops: dict[int, ChunkOp]) -> _Config:
    """All open reads that see this state have seen it."""
    state, done = config
    reads = [
        number
        for number, op in open_ops.items()
        if op.kind == "read" and number not in done and op.after(state) is not None
    ]
    return (state, done | frozenset(reads)) if reads else config


def _explained(history: ChunkHistory, op: ChunkOp, before: set[_Config], open_ops: dict[int, ChunkOp]) -> str:
    states = sorted({state for state, _ in before})
    shown = ", ".join(str(list(state)) for state in states[:4])
    others = "; ".join(str(other) for other in open_ops.values())
    return (
        f"{history.name}: no order explains {op}; before it: {shown}{' …' if len(states) > 4 else ''}; "
        f"open then: {others or 'nothing'}"
    )


def versions_grow(history: ChunkHistory) -> str:
    """ "" if reads saw update versions that only grow in time, else which did not."""
    reads = [op for op in history.ops if op.kind == "read" and op.version and op.has_ended]
    starts = sorted(reads, key=lambda op: op.start_s)
    ends = sorted(reads, key=lambda op: op.end_s)
    newest: ChunkOp | None = None
    at = 0
    for op in starts:
        while at < len(ends) and ends[at].end_s < op.start_s:
            if newest is None or ends[at].version > newest.version:
                newest = ends[at]
            at += 1
        if newest is not None and op.version < newest.version:
            return f"{history.name}: {op} was answered after {newest}"
    return ""


def relaxed_problem(history: ChunkHistory, block: int, value: int, start_s: float, end_s: float) -> str:
    """What is wrong with a relaxed read of one block: it may be behind, but not behind what was acknowledged
    before it began, and shows only what was written."""
    touching = [op for op in history.ops if _touches(op, block)]
    newest_start_s = max((op.start_s for op in touching if op.end_s < start_s), default=-math.inf)
    sources = [op for op in touching if _value_at(op, block) == value and op.start_s <= end_s]
    name = f"{history.name}[{block}]: relaxed read of {value} from {start_s:.6f} to {end_s:.6f}"
    if not sources and value:
        return f"{name}: nobody wrote that"
    latest_end_s = max((op.end_s for op in sources), default=-math.inf)
    if latest_end_s < newest_start_s:
        return f"{name}: a write that began at {newest_start_s:.6f} was acknowledged before the read"
    return ""


def _touches(op: ChunkOp, block: int) -> bool:
    if op.kind == "cut":
        return op.first <= block
    return op.kind == "write" and op.first <= block < op.first + len(op.values)


def _value_at(op: ChunkOp, block: int) -> int:
    return op.values[block - op.first] if op.kind == "write" else 0

"""What all clients of a world saw, and what must not be of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from fs3.ids import ChainId, ChunkId, InodeId

from .history import ChunkHistory, judge, relaxed_problem, versions_grow

# The names of what is checked (design 8), and what else no run may show.
SURVIVE = "acknowledged writes survive"
LINEARIZABLE = "reads are linearizable"
VERSIONS = "versions only grow"
IDENTICAL = "replicas are identical"
SERVING = "all targets return to SERVING"
LEAKS = "no chunk or session leaks"
FSCK = "metadata passes fsck"
ONCE = "exactly once"
NO_ERROR = "no error reaches an application"
NO_BUG = "no task ends with a bug"
ONE_HISTORY = "one seed has one history"
CHECKERS = (
    SURVIVE, LINEARIZABLE, VERSIONS, IDENTICAL, SERVING, LEAKS, FSCK, ONCE, NO_ERROR, NO_BUG, ONE_HISTORY,
)  # fmt: skip


class Problem(NamedTuple):
    """Something that must not be."""

    checker: str
    text: str
    chunk: ChunkId | None = None
    """Of which the story is to be told."""
    inode: InodeId | None = None
    chain: ChainId | None = None

    def __str__(self) -> str:
        return f"{self.checker}: {self.text}"


class RelaxedRead(NamedTuple):
    """A relaxed read of one block."""

    history: ChunkHistory
    block: int
    value: int
    start_s: float
    end_s: float


@dataclass(slots=True)
class Shares:
    """Figures that show whether the workload is what it is meant to be."""

    operations: Counter[str] = field(default_factory=Counter)
    """Of clients, by kind."""
    reads_at: Counter[str] = field(default_factory=Counter)
    """Pieces read, by the place in its chain of the replica that gave them."""
    chunk_operations: int = 0
    """Operations on shared chunks (a batch or a cut counts once for each)."""
    overlapping: int = 0
    """Those of them that overlapped another one on the same chunk."""
    pinned_reads: Counter[str] = field(default_factory=Counter)
    """Of readers that stick to a replica: by what became of them."""

    def add(self, other: Shares) -> None:
        """Add another run's."""
        self.operations.update(other.operations)
        self.reads_at.update(other.reads_at)
        self.pinned_reads.update(other.pinned_reads)
        self.chunk_operations += other.chunk_operations
        self.overlapping += other.overlapping


@dataclass(slots=True)
class Seen:
    """What all clients saw."""

    histories: dict[tuple[str, int], ChunkHistory] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    relaxed: list[RelaxedRead] = field(default_factory=list)
    shares: Shares = field(default_factory=Shares)
    next_value: int = 0

    @property
    def operation_count(self) -> int:
        """Operations of clients so far."""
        return self.shares.operations.total()

    def add_history(self, path: str, inode: InodeId, chunk: int, block_count: int) -> None:
        """Keep the history of a chunk from now on."""
        name = f"{path}#{chunk}"
        self.histories[path, chunk] = ChunkHistory(name, ChunkId(inode, chunk), block_count)

    def did(self, kind: str) -> None:
        """A client has done something."""
        self.shares.operations[kind] += 1

    def value(self) -> int:
        """A value that nobody else writes."""
        self.next_value += 1
        return self.next_value

    def wrong(self, checker: str, text: str, history: ChunkHistory | None = None) -> None:
        """Note a problem."""
        self.problems.append(Problem(checker, text, history.chunk if history is not None else None))

    def judge(self) -> list[Problem]:
        """Everything that must not be; fills the shares."""
        found = list(self.problems)
        for history in self.histories.values():
            if (impossible := judge(history)) is not None:
                checker = SURVIVE if impossible.op.is_final else LINEARIZABLE
                found.append(Problem(checker, impossible.text, history.chunk))
            if text := versions_grow(history):
                found.append(Problem(VERSIONS, text, history.chunk))
            self.shares.chunk_operations += sum(not op.is_final for op in history.ops)
            self.shares.overlapping += history.overlapping_count()
        return found + [
            Problem(LINEARIZABLE, text, read.history.chunk)
            for read in self.relaxed
            if (text := relaxed_problem(*read))
        ]

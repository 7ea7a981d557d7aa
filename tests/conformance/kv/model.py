"""The model of a store that every engine is held against: dicts, copied; sets of keys, compared.

Keys come from a small alphabet, so ranges are sets of keys and a conflict is a set that is not disjoint.
Each open transaction has the whole store as it was at its first read, and its own writes as a list.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fs3.kv.transaction import AtomicOp

KEYS = [b"k" + bytes([number]) for number in range(5)]
ENDS = [*KEYS, b"l"]
State = dict[bytes, bytes]


def keys_of(begin: bytes, end: bytes) -> set[bytes]:
    """The keys of the alphabet inside a range."""
    return {key for key in KEYS if begin <= key < end}


def fold_atomic(op: AtomicOp, before: bytes | None, operand: bytes) -> bytes | None:
    """Atomic operations on values of at most two bytes, written down a second time."""
    if op is AtomicOp.COMPARE_AND_CLEAR:
        return None if before == operand else before
    if before is None:
        return operand
    if op is AtomicOp.BYTE_MAX:
        return max(before, operand)
    width = len(operand)
    old = sum(byte << 8 * at for at, byte in enumerate(before) if at < width)
    new = sum(byte << 8 * at for at, byte in enumerate(operand))
    if op is AtomicOp.ADD:
        result = (old + new) % 256**width
    elif op is AtomicOp.MAX:
        result = max(old, new)
    else:
        result = min(old, new)
    return bytes(result >> 8 * at & 255 for at in range(width))


@dataclass
class Write:
    """One call that writes."""

    kind: str
    begin: bytes
    end: bytes = b""
    value: bytes = b""
    op: AtomicOp = AtomicOp.ADD

    def keys(self) -> set[bytes]:
        return keys_of(self.begin, self.end) if self.kind == "clear_range" else {self.begin}

    def apply(self, state: State) -> None:
        if self.kind == "set":
            state[self.begin] = self.value
        elif self.kind == "atomic":
            result = fold_atomic(self.op, state.get(self.begin), self.value)
            state.pop(self.begin, None)
            if result is not None:
                state[self.begin] = result
        else:
            for key in self.keys():
                state.pop(key, None)


@dataclass
class ModelTransaction:
    """One open transaction."""

    base: State | None = None
    """The store at the first read."""
    seen_commits: int = 0
    writes: list[Write] = field(default_factory=list)
    must: set[bytes] = field(default_factory=set)
    """Reads whose change is a conflict in every engine."""
    may: set[bytes] = field(default_factory=set)
    """Reads whose change may be one: an engine may leave out of a range what it wrote itself."""
    write_conflicts: set[bytes] = field(default_factory=set)

    def known(self) -> set[bytes]:
        """Keys whose value follows from the own writes alone."""
        known: set[bytes] = set()
        for write in self.writes:
            if write.kind != "atomic":
                known |= write.keys()
        return known

    def view(self) -> State:
        assert self.base is not None
        state = dict(self.base)
        for write in self.writes:
            write.apply(state)
        return state


class Model:
    """The committed store and its history."""

    def __init__(self) -> None:
        self.state: State = {}
        self.commits: list[set[bytes]] = []
        """Keys written by each commit, in order."""

    def read(self, txn: ModelTransaction) -> State:
        """What ``txn`` sees now."""
        self.open(txn)
        return txn.view()

    def open(self, txn: ModelTransaction) -> None:
        """Give ``txn`` its snapshot if it has none."""
        if txn.base is None:
            txn.base = dict(self.state)
            txn.seen_commits = len(self.commits)

    def verdict(self, txn: ModelTransaction) -> bool | None:
        """Whether the commit of ``txn`` has to succeed; None: either is right."""
        if txn.may:
            self.open(txn)
        changed: set[bytes] = set().union(*self.commits[txn.seen_commits :])
        if changed & txn.must:
            return False
        return None if changed & txn.may else True

    def commit(self, txn: ModelTransaction) -> None:
        """The engine has committed ``txn``."""
        for write in txn.writes:
            write.apply(self.state)
        self.commits.append(set().union(txn.write_conflicts, *(write.keys() for write in txn.writes)))

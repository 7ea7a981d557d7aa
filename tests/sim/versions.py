"""Watches every commit of every target: numbers only grow, and one number has one identity everywhere.

Two contents under one number is what mistakes in the chain's rules lead to most often, long before a reader
sees it. What a target had committed may be pending again after its restart (the mark need not be on the
disk), so each run of a store begins anew; identities are compared over the whole run.
"""

from __future__ import annotations

from collections.abc import Callable

from fs3.ids import ChunkId
from fs3.storage.engine.store import ChunkStore
from fs3.wire.chunk import Identity

from .seen import VERSIONS, Problem


class VersionWatch:
    """Of one world."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._identities: dict[tuple[ChunkId, int], Identity] = {}
        self._newest: dict[tuple[int, ChunkId], Identity] = {}
        self.commit_count = 0

    def committed(self, store: int, chunk: ChunkId, identity: Identity) -> None:
        """A run of a store (any number that is its own) has committed a version."""
        self.commit_count += 1
        number = identity.update_version
        first = self._identities.setdefault((chunk, number), identity)
        if first != identity:
            text = f"{chunk}: number {number} was committed as {first} and as {identity}"
            self.problems.append(Problem(VERSIONS, text, chunk))
        before = self._newest.get((store, chunk))
        if before is not None and before.update_version > number:
            text = f"{chunk}: a target committed {identity} after {before}"
            self.problems.append(Problem(VERSIONS, text, chunk))
        self._newest[store, chunk] = identity


_watching: list[VersionWatch] = []
"""The present one; commits outside of any run are nobody's."""
_installed: list[bool] = []


def watch_versions() -> VersionWatch:
    """Watch the stores of this process from now on, instead of whoever did."""
    if not _installed:
        _installed.append(True)
        _install()
    _watching[:] = [VersionWatch()]
    return _watching[0]


def _install() -> None:
    original: Callable[[ChunkStore, ChunkId, Identity], bool] = ChunkStore.commit

    def commit(store: ChunkStore, chunk: ChunkId, identity: Identity) -> bool:
        is_committed = original(store, chunk, identity)
        if is_committed and _watching:
            _watching[0].committed(id(store), chunk, identity)
        return is_committed

    ChunkStore.commit = commit  # type: ignore[method-assign, assignment]

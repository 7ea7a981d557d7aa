"""Which version of a chunk a replica may give to a reader. PURE.

Linearizable at every replica (design 4.4): without a pending version it is the committed one. With one, the
last SERVING member is asked what is committed, *after* the read arrived, and its answer serves this read
only. ``relaxed`` readers take the committed version in any case.
"""

from __future__ import annotations

from dataclasses import dataclass

from fs3.wire.chunk import Identity, VersionInfo

from .engine.versions import ChunkState


@dataclass(frozen=True, slots=True)
class Serve:
    """Read exactly this version; None: the chunk was never committed here (a hole)."""

    identity: Identity | None


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the last serving member first."""


@dataclass(frozen=True, slots=True)
class Stale:
    """This replica cannot say: StaleRouting."""


def choose_at_once(state: ChunkState, *, last_serving: bool, relaxed: bool) -> Serve | Ask:
    """The choice before anybody was asked. ``last_serving``: nobody knows better than this member."""
    if state.pending is None or last_serving or relaxed:
        return Serve(_identity(state.committed))
    return Ask()


def choose_after_answer(state: ChunkState, answered: Identity | None) -> Serve | Stale:
    """The choice after the last serving member said what is committed there.

    ``state`` is read after the answer came: both are evaluated under the same chain version and lease.
    """
    asked_number = answered.update_version if answered is not None else 0
    own = _identity(state.committed)
    if (own.update_version if own is not None else 0) >= asked_number:
        return Serve(own)
    if state.pending is not None and state.pending.version.identity == answered:
        return Serve(answered)
    return Stale()


def _identity(version: VersionInfo | None) -> Identity | None:
    return version.identity if version is not None else None

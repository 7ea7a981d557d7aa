"""Decides which transactions of a batch commit, and what the store is afterwards. PURE.

One batch makes one version. Its commits are judged in order, each against the window and against those
before it in the same batch; the accepted ones are folded into one state: ranges to delete, then values to
put or delete. The owner of the LMDB store and the memory engine both stand on this.

Source: design 1 (Embedded LMDB).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InvalidRequest
from .conflicts import WINDOW_S, ConflictWindow
from .mutations import CommitRequest, Kind, check_request, fill_stamp, versionstamp
from .overlay import BaseGet, Deferred, WriteOverlay, fold
from .ranges import KeyRange
from .transaction import KvLimits

BATCH_COMMITS_MAX = 4096
"""Commits of one batch; the stamp has room for 65,536."""


class Verdict(enum.IntEnum):
    """Outcome of one commit; the numbers travel."""

    COMMITTED = 0
    CONFLICT = 1
    TOO_OLD = 2
    INVALID = 3
    UNKNOWN = 4
    """The store failed while it committed: perhaps applied. Never given by the resolver itself."""
    UNAVAILABLE = 5
    """The store refused the whole batch, nothing was applied. Never given by the resolver itself."""
    BUSY = 6
    """At a bound; nothing was applied. Never given by the resolver itself."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Verdict on one request; ``stamp`` if committed, ``message`` if not."""

    verdict: Verdict
    stamp: bytes = b""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a batch comes to. Apply ``cleared`` first, then ``values``."""

    version: int
    """The store's version afterwards; unchanged if nothing committed."""
    decisions: list[Decision]
    """One for each request, in order."""
    cleared: list[KeyRange] = field(default_factory=list)
    values: dict[bytes, bytes | None] = field(default_factory=dict)
    """None: the key is to be deleted."""
    committed_count: int = 0


class Resolver:
    """The conflict window and the version counter.

    If a resolution could not be stored, the resolver knows of writes that never happened: make a new one
    from the store's version.
    """

    def __init__(self, limits: KvLimits, last_version: int, window_s: float = WINDOW_S) -> None:
        self._limits = limits
        self._window = ConflictWindow(last_version, window_s)
        self.version = last_version
        """Version of the last batch that committed anything."""

    @property
    def floor(self) -> int:
        """Read versions below this are too old."""
        return self._window.floor

    def expire(self, now_s: float) -> None:
        """Forget what is older than the window; called when time passes without commits."""
        self._window.expire(now_s)

    def resolve(self, requests: Sequence[CommitRequest], now_s: float, read: BaseGet) -> Resolution:
        """Judge a batch at ``now_s``; ``read`` gives values of the store as it is before the batch."""
        assert 0 < len(requests) <= BATCH_COMMITS_MAX, len(requests)
        version = self.version + 1
        self._window.open_batch(version, now_s)
        overlay = WriteOverlay()
        decisions: list[Decision] = []
        committed = 0
        for request in requests:
            refusal = self._refusal(request)
            if refusal is not None:
                decisions.append(refusal)
                continue
            stamp = versionstamp(version, committed)
            committed += 1
            for mutation in request.mutations:
                fold(overlay, mutation, stamp)
            self._window.add(*written_by(request, stamp))
            decisions.append(Decision(Verdict.COMMITTED, stamp))
        if committed:
            self.version = version
        else:
            self._window.abandon_batch()
        values = {
            key: state.on(read(key)) if isinstance(state, Deferred) else known(state)
            for key, state in overlay.points.items()
        }
        return Resolution(self.version, decisions, list(overlay.cleared), values, committed)

    def _refusal(self, request: CommitRequest) -> Decision | None:
        try:
            check_request(self._limits, request)
        except InvalidRequest as error:
            return Decision(Verdict.INVALID, message=str(error))
        if not request.has_read_conflicts():
            return None
        if request.read_version < self._window.floor:
            return Decision(
                Verdict.TOO_OLD,
                message=f"read version {request.read_version} is below {self._window.floor}",
            )
        if self._window.conflicts(request.read_version, request.read_keys, request.read_ranges):
            return Decision(Verdict.CONFLICT, message=f"read at {request.read_version}, written since")
        return None


def known(state: object) -> bytes | None:
    """A state that needs neither snapshot nor stamp."""
    assert state is None or isinstance(state, bytes), state
    return state


def written_by(request: CommitRequest, stamp: bytes) -> tuple[list[bytes], list[KeyRange]]:
    """Keys and ranges that conflict with later readers."""
    keys = list(request.write_keys)
    ranges = list(request.write_ranges)
    for kind, key, value in request.mutations:
        if kind == Kind.CLEAR_RANGE:
            ranges.append((key, value))
        elif kind == Kind.STAMPED_KEY:
            keys.append(fill_stamp(key, stamp))
        else:
            keys.append(key)
    return keys, ranges

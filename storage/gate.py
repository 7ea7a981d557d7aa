"""Who may ask what of a target now: chain version, standing, lease. PURE.

Checked when a request arrives and again when its turn comes under the chunk's lock: the wait may have
crossed a change of the chain (design 4.3; ``3fs`` mistake 2). Versions must be equal, not merely newer.
"""

from __future__ import annotations

from collections.abc import Callable

from fs3.errors import Busy, Fs3Error, StaleRouting, Unavailable
from fs3.ids import ChainVersion, TargetId
from fs3.routing import TargetState

from .standing import Standing


class Gate:
    """The state that requests are compared with. ``standing`` is replaced as a whole: threads read it."""

    def __init__(self, target: TargetId, lease_valid: Callable[[ChainVersion], bool]) -> None:
        self.target = target
        self.lease_valid = lease_valid
        self.standing: Standing | None = None
        self.offline_reason = ""
        self.dropping = False
        """Between entering SYNCING and the durable drop of what was pending (design 4.6)."""
        self.syncing_since = ChainVersion(0)
        """The version in which the target last entered SYNCING: what was sent before that may be dropped."""
        self.synced_version = ChainVersion(0)
        """The one version at which a source and this target, SYNCING, found that it has everything (2.6)."""

    @property
    def is_complete(self) -> bool:
        """Whether the target has all that is committed: UPTODATE, at its present version."""
        standing = self.standing
        if standing is None:
            return False
        return standing.serving or (self.is_syncing and standing.version == self.synced_version)

    @property
    def is_syncing(self) -> bool:
        """Whether the target is being resynced."""
        return self.standing is not None and self.standing.state is TargetState.SYNCING

    def problem(self, version: ChainVersion) -> Fs3Error | None:
        """Why a request under this chain version is refused; None: it is of the present one."""
        if self.offline_reason:
            return Unavailable(f"target {self.target:x} is offline: {self.offline_reason}")
        standing = self.standing
        if standing is None or standing.state is None:
            return StaleRouting(f"target {self.target:x} is no member at chain version {version}")
        if standing.version != version:
            return StaleRouting(f"target {self.target:x} is at {standing.version}, the request at {version}")
        if self.dropping:
            return Busy(f"target {self.target:x} drops its pending versions first")
        return None

    def write_problem(self, version: ChainVersion) -> Fs3Error | None:
        """Why an update that has no number yet is refused: only a head with a lease gives numbers."""
        if (error := self.problem(version)) is not None:
            return error
        if self.standing is not None and not self.standing.is_head:
            return StaleRouting(f"target {self.target:x} is not the head at version {version}")
        return self._lease_problem(version)

    def update_problem(self, version: ChainVersion, sender: TargetId) -> Fs3Error | None:
        """Why a numbered update is refused: it comes from the predecessor of this very version."""
        if (error := self.problem(version)) is not None:
            return error
        before = self.standing.predecessor if self.standing is not None else None
        if before is None or before.target != sender:
            return StaleRouting(f"target {sender:x} is not the predecessor at {version}")
        return None

    def decree_problem(self, version: ChainVersion) -> Fs3Error | None:
        """Why a decree is refused: it is kept by those who stage updates."""
        if (error := self.problem(version)) is not None:
            return error
        if self.standing is not None and not self.standing.writable:
            return StaleRouting(f"target {self.target:x} stages nothing at version {version}")
        return None

    def read_problem(self, version: ChainVersion) -> Fs3Error | None:
        """Why a read (or a question about what is committed) is refused: serving, under a lease."""
        if (error := self.problem(version)) is not None:
            return error
        if self.standing is not None and not self.standing.serving:
            return StaleRouting(f"target {self.target:x} does not serve at version {version}")
        return self._lease_problem(version)

    def _lease_problem(self, version: ChainVersion) -> Fs3Error | None:
        if not self.lease_valid(version):
            return StaleRouting(f"target {self.target:x} has no lease for version {version}")
        return None

"""What a source sends next to one receiver. PURE.

A job lasts as long as its receiver is SYNCING behind a serving source, whatever else of the chain changes:
what was sent stays sent, since live updates reach the receiver in every version that this source adopts. A
receiver that entered SYNCING anew, or another store in its place, is told everything anew.

UPTODATE is a statement about exactly one chain version (design 2.6), so a job that has ended says DONE again
at the next version, and only that (``chain_model`` V9).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fs3.ids import ChainVersion, ChunkId, ClientSessionId, InodeId
from fs3.routing import Member, TargetState

from ..standing import Standing

NEVER = ChainVersion(0)


class Phase(enum.IntEnum):
    """In this order: what refuses requests comes before chunks. What recognises them comes after them, since
    only records of committed versions are sent (design 4.5): of those that were pending at the source, the
    receiver may have had some committed before it dropped its records, and then none comes with a version."""

    EPOCHS = 1
    SESSIONS = 2
    CHUNKS = 3
    CHANNELS = 4
    DONE = 5
    """The statement."""
    FINISHED = 6
    """Nothing to do until the chain changes."""


Key = InodeId | ClientSessionId | tuple[ClientSessionId, int] | ChunkId
"""By phase: of what was sent last."""


@dataclass(slots=True)
class Job:
    """Progress towards one receiver."""

    receiver: Member
    version: ChainVersion
    """Under which messages are sent now."""
    phase: Phase = Phase.EPOCHS
    after: Key | None = None
    """Everything of this phase up to here is at the receiver; None: nothing yet."""
    since: ChainVersion = NEVER
    """When the receiver entered SYNCING; 0: it has not said so yet."""
    store_id: int = 0
    complete_version: ChainVersion = NEVER
    """As in ``ResyncBeginResponse``."""
    must_begin: bool = True
    """Ask the receiver who it is before anything else is sent."""

    def on_begun(self, since: ChainVersion, store_id: int, complete_version: ChainVersion) -> None:
        """The receiver's answer to BEGIN."""
        self.must_begin = False
        if (since, store_id) != (self.since, self.store_id):
            self.since, self.store_id, self.complete_version = since, store_id, complete_version
            self.phase, self.after = Phase.EPOCHS, None

    def on_page(self, after: Key | None) -> None:
        """A page is at the receiver, the last of its phase if ``after`` is None."""
        self.after = after
        if after is None:
            self.phase = Phase(self.phase + 1)

    def on_done(self, version: ChainVersion) -> bool:
        """The receiver has taken the statement about this version. False: it is not the present one."""
        if version != self.version:
            return False
        self.phase = Phase.FINISHED
        return True

    def on_failed(self) -> None:
        """Something was refused or not answered: what was answered before counts."""
        self.must_begin = True

    def adopt(self, version: ChainVersion) -> None:
        """The chain has changed, and the receiver is still this source's."""
        if version == self.version:
            return
        self.version, self.must_begin = version, True
        if self.phase is Phase.FINISHED:
            self.phase = Phase.DONE


def follow(job: Job | None, standing: Standing | None) -> Job | None:
    """The job of a target that has adopted a version: the present one, a new one, or none."""
    receiver = standing.successor if standing is not None and standing.serving else None
    if standing is None or receiver is None or receiver.state is not TargetState.SYNCING:
        return None
    if job is None or (job.receiver.target, job.receiver.generation) != (
        receiver.target,
        receiver.generation,
    ):
        return Job(receiver, standing.version)
    job.adopt(standing.version)
    return job


def base_change(noted: int | None, dropped_change: int) -> int:
    """The change sequence of the source behind which its chunks are compared; 0: all are.

    ``noted``: at the adoption of the version in which the receiver was complete; None: the source was not in
    it. A receiver that left before a tombstone was dropped has perhaps what was removed (design 4.9).
    """
    return noted if noted is not None and dropped_change <= noted else 0

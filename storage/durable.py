"""What decrees and adopted chain versions leave in the store. Blocks; in the committer's lane."""

from __future__ import annotations

from .effects import Decree, EpochRaise, SessionEnd
from .engine.store import ChunkStore
from .engine.versions import EpochRecord
from .standing import Standing


def keep_decree(store: ChunkStore, decree: Decree, cluster_ms: int) -> None:
    """Make a decree durable; ``cluster_ms``: when it was."""
    match decree:
        case EpochRaise(inode, epoch):
            store.set_epochs([EpochRecord(inode, epoch, cluster_ms)])
        case SessionEnd(session):
            store.end_sessions([session], cluster_ms=cluster_ms)


def note_adoption(store: ChunkStore, standing: Standing, change: int) -> None:
    """Note the change sequence at which a version was adopted in which the target *serves*: there, and only
    there, it has all that is committed. So the newest note of a target that returns says when it last had,
    and a source that has a note of that version had it, too (design 4.6).
    """
    if standing.serving:
        store.note_chain_version(standing.version, change)

"""All mistakes by name, and those that must be among them."""

from __future__ import annotations

from .files import FILES
from .leases import CHAINS, LEASES
from .members import MEMBERS
from .mistake import Mistake
from .replicas import REPLICAS, RESYNCS
from .stores import STORES

MISTAKES: dict[str, Mistake] = {
    mistake.name: mistake for mistake in (*LEASES, *CHAINS, *MEMBERS, *REPLICAS, *RESYNCS, *STORES, *FILES)
}

COMPULSORY: dict[str, tuple[str, ...]] = {
    "lease counted from receipt": ("lease counted from receipt",),
    "new version active without waiting out grants": ("new version active without waiting out grants",),
    "joiner serves or answers queries before the acknowledgements": (
        "joiner serves before the acknowledgements",
        "joiner granted a lease before the acknowledgement",
        "joiner in force before the acknowledgements",
    ),
    "UPTODATE carried over to another version": (
        "UPTODATE carried over by the receiver",
        "UPTODATE carried over by mgmtd",
        "UPTODATE without the source",
    ),
    "new primary removes at once": ("new primary removes at once",),
    "reset taken as death": ("reset taken as death",),
    "tail answer shared with a later read": ("tail answer shared with a later read",),
    "SYNCING asked as tail": ("SYNCING asked as tail",),
    "new tail serves with an unresolved pending": ("new tail serves with an unresolved pending",),
    "SYNCING keeps its pendings or its dedup table": (
        "SYNCING keeps its pendings",
        "SYNCING keeps its dedup table",
    ),
    "a member that does not acknowledge blocks its own removal": (
        "a member that does not acknowledge blocks its own removal",
    ),
    "a retry answered before its identity is committed": (
        "a retry answered before its identity is committed",
    ),
    "grants before the wait after a start": (
        "grants before the wait after a start",
        "serves before the wait after a start",
    ),
    "commit before staged everywhere": ("commit before staged everywhere",),
    "identity with the carried chain version": ("identity with the carried chain version",),
    "chain version not checked under the lock": (
        "chain version not checked under the lock, numbering",
        "chain version not checked under the lock, staging",
    ),
    "version reused": ("version reused",),
    "dedup not persisted": ("dedup not persisted",),
    "dedup not resynced": ("dedup not resynced",),
    "tombstone forgotten": ("tombstone forgotten",),
    "version restarts at 1": ("version restarts at 1",),
    "epoch not checked": ("epoch not checked",),
    "in-place write under the high-water mark": ("in-place write under the high-water mark",),
    "resync removes a live chunk": ("resync removes a live chunk",),
    "late payload into a reused buffer": ("late payload into a reused buffer",),
    "block reused while being sent": ("block reused while being sent",),
    "fsync error retried": ("fsync error retried",),
    "spill without intent": ("spill without intent",),
    "settlement without epoch": ("settlement without epoch",),
    "stored answer outside the transaction": ("stored answer outside the transaction",),
    "pending dropped on a new chain version": ("pending dropped on a new chain version",),
}
"""What the plan of the project asks for, each with the mistakes here that it stands for."""

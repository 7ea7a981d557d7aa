"""fs3.storage: a chunk server. Some disks, several targets a disk; chunks are replicated along chains (CRAQ).

::

    server.py        joins everything; disks.py opens what is on the disks; targets.py: who serves, who failed
    service.py, ops/ the methods of ``fs3.wire.storage``, one file each
    runner.py        performs what a target's replica decides; committer.py: groups of durable work
    replica.py       PURE: the replica: who is written to, what is committed when
    gate.py standing.py chunk_work.py dedup.py epochs.py settle.py reading.py effects.py   PURE: its parts
    engine/          what a target keeps on its disk, and nothing about chains

An update: ``ops/write`` → ``Replica.on_write`` → Stage → disk → Forward → the successor's answer → Commit →
answer. A read: version chosen, lease checked, then bytes, straight from the page cache (``read_batch.py``);
only if something is pending the last serving member is asked. Source: design 4, 5.
"""

assert __name__ == "fs3.storage", (
    f"import this package as fs3.storage, not {__name__}: it would be loaded twice"
)

"""The chunk engine: what a target keeps on its disk, and nothing about chains.

::

    store.py      ChunkStore: the face; one a target (stage, commit, read, list, epochs, sessions, space)
    versions.py   the values that it takes and gives
    plan.py       PURE: which bytes a new version of a chunk is made of
    compose.py    writes those bytes into a block, and sums them
    allocate.py   PURE: blocks in size classes, what is free, what must rest before reuse
    format.py     PURE: the byte tables of every record
    index.py      the seam to an ordered store of records
    logged_index.py  the one of production: a log, changes in memory, a checkpoint once in a while
    log_file.py, index_log.py (PURE), overlay.py (PURE), lmdb_records.py   its parts
    cache.py      chunk states in memory, bounded

Two things hold a chunk: a *block* (bytes in a data file) and *records* (in the index). Order of a stage:
bytes into blocks that no stored version uses, one sync a file, then one index batch (one sync of its log)
with the pending record and the dedup record. So a record never names bytes that are not on the disk; bytes
without a record are free space. Source: design 4.1, 4.2, 4.5, 4.7.
"""

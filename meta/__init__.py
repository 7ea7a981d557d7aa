"""fs3.meta: the metadata service. Any number of processes; all state is in the KV store.

::

    server      what a process is made of; start, stop, health
    driver      the one way that every operation runs: identity, slot, retries, commit, events
    ops/        one file an RPC: validate, read, decide, write, answer
    workers/    removal, unfinished truncates and spills, lost sessions, survey of space
    finisher    what the storage nodes have to do for a file, fenced by epochs
    path acl rights             names and permissions
    inode dirent session slots intents   records: keys and encoding
    allocate    ids that never repeat; chains of new files

What it never does: keep anything that a restart may not lose; hold a lock; read with a conflict that POSIX
does not ask for. Usage by directory (design 3.13) has its seam in ``inode.count_inodes``, which every
creation and removal goes through, and ``inode.put_inode``, which every change of length does.

Source: design 3.
"""

assert __name__ == "fs3.meta", f"import this package as fs3.meta, not {__name__}: it would be loaded twice"

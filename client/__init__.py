"""The client library: files of an fs3 cluster from Python.

::

    import fs3.client

    with fs3.client.connect("fs3://host:7300/") as fs:     # or a configured name; default: the dev cluster
        with fs.open("/data/shard-0", "rb") as file:
            view = file.pread(1 << 20, 0)
        views = fs.read_batch([(file, offset, length), …])  # many ranges at once, from all servers

    async with await fs3.client.connect_async() as fs: …    # the same, asynchronous

How it is built, from the outside in::

    blocking, blocking_file   the blocking face, over one loop thread (loop_thread); large reads in the
                              calling thread (thread_reads); limits of single calls (deadlines)
    filesystem, file          the asynchronous face: names and attributes; one open file
    small_content, content_store, write_behind, prefetch
                              how a file's bytes are buffered, before and after the network
    core                      what the faces share; session, capabilities, open_files
    reader, writer            chunks: replicas, retries, hedges; channels, exactly once
    plan, outgoing, selection, channels, readahead, open_flags, address
                              pure: decisions without clock or network

Everything from ``core`` down takes its clock, chance and network from outside and runs in the simulated
world; ``connecting`` hands in the real ones (``call_log``: and has each call told, if that is wanted).

What a program may rely on: a returned ``fsync`` or ``close`` is durable and seen by everybody; a read returns
bytes whose checksums were right; a write is applied once; an error is an ``OSError`` with errno and path.
Calls wait until they are done, whatever fails; ``deadline`` and ``BOUNDED`` set limits (``docs/client.md``).
"""

from .blocking import FileSystem, connect
from .blocking_file import File
from .connecting import connect_async
from .deadlines import deadline
from .file import AsyncFile
from .filesystem import AsyncFileSystem, DirEntry
from .settings import BOUNDED, ClientSettings

assert __name__ == "fs3.client", (
    f"import this package as fs3.client, not {__name__}: it would be loaded twice"
)

__all__ = [
    "BOUNDED",
    "AsyncFile",
    "AsyncFileSystem",
    "ClientSettings",
    "DirEntry",
    "File",
    "FileSystem",
    "connect",
    "connect_async",
    "deadline",
]

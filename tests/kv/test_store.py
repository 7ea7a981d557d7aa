"""The store's writer after its predecessor was killed at the worst moment."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from fs3.kv.store import StoreWriter

from .owner_process import ROOT

READER = """
import sys, lmdb
environment = lmdb.open(sys.argv[1], readonly=True)
for _ in range(2):
    with environment.begin() as transaction:
        print(int.from_bytes(transaction.get(bytes.fromhex(sys.argv[2])), "big"), flush=True)
    sys.stdin.readline()
"""

KILLED_WRITER = """
import mmap, os, signal, sys
from pathlib import Path
from fs3.kv.store import VERSION_KEY, StoreWriter
writer = StoreWriter(Path(sys.argv[1]), lambda: bytes(16))
with writer.begin() as transaction:
    transaction.put(VERSION_KEY, (77).to_bytes(8, "big"))
last = writer._env.info()["last_txnid"]
transaction = writer.begin()
with open(Path(sys.argv[1]) / "lock.mdb", "r+b") as file:
    lock = mmap.mmap(file.fileno(), 0)
    place = lock.find(last.to_bytes(8, "little"), 0, 512)
    assert place > 0, place
    lock[place : place + 8] = (last - 1).to_bytes(8, "little")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_last_commit_counts_although_readers_do_not_see_it_yet(tmp_path: Path) -> None:
    """A kill between LMDB's meta page and its shared counter, made by hand: the counter is set back.

    A reader lives through it, as clients do: without one the lock file would be made anew.
    """
    store = tmp_path / "store"
    StoreWriter(store, lambda: bytes(16)).close()
    version_key = b"\xffversion".hex()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(store), version_key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout is not None and reader.stdin is not None
        assert reader.stdout.readline() == "1\n"
        killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(store)], cwd=ROOT, timeout=30)
        assert killed.returncode == -signal.SIGKILL
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "1\n", "the moment was not met: readers see the commit already"
        writer = StoreWriter(store, lambda: bytes(16))
        assert writer.version() == 77
        writer.close()
    finally:
        reader.kill()
        reader.communicate()

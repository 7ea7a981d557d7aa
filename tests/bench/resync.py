"""Resync and scrub: how fast an empty disk is filled, and what reads lose while it is; CPU of the scrub.

Each against a figure of the same run: the write path of the same cluster, reads while nothing else happens,
a whole core.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from crc32c import crc32c

from fs3.clock import SystemClock
from fs3.deploy.dev.health import fetch_health
from fs3.ids import ChainVersion, ChunkId, ClientSessionId, InodeId, TargetId, UpdateVersion
from fs3.rng import Rng
from fs3.rpc.buffers import aligned_payload
from fs3.storage.disk import OsDisk
from fs3.storage.disks import NEW_DISK
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.scrubbing import PIECE_BYTES
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import EngineParts, EngineSettings, StageItem
from fs3.storage.scrub_round import SCRUB
from fs3.wire.chunk import SUM_BLOCK_BYTES, Identity, Update, UpdateKind, WriterTag

from .data import DEPTH, MIB, Bench, fill, running_cluster
from .harness import Row, row

VICTIM = "storage-1"
FILES = 6
"""Of 256 MiB each, with three replicas on five nodes: 900 MiB for the node that is filled."""
POLL_S = 0.05
PATIENCE_S = 120.0
SCRUBBED_CHUNKS = 256
READS = 12_000
WINDOW_S = 2.0


def rows(directory: Path, runs: int) -> Iterator[Row]:
    """All figures; ``directory`` lies on the disk to be measured."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="fs3-bench-") as folder:
        base = Path(folder)
        with running_cluster(base / "three") as cluster:
            bench = Bench(cluster, base, runs)
            fill(bench.client_file)
            write = ("write", "--count", "256", "--depth", str(DEPTH))
            wrote = [bench.rate(write[0], f"/w{number}", *write[1:]) for number in range(FILES)]
            limit = statistics.median(wrote)
            idle = _resync(bench)
            name = "write path, 3 replicas"
            yield row(
                "resync of an empty disk, idle", idle, "MiB/s", limit=limit, limit_name=name, target=0.6
            )
            yield from _reads(bench)
        yield _scrub(base / "scrub")


def _start_empty(bench: Bench) -> None:
    """A node's disk is replaced by an empty one."""
    bench.cluster.kill(VICTIM)
    disk = bench.cluster.directory / VICTIM / "disk-0"
    shutil.rmtree(disk)
    disk.mkdir()
    (disk / NEW_DISK).touch()
    bench.cluster.restart(VICTIM, lambda _: None)


def _sent_bytes(bench: Bench) -> tuple[int, bool]:
    """By all nodes to those that are copied to; and whether some of it is still to be done."""
    sent, is_busy = 0, False
    for process in bench.cluster.plan().processes:
        jobs = (fetch_health(process.place.host, process.http_port) or {}).get("resync", {})
        for job in jobs.values() if isinstance(jobs, dict) else ():
            sent += job["sent_bytes"]
            is_busy |= job["phase"] != "finished"
    return sent, is_busy


def _resync(bench: Bench) -> float:
    """MiB/s from the first byte to the last."""
    before, _ = _sent_bytes(bench)
    _start_empty(bench)
    deadline_s = time.monotonic() + PATIENCE_S
    first: tuple[float, int] | None = None
    last = (0.0, 0)
    while True:
        sent, is_busy = _sent_bytes(bench)
        now_s = time.monotonic()
        assert now_s < deadline_s, "the disk is not filled in time"
        if sent > before and first is None:
            first = last = now_s, sent
        elif first is not None and sent > last[1]:
            last = now_s, sent
        elif first is not None and not is_busy and now_s > last[0] + 2:
            return (last[1] - first[1]) / MIB / (last[0] - first[0])
        time.sleep(POLL_S)


def _reads(bench: Bench) -> Iterator[Row]:
    """Reads of hot bytes by one client that goes on: before, and while a disk is filled at the default
    throttle; as the servers count them."""
    job = ["read", "/read", "--count", str(READS), "--size", str(MIB), "--depth", "16"]
    reading = threading.Thread(target=bench.clients, args=([job],))
    reading.start()
    deadline_s = time.monotonic() + PATIENCE_S
    while _read_mib_s(bench, POLL_S) < 1:
        assert time.monotonic() < deadline_s, "the client does not read"
    alone = _read_mib_s(bench, WINDOW_S)
    before, _ = _sent_bytes(bench)
    _start_empty(bench)
    while _sent_bytes(bench)[0] <= before:
        assert time.monotonic() < deadline_s, "nothing is copied"
        time.sleep(POLL_S)
    beside = _read_mib_s(bench, WINDOW_S)
    is_under_way = _sent_bytes(bench)[1] and reading.is_alive()
    reading.join()
    note = "" if is_under_way else "the copying, or the reading, was over before the window was"
    yield row(
        "read 1 MiB while it is filled",
        beside,
        "MiB/s",
        limit=alone,
        limit_name="nothing else",
        target=0.85,
        note=note,
    )


def _read_mib_s(bench: Bench, over_s: float) -> float:
    """What all nodes send to readers."""
    before, began_s = _read_bytes(bench), time.monotonic()
    time.sleep(over_s)
    return max(0.0, _read_bytes(bench) - before) / MIB / (time.monotonic() - began_s)


def _read_bytes(bench: Bench) -> float:
    """By all nodes, since each was started."""
    total = 0.0
    for process in bench.cluster.plan().processes:
        if process.role != "storage":
            continue
        with urllib.request.urlopen(f"http://{process.place.host}:{process.http_port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        name = "fs3_storage_read_bytes_total{"
        total += sum(float(line.split()[-1]) for line in lines if line.startswith(name))
    return total


def _scrub(folder: Path) -> Row:
    """Share of a core that is left to others at the default rate."""
    disk = OsDisk()
    parts = EngineParts(disk, index_opener(disk, Rng(1)), SystemClock())
    store = ChunkStore.create(str(folder), TargetId(1), 1, parts, EngineSettings())
    payload = aligned_payload(MIB)
    sums = (crc32c(payload[:SUM_BLOCK_BYTES]),) * (MIB // SUM_BLOCK_BYTES)
    for number in range(SCRUBBED_CHUNKS):
        identity = Identity(ChainVersion(1), UpdateVersion(1), WriterTag(ClientSessionId(1), 0, number + 1))
        update = Update(
            chunk=ChunkId(InodeId(1), number),
            identity=identity,
            kind=UpdateKind.WRITE,
            offset_bytes=0,
            length_bytes=MIB,
            sums=sums,
            chunk_size_bytes=MIB,
        )
        store.stage([StageItem(update, payload)])
        store.commit(update.chunk, identity)
    scratch = aligned_payload(PIECE_BYTES)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for number in range(SCRUBBED_CHUNKS):
        assert not store.scrub_chunk(ChunkId(InodeId(1), number), scratch).bad
    cpu_s, took_s = time.process_time() - began_cpu_s, time.perf_counter() - began_s
    store.close()
    share = cpu_s / SCRUBBED_CHUNKS * SCRUB.rate_bytes_s / MIB
    note = f"scrub: {share:.1%} of a core; {SCRUBBED_CHUNKS / took_s:,.0f} MiB/s without a limit"
    return row("a core beside a scrub at its default rate", 1 - share, "of it", target=0.95, note=note)

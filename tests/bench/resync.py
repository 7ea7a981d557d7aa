"""Resync and scrub: how fast an empty disk is filled, and what reads lose while it is; CPU of the scrub.

Each against a figure of the same run: the write path of the same cluster, reads of the same nodes while
nothing is copied, a whole core.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crc32c import crc32c

from fs3.clock import SystemClock
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

from .data import DEPTH, MIB, ROOT, Bench, fill, running_cluster
from .harness import Row, cpu_s, row

VICTIM = "storage-1"
BULK_MIB = 4096
"""With three replicas on five nodes: 2.4 GiB for the node that is filled."""
WRITES = 5
POLL_S = 0.05
PATIENCE_S = 120.0
SCRUBBED_CHUNKS = 256
READERS = {
    "read 1 MiB": ("read", "/read", "--count", "256", "--size", str(MIB), "--depth", "16"),
    "4 KiB in batches": ("random_batch", "/read", "--count", "16384", "--depth", "1"),
    "4 KiB one by one": ("random_single", "/read", "--count", "2000"),
}
"""What a client does again and again: bytes that the throttle sees, calls that move few, and a load so low
that the throttle leaves the copying nearly all of its rate."""
WINDOW_S = 4.0
LEAVING_S = 6.0
"""A node that is killed is left out, and its peers' clients have found their way, well within this."""


def rows(directory: Path, runs: int) -> Iterator[Row]:
    """All figures; ``directory`` lies on the disk to be measured."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="fs3-bench-") as folder:
        base = Path(folder)
        with running_cluster(base / "three") as cluster:
            bench = Bench(cluster, base, runs)
            fill(bench.client_file)
            fill(bench.client_file, "/bulk", BULK_MIB)
            write = ("write", "/written", "--count", "256", "--depth", str(DEPTH))
            limit = statistics.median(bench.rate(*write) for _ in range(WRITES))
            idle, copy_cpu_s = _resync(bench)
            name = "write path, 3 replicas"
            yield row(
                "resync of an empty disk, idle", idle, "MiB/s", limit=limit, limit_name=name, target=0.6
            )
            for kind, job in READERS.items():
                yield from _reads(bench, kind, job, copy_cpu_s)
        yield _scrub(base / "scrub")


def _empty(bench: Bench) -> None:
    """A node dies, its disk is replaced by an empty one, and nobody looks for it any more."""
    bench.cluster.kill(VICTIM)
    disk = bench.cluster.directory / VICTIM / "disk-0"
    shutil.rmtree(disk)
    disk.mkdir()
    (disk / NEW_DISK).touch()
    time.sleep(LEAVING_S)


def _start_copying(bench: Bench) -> None:
    """The node returns; wait for the first byte that it is sent."""
    before = _sent_bytes(bench)
    bench.cluster.start_again(VICTIM, lambda _: None)
    _wait(lambda: _sent_bytes(bench) > before, "nothing is copied")


def _sent_bytes(bench: Bench) -> float:
    """Copied so far by all nodes but the one that is filled."""
    return _total(bench, "fs3_storage_resync_sent_bytes_total", [VICTIM])


def _is_copying(bench: Bench) -> bool:
    return _total(bench, "fs3_storage_resync_jobs", [VICTIM]) > 0


def _read_bytes(bench: Bench) -> float:
    """By clients, of all nodes that run, since each was started."""
    return _total(bench, "fs3_storage_read_bytes_total")


def _total(bench: Bench, metric: str, but: Sequence[str] = ()) -> float:
    """Sum of a metric over the storage nodes that run."""
    total, pids = 0.0, bench.pids("storage")
    for process in bench.cluster.plan().processes:
        if process.name not in pids or process.name in but:
            continue
        with urllib.request.urlopen(f"http://{process.place.host}:{process.http_port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        total += sum(
            float(line.split()[-1]) for line in lines if line.startswith((f"{metric}{{", f"{metric} "))
        )
    return total


def _resync(bench: Bench) -> tuple[float, float]:
    """MiB/s from the first byte to the last, and CPU seconds of all storage nodes for a GiB."""
    _empty(bench)
    _start_copying(bench)
    first_s, first, first_cpu_s = time.monotonic(), _sent_bytes(bench), _servers_cpu_s(bench)
    last_s, last, last_cpu_s = first_s, first, first_cpu_s
    deadline_s = first_s + PATIENCE_S
    while True:
        sent, now_s, now_cpu_s = _sent_bytes(bench), time.monotonic(), _servers_cpu_s(bench)
        assert now_s < deadline_s, "the disk is not filled in time"
        if sent > last:
            last_s, last, last_cpu_s = now_s, sent, now_cpu_s
        elif not _is_copying(bench) and now_s > last_s + 2:
            break
        time.sleep(POLL_S)
    mib = (last - first) / MIB
    return mib / (last_s - first_s), (last_cpu_s - first_cpu_s) / mib * 1024


def _servers_cpu_s(bench: Bench) -> float:
    return sum(cpu_s(pid) for pid in bench.pids("storage").values())


@dataclass(frozen=True, slots=True)
class _Window:
    """What happened in a second, on average."""

    read_mib: float
    copied_mib: float
    readers_cpu_s: float
    servers_cpu_s: float


def _reads(bench: Bench, kind: str, job: Sequence[str], copy_cpu_s: float) -> Iterator[Row]:
    """Reads of hot bytes by one client that goes on, from the same nodes, in turn: while a node is away, and
    while its empty disk is filled at the default throttle; as the servers count them."""
    alone: list[_Window] = []
    beside: list[_Window] = []
    with _reading(bench, job) as client:
        for _ in range(bench.runs):
            _empty(bench)
            _wait(lambda: _rate(bench) > 0, "the client does not read")
            alone.append(_window(bench, client))
            _start_copying(bench)
            beside.append(_window(bench, client))
            assert _is_copying(bench), "the copying was over before the window was"
    ratios = [after.read_mib / before.read_mib for before, after in zip(alone, beside, strict=True)]
    found = row(
        f"{kind} while a disk is filled",
        _median(beside, "read_mib"),
        "MiB/s",
        limit=_median(alone, "read_mib"),
        limit_name="the same nodes, nothing copied",
        target=0.85,
        note=f"each turn: {', '.join(f'{ratio:.2f}' for ratio in ratios)}",
    )
    found.ratio = statistics.median(ratios)  # of neighbours in time: the machine drifts
    yield found
    for name, windows in (("alone", alone), ("beside", beside)):
        copied = _median(windows, "copied_mib")
        reader, servers = _median(windows, "readers_cpu_s"), _median(windows, "servers_cpu_s")
        note = f"client {reader:.2f}, storage nodes {servers:.2f}"
        if copied:
            note += f"; {copied:.0f} MiB/s copied, which take {copied / 1024 * copy_cpu_s:.2f} when idle"
        yield row(f"  cores in use, {name}", reader + servers, f"of {os.cpu_count()}", note=note)


def _median(windows: Sequence[_Window], field: str) -> float:
    return statistics.median(float(getattr(window, field)) for window in windows)


@contextmanager
def _reading(bench: Bench, job: Sequence[str]) -> Iterator[int]:
    """A client process that does its job until it is killed; its pid."""
    command = [sys.executable, "-m", "tests.bench.client_program", bench.client_file, *job, "--for-good"]
    client = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdin is not None and client.stdout is not None
        assert client.stdout.readline() == "ready\n", "a client did not get ready"
        client.stdin.write("go\n")
        client.stdin.flush()
        yield client.pid
        assert client.poll() is None, "the client has given up"
    finally:
        client.kill()
        client.communicate()


def _rate(bench: Bench) -> float:
    before = _read_bytes(bench)
    time.sleep(POLL_S)
    return _read_bytes(bench) - before


def _window(bench: Bench, client: int) -> _Window:
    """Look for a while."""

    def counted() -> tuple[float, float, float, float, float]:
        read, sent, servers = _read_bytes(bench), _sent_bytes(bench), _servers_cpu_s(bench)
        return time.monotonic(), read, sent, cpu_s(client), servers

    before = counted()
    time.sleep(WINDOW_S)
    took_s, read, copied, readers, servers = (now - then for now, then in zip(counted(), before, strict=True))
    return _Window(read / MIB / took_s, copied / MIB / took_s, readers / took_s, servers / took_s)


def _wait(is_so: Callable[[], bool], complaint: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, complaint
        time.sleep(POLL_S)


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

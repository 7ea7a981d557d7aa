"""One run: set up, load and faults, last reads, a check of everything, the disks themselves, tear down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import fs3.client
from fs3.client.call_log import VARIABLE as CALL_LOG
from fs3.deploy.dev.cluster import Cluster, ClusterError
from fs3.deploy.dev.plan import HOST, ClusterShape, Place, make_plan, port_count
from fs3.ids import ChunkId, InodeId
from fs3.rng import derived_rng
from fs3.routing import RoutingInfo

from . import network, volumes
from .aftermath import judge_stores
from .faults import Faults
from .ground import Ground
from .history import History, Operation, read_logs
from .kinds import Kind
from .machine import Machine, command
from .network import Network
from .registers import FIRST_VALUE, Register, content_of, registers, value_of
from .report import Outcome
from .stalls import read_told, stories
from .volumes import Volumes

ROOT = Path(__file__).parents[2]
AREA = "/chaos"
SHAPE = ClusterShape(mgmtd_count=3, link_quarantine_s=5)
CLIENTS = ("client-1", "client-2")
WORKER_END_S = 120.0
FSCK_TIMEOUT_S = 300.0

Say = Callable[[str], None]


class Run:
    """Everything of one run lies in ``directory``."""

    def __init__(self, directory: Path, machine: Machine, seed: int, worker_count: int) -> None:
        self._directory = directory
        self._machine = machine
        self._seed = seed
        self._worker_count = worker_count
        self._logs = directory / "logs"
        self._disks: list[Path] = []
        self._problems: list[str] = []

    def whole(self, kinds: Sequence[Kind], count: int, say: Say) -> Outcome:
        """``count`` faults of these kinds, and the judgement. Leaves nothing behind but files."""
        self._clear(say)
        self._logs.mkdir(parents=True)
        with ExitStack() as undo:
            undo.callback(self._tear_down, say)
            ground = self._set_up(say)
            client_file = ground.cluster.directory / "client.toml"
            written = prepare(client_file)
            faults = Faults(ground, kinds, derived_rng(self._seed, "faults"))
            with self._workers(client_file, ground):
                faults.run(count, say)
            faults.problems += self._problems
            history = read_logs(sorted(self._logs.glob("worker-*.jsonl")))
            history.operations += written
            outcome = Outcome(self._seed, faults, history)
            routing, chunks = read_everything(client_file, history)
            checked = fsck(ground.cluster.directory)
            outcome.findings = [f for f in checked["findings"] if not f["notice"]]
            outcome.unchecked = checked["problems"]
            ground.cluster.down(say)
            outcome.stores = judge_stores(self._disks, routing, chunks)
        history.judge()
        logs = [*self._logs.glob("worker-*.calls"), *(ground.cluster.directory / "logs").glob("*.log")]
        outcome.stalls = stories(history, faults.struck, read_told(logs))
        return outcome

    def _clear(self, say: Say) -> None:
        """Take down and remove what an earlier run may have left."""
        self._tear_down(say)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _tear_down(self, say: Say) -> None:
        cluster = Cluster(self._directory / "cluster")
        if cluster.exists:
            try:
                cluster.down(say)
            except ClusterError as error:
                say(str(error))
        if self._machine.has_network:
            network.sweep()
        if self._machine.has_volumes:
            volumes.sweep()

    def _set_up(self, say: Say) -> Ground:
        plan = make_plan(SHAPE, range(port_count(SHAPE)))
        nodes = [p.name for p in plan.processes if p.port or p.http_port]
        storage = [p.name for p in plan.processes if p.role == "storage"]
        net = disks = None
        if self._machine.has_network:
            net = Network([*nodes, *CLIENTS])
            net.up()
        if self._machine.has_volumes:
            disks = Volumes(
                self._directory / "volumes", storage,
                has_xfs=self._machine.has_xfs, is_mapped=self._machine.has_mapper,
            )  # fmt: skip
            disks.up()
        directory = self._directory / "cluster"
        places = {
            name: Place(
                host=net.host(name) if net else HOST,
                before=net.enter(name) if net else (),
                disk=disks[name].data if disks and name in storage else None,
            )
            for name in nodes
        }
        self._disks = [places[name].disk or directory / name / "disk-0" for name in storage]
        cluster = Cluster(directory, places)
        cluster.up(SHAPE, say)
        return Ground(cluster, net, disks, CLIENTS)

    @contextmanager
    def _workers(self, client_file: Path, ground: Ground) -> Iterator[None]:
        """Processes at work; told to end at the end, and waited for."""
        running = [self._worker(number, client_file, ground) for number in range(1, self._worker_count + 1)]
        try:
            for process in running:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n", "a worker did not begin"
            yield
            for process in running:
                assert process.stdin is not None
                process.stdin.close()
            for number, process in enumerate(running, 1):
                self._ended(number, process)
        finally:
            for process in running:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    assert pipe is not None
                    pipe.close()

    def _ended(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """A worker that broke off is a problem; what it has told is judged all the same."""
        try:
            code = process.wait(WORKER_END_S)
        except subprocess.TimeoutExpired:
            self._problems.append(f"worker {number} does not end")
            return
        if code:
            errors = (self._logs / f"worker-{number}.err").read_text().splitlines()
            self._problems.append(f"worker {number} broke off: {errors[-1] if errors else code}")

    def _worker(self, number: int, client_file: Path, ground: Ground) -> subprocess.Popen[bytes]:
        before = ground.network.enter(CLIENTS[number % len(CLIENTS)]) if ground.network else ()
        log = self._logs / f"worker-{number}.jsonl"
        with (self._logs / f"worker-{number}.err").open("wb") as errors:
            return subprocess.Popen(
                [*before, sys.executable, "-m", "tests.chaos.worker",
                 str(client_file), AREA, str(number), str(self._seed), str(log)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT,
                env=os.environ | {CALL_LOG: str(log.with_suffix(".calls"))},
            )  # fmt: skip


def prepare(client_file: Path) -> list[Operation]:
    """The shared files: every slot zero, but the quiet ones; returns the writes of these."""
    written: list[Operation] = []
    with fs3.client.connect(str(client_file)) as filesystem:
        filesystem.makedirs(f"{AREA}/own", exist_ok=True)
        for slot in registers(AREA):
            mode = "r+b" if filesystem.exists(slot.path) else "w+b"
            value = FIRST_VALUE if slot.is_quiet else 0
            began_s = time.monotonic()
            with filesystem.open(slot.path, mode) as file:
                file.pwrite(content_of(value, slot.size_bytes), slot.offset_bytes)
            if slot.is_quiet:
                written.append(Operation("first write", slot.name, began_s, time.monotonic(), value))
    return written


def read_everything(client_file: Path, history: History) -> tuple[RoutingInfo, dict[ChunkId, bytes]]:
    """Adds a last read of each slot to the history; returns the chains as they are now, and each slot's chunk
    with the bytes that were read: every replica must have them."""
    chunks: dict[ChunkId, bytes] = {}
    with fs3.client.connect(str(client_file)) as filesystem:
        for slot in registers(AREA):
            began_s = time.monotonic()
            with filesystem.open(slot.path, "rb") as file:
                content = file.pread(slot.size_bytes, slot.offset_bytes)
                found = file.stat()
            value = value_of(content)
            shown = value if value is not None else f"torn: {content[:32].hex()}"
            history.operations.append(Operation("last read", slot.name, began_s, time.monotonic(), shown))
            chunks[chunk_of(slot, found.st_ino, found.st_blksize)] = content
        return filesystem.asynchronous.core.components.routing.routing, chunks


def chunk_of(slot: Register, inode: int, chunk_bytes: int) -> ChunkId:
    """The chunk at whose beginning the slot lies."""
    assert slot.offset_bytes % chunk_bytes == 0 and slot.size_bytes <= chunk_bytes, slot
    return ChunkId(InodeId(inode), slot.offset_bytes // chunk_bytes)


def fsck(directory: Path) -> Any:
    """What ``fs3 fsck --data`` says of the running cluster, from its JSON."""
    words = ("fsck", "--dir", str(directory), "--data", "--json")
    text = command(sys.executable, "-m", "fs3.deploy.main", *words, worst=2, timeout_s=FSCK_TIMEOUT_S)
    return json.loads(text)

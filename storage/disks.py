"""Opens a storage node's directory and its disks, and the chunk stores on them. Blocking: runs in a lane.

Nothing here stops the process but the node's own directory: a disk that is missing, foreign or broken, or a
store that fails its checks, becomes targets that are reported OFFLINE with the reason (design 4.7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fs3.clock import Clock
from fs3.errors import CorruptData, Fs3Error, InvalidRequest
from fs3.ids import Generation, NodeId, TargetId, target_id

from .disk import Disk
from .engine.index import Index
from .engine.store import ChunkStore
from .engine.versions import EngineParts, EngineSettings
from .node_state import (
    STATE_BYTES,
    DiskState,
    NodeState,
    pack_disk,
    pack_node,
    target_number,
    unpack_disk,
    unpack_node,
)

NEW_DISK = "disk.new"
"""A file of this name, made by an operator, says of an empty disk that it is new in its place. Its stores are
others than those that the cluster knew: they enter their chains by being copied to."""

OpenDisk = Callable[[str], Disk]
OpenIndex = Callable[[Disk], Callable[[str], Index]]


@dataclass(frozen=True, slots=True)
class OpenedTarget:
    """One target of the node: its store, or why there is none."""

    target: TargetId
    disk: Disk
    directory: str
    """Of the disk."""
    store: ChunkStore | None
    reason: str = ""


class NodeDirectory:
    """The node's directory: holds ``node.state``, locked while the process lives."""

    def __init__(self, directory: str, node: NodeId, disk: Disk) -> None:
        """Opens or makes it. InvalidRequest: another node's, or in use; CorruptData; DiskFailed."""
        self._path = f"{directory}/node.state"
        self._lock = f"{directory}/lock"
        self._disk = disk
        disk.make_directory(directory)
        if not disk.lock(self._lock):
            raise InvalidRequest(f"{directory} is in use by another process")
        data = _read_sector(disk, self._path)
        found = unpack_node(data) if data is not None else None
        if found is not None and found.node != node:
            disk.unlock(self._lock)
            raise InvalidRequest(f"{directory} belongs to node {found.node}, not {node}")
        self.state = found or NodeState(node, 0, Generation(0))

    def begin_run(self) -> Generation:
        """The generation of this run, durable before it is returned."""
        self._put(replace(self.state, generation=Generation(self.state.generation + 1)))
        return self.state.generation

    def set_disk_count(self, disk_count: int) -> None:
        """So many disks have been made ready."""
        self._put(replace(self.state, disk_count=disk_count))

    def _put(self, state: NodeState) -> None:
        _write_sector(self._disk, self._path, pack_node(state))
        self.state = state

    def close(self) -> None:
        """Let another process have it."""
        self._disk.unlock(self._lock)


def open_targets(
    home: NodeDirectory,
    directories: Sequence[str],
    targets_per_disk_count: int,
    open_disk: OpenDisk,
    open_index: OpenIndex,
    settings: EngineSettings,
    clock: Clock,
    draw_store_id: Callable[[], int],
) -> list[OpenedTarget]:
    """Every target of the node. Disks beyond those ever made ready are made ready; their targets are made."""
    opened: list[OpenedTarget] = []
    for number, directory in enumerate(directories):
        disk = open_disk(directory)
        targets = [
            target_id(home.state.node, target_number(number, place))
            for place in range(targets_per_disk_count)
        ]
        try:
            _make_ready(home, disk, directory, number)
            disk.attach(directory)
            disk.probe(disk_marker(directory))
        except (Fs3Error, OSError) as error:
            opened += [OpenedTarget(target, disk, directory, None, str(error)) for target in targets]
            continue
        parts = EngineParts(disk, open_index(disk), clock)
        opened += [_open_store(directory, target, parts, settings, draw_store_id) for target in targets]
    return opened


def disk_marker(directory: str) -> str:
    """The file that says whose disk it is."""
    return f"{directory}/disk.state"


def _make_ready(home: NodeDirectory, disk: Disk, directory: str, number: int) -> None:
    """Check that the disk is the one that belongs here; take a new one into use."""
    path, token = disk_marker(directory), f"{directory}/{NEW_DISK}"
    data = _read_sector(disk, path)
    found = unpack_disk(data) if data is not None else None
    expected = DiskState(home.state.node, number)
    if found is not None and found != expected:
        raise InvalidRequest(f"{directory} is disk {found.disk_number} of node {found.node}")
    if found is None:
        if number < home.state.disk_count and not disk.exists(token):
            raise InvalidRequest(
                f"{directory} was in use, and is empty now: is the disk mounted? If this is an empty disk in "
                f"its place, make a file {token}"
            )
        disk.make_directory(directory)
        _write_sector(disk, path, pack_disk(expected))
    if number >= home.state.disk_count:
        home.set_disk_count(number + 1)
    if disk.exists(token):  # said once: it must not speak for the next disk
        disk.remove(token)
        disk.sync_directory(directory)


def _open_store(
    disk_directory: str,
    target: TargetId,
    parts: EngineParts,
    settings: EngineSettings,
    draw_store_id: Callable[[], int],
) -> OpenedTarget:
    directory = f"{disk_directory}/target-{target:x}"
    try:
        if _has_store(parts.disk, directory):
            store = ChunkStore.open(directory, target, parts, settings)
        else:
            store = ChunkStore.create(directory, target, draw_store_id(), parts, settings)
    except (Fs3Error, OSError) as error:
        return OpenedTarget(target, parts.disk, disk_directory, None, str(error))
    return OpenedTarget(target, parts.disk, disk_directory, store)


def _has_store(disk: Disk, directory: str) -> bool:
    """False: there is nothing of a store, or of one that was never finished. CorruptData: parts of one."""
    if disk.exists(f"{directory}/index"):
        return True
    data = f"{directory}/data"
    if disk.exists(data) and disk.list_directory(data):
        raise CorruptData(f"{directory} has chunks and no index: what is left of a store is not made anew")
    return False


def _read_sector(disk: Disk, path: str) -> bytes | None:
    if not disk.exists(path):
        return None
    file = disk.open(path)
    try:
        if file.size_bytes() < STATE_BYTES:
            return b""
        buffer = bytearray(STATE_BYTES)
        file.pread(memoryview(buffer), 0)
        return bytes(buffer)
    finally:
        file.close()


def _write_sector(disk: Disk, path: str, data: bytes) -> None:
    assert len(data) == STATE_BYTES, len(data)
    is_new = not disk.exists(path)
    file = disk.open(path, create=is_new)
    try:
        if file.size_bytes() < STATE_BYTES:
            file.preallocate(0, STATE_BYTES)
        file.pwrite(memoryview(data), 0)
        file.sync()
    finally:
        file.close()
    if is_new:
        disk.sync_directory(path.rpartition("/")[0])

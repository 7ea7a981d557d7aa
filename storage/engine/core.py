"""What the parts of a chunk store share: its files, its index, its free map, its states in memory.

Locks. ``writer`` is held for a whole durable operation, over waits for the disk: there is one at a time.
``lock`` guards everything in memory and is never held over a wait, so ``commit`` and ``versions`` can be
called from an event loop. Taken together: ``writer`` first.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence

from fs3.errors import Busy, CorruptData, FsError, fs_error
from fs3.ids import ChunkId
from fs3.wire.chunk import Identity

from ..disk import DiskFile
from .allocate import CLASSES, Allocator, Block, class_for
from .cache import Entry, StateCache
from .compose import Composer, Place
from .format import (
    COUNTERS_KEY,
    Counters,
    Header,
    StoredPending,
    StoredVersion,
    committed_key,
    pack_counters,
    unpack_committed,
)
from .index import Batch, Index
from .versions import EngineParts, EngineSettings

CHANGE_PAUSE = 1 << 16
"""Change numbers skipped at an open: more than may have been given in memory and lost by a crash."""


class StoreCore:
    """State of an open store. Made by ``recover``; used through ``ChunkStore``."""

    def __init__(
        self, directory: str, header: Header, index: Index, parts: EngineParts, settings: EngineSettings
    ) -> None:
        self.directory = directory
        self.store_id = header.store_id
        self.target = header.target
        self.disk = parts.disk
        self.clock = parts.clock
        self.settings = settings
        self.index = index
        self.lock = threading.Lock()
        self.writer = threading.RLock()
        self.allocator = Allocator(header.file_bytes, settings.group_bytes)
        self.cache = StateCache(settings.cache_bytes)
        self.composer = Composer()
        self.counters = Counters()
        self.files: dict[tuple[int, int], DiskFile] = {}
        self.pending: dict[ChunkId, StoredPending] = {}
        self.replacing: dict[ChunkId, None] = {}
        """Chunks whose pending version is being replaced or dropped: it cannot be committed any more."""
        self.freed: list[Block] = []
        """Blocks whose last record was removed by a batch that is not durable yet."""
        self.chunk_count = 0
        self.high_marks: dict[int, int] = {}
        """High mark of each class as last put into a batch; forgotten when a batch was not applied."""

    # -- states

    def entry(self, chunk: ChunkId) -> Entry:
        """The state of a chunk; the lock is held."""
        entry = self.cache.get(chunk)
        if entry is None:
            key = committed_key(chunk)
            value = self.index.get(key)
            committed = unpack_committed(key, value) if value is not None else None
            pending = self.pending.get(chunk)
            entry = Entry(committed, pending)
            self.cache.put(chunk, entry)
        return entry

    def held(self, chunk: ChunkId, identity: Identity | None) -> StoredVersion | None:
        """The version that a read asks for, its block held; None: there is no content to read.

        Raises Busy: that identity is neither committed nor pending.
        """
        with self.lock:
            entry = self.entry(chunk)
            found = entry.committed
            if identity is not None and (found is None or found.info.identity != identity):
                pending = entry.pending
                if pending is None or pending.version.info.identity != identity:
                    raise Busy(f"chunk {chunk}: version {identity} is not here")
                found = pending.version
            if found is None or found.info.removed:
                return None
            if found.block is not None:
                self.allocator.hold(found.block)
            return found

    def identities(self, chunk: ChunkId) -> list[Identity | None]:
        """What to ask ``held`` for to see all of a chunk: the committed version, and the pending one."""
        with self.lock:
            pending = self.pending.get(chunk)
        return [None] if pending is None else [None, pending.version.info.identity]

    def release(self, block: Block) -> None:
        with self.lock:
            self.allocator.release(block)

    def held_committed(self, chunks: Sequence[ChunkId]) -> list[StoredVersion] | None:
        """The committed versions of chunks, their blocks held; None, and nothing held, when a chunk has a
        pending version, or no content."""
        with self.lock:
            get = self.cache.get
            found: list[StoredVersion] = []
            blocks: list[Block] = []
            for chunk in chunks:
                entry = get(chunk) or self.entry(chunk)
                stored = entry.committed
                if entry.pending is not None or stored is None or stored.block is None:
                    return None
                found.append(stored)
                blocks.append(stored.block)
            for block in blocks:
                self.allocator.hold(block)
            return found

    def release_all(self, versions: Sequence[StoredVersion]) -> None:
        """Undo ``held_committed``."""
        with self.lock:
            for stored in versions:
                assert stored.block is not None, stored.info
                self.allocator.release(stored.block)

    # -- records

    def apply(self, batch: Batch, frees: Sequence[Block] = ()) -> None:
        """Apply a batch durably; then ``frees`` and what earlier batches freed can be used again.

        Raises FsError ENOSPC (nothing happened), DiskFailed.
        """
        with self.lock:
            freed, self.freed = self.freed, []
        try:
            self.index.apply(batch, durable=True)
        except FsError:
            with self.lock:
                self.freed[:0] = freed
            self.high_marks.clear()
            raise
        with self.lock:
            for block in (*freed, *frees):
                self.allocator.give_back(block)

    def apply_repair(self) -> None:
        """Let the index's record of a repair become durable. It is in force already: on a full disk it waits,
        like a commit mark, for a change that finds room."""
        try:
            self.apply(Batch())
        except FsError:
            pass

    def put_counters(self, batch: Batch) -> None:
        batch.put(COUNTERS_KEY, pack_counters(self.counters))

    def next_change(self) -> int:
        with self.lock:
            self.counters.change += 1
            return self.counters.change

    # -- blocks

    def place(self, block: Block) -> Place:
        number, offset_bytes = self.allocator.place(block)
        return Place(self.files[block.size_class, number], offset_bytes)

    def take(self, size_class: int) -> Block:
        """A block to write into. Raises FsError ENOSPC, DiskFailed."""
        now_s = self.clock.boot_s()
        while True:
            with self.lock:
                block = self.allocator.take(size_class, now_s)
            if block is not None:
                return block
            self.grow(size_class, now_s)

    def written(self, payload: memoryview) -> Block:
        """A block of its own with these bytes, on the disk. Raises FsError ENOSPC, DiskFailed."""
        block = self.take(class_for(len(payload)))
        place = self.place(block)
        with self.composer.batch(self.disk.writes()):
            self.composer.write(place, payload)
        place.file.sync()
        return block

    def grow(self, size_class: int, now_s: float) -> None:
        try:
            self._grow_once(size_class, now_s)
        except FsError:
            if self.freed:  # only the commit marks must be written for these blocks to be free
                self.apply(Batch())
                return
            # Other classes may have more than they use: give that back, once.
            if not self._shrink(max(1 << size_class, self.settings.group_bytes)):
                raise
            self._grow_once(size_class, now_s)

    def _grow_once(self, size_class: int, now_s: float) -> None:
        capacity_bytes = self.capacity_bytes()
        with self.lock:
            growth = self.allocator.growth(size_class, capacity_bytes, now_s)
        if growth is None:
            raise fs_error(errno.ENOSPC, f"target {self.target:#x} is full", self.directory)
        file = self.files.get((size_class, growth.file_number))
        if file is None:
            file = self.disk.open(data_path(self.directory, size_class, growth.file_number), create=True)
            self.files[size_class, growth.file_number] = file
            # Before any record names a block of it: the name must not be lost.
            self.disk.sync_directory(data_directory(self.directory))
        file.preallocate(growth.offset_bytes, growth.length_bytes)
        with self.lock:
            self.allocator.grown(growth)

    def _shrink(self, wanted_bytes: int) -> bool:
        with self.lock:
            cuts = self.allocator.shrink(wanted_bytes)
        for size_class, kept in cuts:
            number, offset_bytes = self.allocator.place(Block(size_class, kept))
            for key in [key for key in self.files if key[0] == size_class and key[1] >= number]:
                self.files[key].truncate(offset_bytes if key[1] == number else 0)
        return bool(cuts)

    def capacity_bytes(self) -> int:
        if self.settings.capacity_bytes:
            return self.settings.capacity_bytes
        return self.allocator.prepared_bytes + self.disk.space(self.directory).free_bytes

    def load_files(self) -> dict[int, int]:
        """Open the data files; returns the blocks that each class has space for."""
        prepared: dict[int, int] = {}
        directory = data_directory(self.directory)
        names = self.disk.list_directory(directory)
        for key, name in sorted((parse_data_name(name, directory), name) for name in names):
            file = self.files[key] = self.disk.open(f"{directory}/{name}")
            size_class, number = key
            count = prepared.get(size_class, 0)
            if self.allocator.place(Block(size_class, count)) == (number, 0):
                prepared[size_class] = count + (file.size_bytes() >> size_class)
            elif file.size_bytes():
                # The file before is not full: a crash lost its growth, so no record names this one either
                # (if one does, the free map will say so).
                file.truncate(0)
        return prepared

    def close_files(self) -> None:
        for file in self.files.values():
            file.close()
        self.files.clear()


def data_directory(directory: str) -> str:
    """Where the data files of a store lie."""
    return f"{directory}/data"


def data_path(directory: str, size_class: int, number: int) -> str:
    """Path of a data file."""
    return f"{data_directory(directory)}/{size_class:02d}-{number:04d}"


def parse_data_name(name: str, directory: str) -> tuple[int, int]:
    """(class, number) of a data file's name; CorruptData for a foreign one."""
    left, _, right = name.partition("-")
    if not (left.isdecimal() and right.isdecimal() and int(left) in CLASSES):
        raise CorruptData(f"{directory}/{name} is not a file of a chunk store")
    return int(left), int(right)

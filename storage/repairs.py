"""Bytes of one target that are not what they should be: found, counted, fetched from another member.

Event loop only. Whoever meets a bad block reports its chunk; however many readers meet it before it is right
again, it is repaired once.

Source: design 4.2, 4.3, 4.7.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fs3.errors import Busy, Fs3Error
from fs3.ids import ChainId, ChunkId
from fs3.log import Logger
from fs3.metrics import Metrics
from fs3.wire.chunk import CHUNK_BYTES_MAX, Identity

from .disk import DiskFailed
from .effects import Mend
from .engine.store import ChunkStore
from .held import HeldBytes
from .lanes import READS, Lanes
from .mending import Mender

REPAIRS_MAX = 256
"""Chunks of one target that wait for their repair; what is found beyond that is found again by its next
reader."""

Start = Callable[[str, Coroutine[Any, Any, None]], None]


class Repairs:
    """``start(name, work)``: a task of the target; ``chain()``: the one that it is a member of."""

    def __init__(
        self,
        store: ChunkStore,
        mender: Mender,
        lanes: Lanes,
        *,
        start: Start,
        chain: Callable[[], ChainId | None],
        on_disk_failed: Callable[[str], None],
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._mender = mender
        self._lanes = lanes
        self._start = start
        self._chain = chain
        self._on_disk_failed = on_disk_failed
        self._log = log
        self.under_way: dict[ChunkId, None] = {}
        label = f"{store.target:x}"
        self.corrupt = metrics.counter("fs3_storage_corrupt_blocks_total", target=label)
        self._repaired = metrics.counter("fs3_storage_repaired_chunks_total", target=label)

    def begin(self, chunk: ChunkId, block_count: int = 1) -> None:
        """Blocks of a chunk fail their sums: count them, and fetch them from another member."""
        if chunk in self.under_way:
            return
        self.corrupt.value += block_count
        if len(self.under_way) < REPAIRS_MAX:
            self.under_way[chunk] = None
            self._start(f"repair {chunk}", self._repair(chunk))

    async def _repair(self, chunk: ChunkId) -> None:
        try:
            await self.mend(chunk)
        finally:
            del self.under_way[chunk]

    async def mend_found(self, chunk: ChunkId, block_count: int) -> bool:
        """A scrub found blocks that are wrong: count and mend them. False: they are not, or somebody else is
        about it."""
        if chunk in self.under_way:
            return False
        self.corrupt.value += block_count
        self.under_way[chunk] = None
        try:
            return await self.mend(chunk)
        finally:
            del self.under_way[chunk]

    async def mend(self, chunk: ChunkId) -> bool:
        """Fetch what is wrong of a chunk, now. False: nobody has it, or nothing is wrong."""
        chain = self._chain()
        is_mended, reason = False, ""
        try:
            is_mended = chain is not None and await self._mender.repair(chain, chunk)
        except DiskFailed as error:
            self._on_disk_failed(str(error))
            return False
        except Fs3Error as error:  # no space for a block more: whoever meets it next tries again
            reason = str(error)
        self._repaired.value += is_mended
        self._log.warning("corrupt block", chunk=str(chunk), mended=is_mended, reason=reason)
        return is_mended

    async def make_right(self, chunk: ChunkId, identity: Identity) -> bool:
        """A block of a version fails its sum: mend the chunk. Whether the version is right then, or gone."""
        self.corrupt.value += 1
        await self.mend(chunk)
        look = partial(self._store.verify_range, chunk, identity, 0, CHUNK_BYTES_MAX)
        try:
            return not await self._lanes.run(READS, look)
        except Busy:
            return True
        except DiskFailed as error:
            self._on_disk_failed(str(error))
            return False

    async def take(self, effect: Mend) -> None:
        """The predecessor's bytes take the place of the own ones."""
        held = effect.payload
        assert isinstance(held, HeldBytes), effect
        try:
            await self._mender.take(effect.update, held.view)
        except Fs3Error as error:
            self._log.warning("could not take the predecessor's bytes", reason=str(error))

    async def is_right(self, chunk: ChunkId) -> bool:
        """Whether the own bytes of a chunk are what their sums say; counts those that are not."""
        bad = await self._lanes.run(READS, partial(self._store.verify_chunk, chunk))
        self.corrupt.value += len(bad)
        return not bad

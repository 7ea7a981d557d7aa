"""The storage nodes' side of a few files, in memory: a double of ``fs3.stubs.storage.StorageStub``.

It keeps what the real one keeps that matters to the metadata service: the epoch in force by (chain, file),
the chunks with their lengths, ended sessions; and it refuses as the real one does. ``write`` is what a
client's write comes to. Faults: chains in ``down`` do not answer, those in ``full`` have no room for records.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence

from fs3.errors import DeadlineExceeded, InvalidRequest, SessionLost, StaleFile, fs_error
from fs3.ids import ChainId, ClientSessionId, Epoch, InodeId
from fs3.layout import Layout, chunk_count, extents
from fs3.stubs.storage import FileEnd
from fs3.wire.storage import TargetSpace


class FakeChains:
    """``fs3.meta.services.Chains``, and ``write`` and ``content_end`` for tests."""

    def __init__(self) -> None:
        self.epochs: dict[tuple[ChainId, InodeId], Epoch] = {}
        self.stored: dict[tuple[ChainId, InodeId], dict[int, int]] = {}
        """(chain, inode) -> {chunk index: length}; nothing empty."""
        self.ended: dict[tuple[ChainId, ClientSessionId], None] = {}
        self.down: dict[ChainId, None] = {}
        self.full: dict[ChainId, None] = {}
        self.calls: list[str] = []
        self.before: list[Callable[[str], Awaitable[None]]] = []
        """Run (once each) before the next call: something else gets in between."""
        self.targets: tuple[TargetSpace, ...] = ()

    @property
    def chunks(self) -> dict[InodeId, dict[int, int]]:
        """inode -> {chunk index: length}, over all chains."""
        found: dict[InodeId, dict[int, int]] = {}
        for (_, inode), lengths in self.stored.items():
            found.setdefault(inode, {}).update(lengths)
        return found

    async def _call(self, name: str, chains: Sequence[ChainId], timeout_s: float) -> None:
        self.calls.append(name)
        if self.before:
            await self.before.pop(0)(name)
        if any(chain in self.down for chain in chains):
            await asyncio.sleep(timeout_s)
            raise DeadlineExceeded(f"{name}: a chain is down")
        if any(chain in self.full for chain in chains):
            raise fs_error(errno.ENOSPC, "the disk is full", "/disk/index")

    async def raise_epoch(
        self, inode: InodeId, epoch: Epoch, chains: Sequence[ChainId], *, timeout_s: float
    ) -> Epoch:
        await self._call("raise_epoch", chains, timeout_s)
        for chain in chains:
            self.epochs[chain, inode] = max(epoch, self.epochs.get((chain, inode), Epoch(0)))
        return max(self.epochs[chain, inode] for chain in chains)

    async def cut(
        self,
        inode: InodeId,
        layout: Layout,
        chains: Sequence[ChainId],
        length_bytes: int,
        epoch: Epoch,
        *,
        timeout_s: float,
    ) -> int:
        await self._call("cut", chains, timeout_s)
        return self.cut_now(inode, layout, chains, length_bytes, epoch)

    def cut_now(
        self,
        inode: InodeId,
        layout: Layout,
        chains: Sequence[ChainId],
        length_bytes: int,
        epoch: Epoch,
    ) -> int:
        """A cut as it arrives; a late one may be delivered by a test."""
        first_removed = chunk_count(length_bytes, layout.chunk_size_bytes)
        within = length_bytes % layout.chunk_size_bytes
        boundary = chains[(first_removed - 1) % len(chains)] if within else None
        return sum(
            self.cut_chain(chain, inode, epoch, first_removed, within if chain == boundary else -1)
            for chain in chains
        )

    def cut_chain(
        self, chain: ChainId, inode: InodeId, epoch: Epoch, first_removed: int, boundary_bytes: int
    ) -> int:
        """What one chain does of a cut."""
        in_force = self.epochs.get((chain, inode), Epoch(0))
        if in_force > epoch:
            raise StaleFile(f"epoch {in_force} is in force on chain {chain}, the cut is of {epoch}")
        if in_force < epoch:
            raise InvalidRequest(f"epoch {epoch} is not in force on chain {chain}")
        lengths = self.stored.pop((chain, inode), {})
        kept = {index: length for index, length in lengths.items() if index < first_removed}
        if boundary_bytes >= 0 and first_removed - 1 in kept:
            kept[first_removed - 1] = min(kept[first_removed - 1], boundary_bytes)
        if kept:
            self.stored[chain, inode] = kept
        return len(lengths) - len(kept)

    async def file_end(
        self, inode: InodeId, layout: Layout, chains: Sequence[ChainId], *, timeout_s: float
    ) -> FileEnd:
        await self._call("file_end", chains, timeout_s)
        return self.end_now(inode, layout)

    def end_now(self, inode: InodeId, layout: Layout) -> FileEnd:
        """Where the bytes end at this moment."""
        chunks = self.chunks.get(inode, {})
        size = layout.chunk_size_bytes
        end = max((index * size + length for index, length in chunks.items()), default=0)
        return FileEnd(end, len(chunks), sum(chunks.values()))

    async def end_session(
        self, session: ClientSessionId, chains: Sequence[ChainId], *, timeout_s: float
    ) -> None:
        await self._call("end_session", chains, timeout_s)
        self.ended.update(((chain, session), None) for chain in chains)

    async def space(self, *, timeout_s: float) -> tuple[TargetSpace, ...]:
        await self._call("space", (), timeout_s)
        return self.targets

    def write(
        self,
        inode: InodeId,
        layout: Layout,
        chains: tuple[ChainId, ...],
        offset_bytes: int,
        length_bytes: int,
        epoch: Epoch,
        session: ClientSessionId,
    ) -> None:
        """A client's write: StaleFile for an older epoch, SessionLost for an ended session."""
        for piece in extents(inode, layout, chains, offset_bytes, length_bytes):
            if epoch < self.epochs.get((piece.chain, inode), Epoch(0)):
                raise StaleFile(f"epoch {epoch} is over")
            if (piece.chain, session) in self.ended:
                raise SessionLost(f"session {session:x} is over")
            chunks = self.stored.setdefault((piece.chain, inode), {})
            index = piece.chunk.chunk_index
            chunks[index] = max(chunks.get(index, 0), piece.offset_bytes + piece.length_bytes)

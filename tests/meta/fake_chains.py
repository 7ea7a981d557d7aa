"""The storage nodes' side of a few files, in memory: a double of ``fs3.stubs.storage.StorageStub``.

It keeps what the real one keeps that matters to the metadata service: the epoch in force by (chain, file),
the chunks with their lengths, ended sessions; and it refuses as the real one does. ``write`` is what a
client's write comes to. Faults: chains in ``down`` do not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from fs3.errors import DeadlineExceeded, SessionLost, StaleFile
from fs3.ids import ChainId, ClientSessionId, Epoch, InodeId
from fs3.layout import Layout, extents
from fs3.stubs.storage import FileEnd
from fs3.wire.storage import TargetSpace


class FakeChains:
    """``fs3.meta.services.Chains``, and ``write`` and ``content_end`` for tests."""

    def __init__(self) -> None:
        self.epochs: dict[tuple[ChainId, InodeId], Epoch] = {}
        self.chunks: dict[InodeId, dict[int, int]] = {}
        """inode -> {chunk index: length}."""
        self.ended: dict[tuple[ChainId, ClientSessionId], None] = {}
        self.down: dict[ChainId, None] = {}
        self.calls: list[str] = []
        self.before: list[Callable[[str], Awaitable[None]]] = []
        """Run (once each) before the next call: something else gets in between."""
        self.targets: tuple[TargetSpace, ...] = ()

    async def _call(self, name: str, chains: Sequence[ChainId], timeout_s: float) -> None:
        self.calls.append(name)
        if self.before:
            await self.before.pop(0)(name)
        if any(chain in self.down for chain in chains):
            await asyncio.sleep(timeout_s)
            raise DeadlineExceeded(f"{name}: a chain is down")

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
        for chain in chains:
            if self.epochs.get((chain, inode), Epoch(0)) != epoch:
                raise StaleFile(f"epoch {epoch} is not in force on chain {chain}")
        kept: dict[int, int] = {}
        size = layout.chunk_size_bytes
        for index, length in self.chunks.get(inode, {}).items():
            if index * size < length_bytes:
                kept[index] = min(length, length_bytes - index * size)
        removed = len(self.chunks.get(inode, {})) - len(kept)
        self.chunks[inode] = kept
        if not kept:
            del self.chunks[inode]
        return removed

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
            chunks = self.chunks.setdefault(inode, {})
            index = piece.chunk.chunk_index
            chunks[index] = max(chunks.get(index, 0), piece.offset_bytes + piece.length_bytes)

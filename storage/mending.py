"""Gives a chunk right bytes again: from another member of the chain, or from the predecessor.

The index keeps the sums of every block under sums of its own, so bytes from anywhere are right exactly if
they match the stored ones (design 4.2, 4.7): a chunk is put together from the blocks that are right here
and those that are right elsewhere, so that two members with different bad blocks mend each other. For the
same reason a member that does not serve may help: it was left out, and has most blocks as they still are.
Only where two members differ *under their own sums* the predecessor's version is taken, sums and all (design
4.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from crc32c import crc32c

from fs3.errors import Busy, CorruptData, Fs3Error, Unavailable
from fs3.ids import ChainId, ChunkId, ClientSessionId, TargetId
from fs3.routing import ChainInfo, Member, TargetState
from fs3.rpc.buffers import aligned_payload
from fs3.rpc.service import Caller
from fs3.wire.chunk import SUM_BLOCK_BYTES, Update, VersionInfo
from fs3.wire.storage import READ, ReadItem, ReadRequest, ReadResponse

from .committer import Committer
from .engine.store import ChunkStore
from .lanes import READS, Lanes
from .membership import Membership

SERVING, SYNCING, WAITING = TargetState.SERVING, TargetState.SYNCING, TargetState.WAITING
FETCH_TIMEOUT_S = 5.0
NO_SESSION = ClientSessionId(0)


class _WholeChunk:
    """Sink of a read of one chunk."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.length_bytes = 0

    def buffers(self, response: Any) -> Sequence[memoryview]:
        assert isinstance(response, ReadResponse), response
        self.length_bytes = sum(result.length_bytes for result in response.results)
        if self.length_bytes > len(self.view):
            raise CorruptData(f"{self.length_bytes} bytes for a chunk of {len(self.view)}")
        return (self.view[: self.length_bytes],)

    def received(self, response: Any) -> None:
        """The bytes are compared with the stored sums by whoever asked."""


class Mender:
    """Repairs of one target, one at a time: a disk that goes bad must not starve the others."""

    def __init__(
        self,
        store: ChunkStore,
        membership: Membership,
        caller: Caller,
        committer: Committer,
        lanes: Lanes,
    ) -> None:
        self._store = store
        self._membership = membership
        self._caller = caller
        self._committer = committer
        self._lanes = lanes
        self._one = asyncio.Lock()

    async def repair(self, chain: ChainId, chunk: ChunkId) -> bool:
        """Fetch what is wrong of a chunk's versions from the other members. False: nothing is wrong, or none
        of them has the right bytes, or the chunk has changed meanwhile. DiskFailed, FsError ENOSPC."""
        async with self._one:
            info = self._membership.routing.chains.get(chain)
            if info is None:
                return False
            state = self._store.versions(chunk)
            is_mended = False
            # The pending one first: it gets a block of its own, and the committed one's is free to go.
            if state.pending is not None:
                is_mended = await self._mend(info, chunk, state.pending.version, is_pending=True)
            if state.committed is not None:
                is_mended |= await self._mend(info, chunk, state.committed, is_pending=False)
            return is_mended

    async def _mend(self, info: ChainInfo, chunk: ChunkId, version: VersionInfo, *, is_pending: bool) -> bool:
        if not version.length_bytes:
            return False
        view = aligned_payload(version.length_bytes)[: version.length_bytes]
        bad = await self._lanes.run(READS, partial(self._read_own, chunk, version, view))
        if not bad:
            return False
        for member in _who_may_help(info, self._store.target):
            fetched = await self._fetch(info, member, chunk, version, is_pending=is_pending)
            if fetched is not None:
                bad = _take_right(bad, view, fetched, version)
            if not bad:
                return bool(await self._store_bytes(chunk, version, view))
        return False

    def _read_own(self, chunk: ChunkId, version: VersionInfo, view: memoryview) -> list[int]:
        """Fill ``view`` with the bytes here; the numbers of the blocks that are wrong or cannot be read. None
        of them when the version is not here any more."""
        bad = []
        for number, wanted in enumerate(version.sums):
            block = _block(view, number)
            start_bytes = number * SUM_BLOCK_BYTES
            try:
                self._store.read_into(chunk, version.identity, start_bytes, block, wait=True)
            except CorruptData:
                bad.append(number)
            except Busy:
                return []
            else:
                if crc32c(block) != wanted:
                    bad.append(number)
        return bad

    async def _fetch(
        self, info: ChainInfo, member: Member, chunk: ChunkId, version: VersionInfo, *, is_pending: bool
    ) -> memoryview | None:
        """A member's bytes, right or not, and maybe fewer; None: it does not answer, or has none."""
        address = self._membership.routing.address_of(member.target)
        if address is None:
            return None
        sink = _WholeChunk(aligned_payload(version.length_bytes))
        item = ReadItem(info.chain, info.version, chunk, 0, version.length_bytes, 0)
        try:
            await self._caller.call(
                address,
                READ,
                ReadRequest(
                    session=NO_SESSION, items=(item,), relaxed=True, pending=is_pending, by_sums=True
                ),
                timeout_s=FETCH_TIMEOUT_S,
                sink=sink,
                bulk=version.length_bytes > 64 * 1024,
            )
        except Fs3Error:
            return None  # another member is asked
        return sink.view[: sink.length_bytes] if sink.length_bytes else None

    async def take(self, update: Update, view: memoryview) -> None:
        """Take the predecessor's bytes of a version that is committed here under the same identity.

        Unavailable: the version is not the committed one any more, or shares its block with a pending one.
        """
        version = VersionInfo(identity=update.identity, length_bytes=len(view), sums=update.sums)
        if not await self._store_bytes(update.chunk, version, view):
            raise Unavailable(f"{update.identity} cannot be replaced now")

    async def _store_bytes(self, chunk: ChunkId, version: VersionInfo, view: memoryview) -> object:
        return await self._committer.wait(partial(self._store.repair, chunk, version, view))


def _block(view: memoryview, number: int) -> memoryview:
    return view[number * SUM_BLOCK_BYTES : (number + 1) * SUM_BLOCK_BYTES]


def _who_may_help(info: ChainInfo, own: TargetId) -> list[Member]:
    """The members to be asked for right bytes: those that serve, then those that are to be copied to."""
    return [
        member
        for states in ((SERVING,), (SYNCING, WAITING))
        for member in info.members
        if member.state in states and member.target != own
    ]


def _take_right(bad: list[int], view: memoryview, fetched: memoryview, version: VersionInfo) -> list[int]:
    """Copy those of the bad blocks that are right in ``fetched``; the numbers of those that still are not."""
    left = []
    for number in bad:
        block, own = _block(fetched, number), _block(view, number)
        if len(block) == len(own) and crc32c(block) == version.sums[number]:
            own[:] = block
        else:
            left.append(number)
    return left

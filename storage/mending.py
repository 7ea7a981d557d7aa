"""Gives a chunk right bytes again: from another member of the chain, or from the predecessor.

The index keeps the sums of every block under sums of its own, so bytes from anywhere are right exactly if
they match the stored ones (design 4.2, 4.7). Only where two members differ *under their own sums* the
predecessor's version is taken, sums and all (design 4.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from fs3.errors import CorruptData, Fs3Error, Unavailable
from fs3.ids import ChainId, ChunkId, ClientSessionId
from fs3.routing import ChainInfo, Member
from fs3.rpc.buffers import aligned_payload
from fs3.rpc.service import Caller
from fs3.wire.chunk import Update, VersionInfo
from fs3.wire.storage import READ, ReadItem, ReadRequest, ReadResponse

from .committer import Committer
from .engine.store import ChunkStore
from .membership import Membership
from .sums import sums_of

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
        self, store: ChunkStore, membership: Membership, caller: Caller, committer: Committer
    ) -> None:
        self._store = store
        self._membership = membership
        self._caller = caller
        self._committer = committer
        self._one = asyncio.Lock()

    async def repair(self, chain: ChainId, chunk: ChunkId) -> bool:
        """Fetch the committed version from another serving member. False: nobody has these very bytes, or
        the version has changed meanwhile (then there is nothing to repair)."""
        async with self._one:
            version = self._store.versions(chunk).committed
            info = self._membership.routing.chains.get(chain)
            if version is None or info is None or not version.length_bytes:
                return False
            for member in info.serving:
                if member.target == self._store.target:
                    continue
                view = await self._fetch(info, member, chunk, version)
                if view is not None:
                    return bool(await self._store_bytes(chunk, version, view))
            return False

    async def _fetch(
        self, info: ChainInfo, member: Member, chunk: ChunkId, version: VersionInfo
    ) -> memoryview | None:
        address = self._membership.routing.address_of(member.target)
        if address is None:
            return None
        sink = _WholeChunk(aligned_payload(version.length_bytes))
        item = ReadItem(info.chain, info.version, chunk, 0, version.length_bytes, 0)
        try:
            await self._caller.call(
                address,
                READ,
                ReadRequest(session=NO_SESSION, items=(item,), relaxed=True),
                timeout_s=FETCH_TIMEOUT_S,
                sink=sink,
                bulk=version.length_bytes > 64 * 1024,
            )
        except Fs3Error:
            return None  # another member is asked
        view = sink.view[: sink.length_bytes]
        return view if sums_of(view, 0) == version.sums else None

    async def take(self, update: Update, view: memoryview) -> None:
        """Take the predecessor's bytes of a version that is committed here under the same identity.

        Unavailable: the version is not the committed one any more, or shares its block with a pending one.
        """
        version = VersionInfo(identity=update.identity, length_bytes=len(view), sums=update.sums)
        if not await self._store_bytes(update.chunk, version, view):
            raise Unavailable(f"{update.identity} cannot be replaced now")

    async def _store_bytes(self, chunk: ChunkId, version: VersionInfo, view: memoryview) -> object:
        return await self._committer.wait(partial(self._store.repair, chunk, version, view))

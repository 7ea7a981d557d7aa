"""Reads what the members of chains have, in chunk order, page by page; and looks at single chunks again."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from fs3.errors import Fs3Error, MaybeApplied, Retryable, StaleRouting
from fs3.ids import ChainId, ChainVersion, ChunkId, InodeId, TargetId
from fs3.routing import ChainInfo, Member, TargetState
from fs3.stubs.storage import ChainCaller, RoutingSource
from fs3.wire.storage import LIST_CHUNKS, ListChunksRequest, ListChunksResponse, ListedChunk

from .chunks import Row, differences
from .findings import Finding

PAGE = 512
CALL_S = 30.0
LOOKS_MAX = 20
LOOK_PAUSE_S = 0.7
"""Between two looks at a chunk whose replicas differ: longer than a version is pending in a chain that gets
on (it is sent again every 300 ms)."""
_LAST_INDEX = (1 << 32) - 1


class Lister(Protocol):
    """One page of one member."""

    def members(self, chain: ChainId) -> list[TargetId]:
        """The serving ones."""
        ...

    def absent(self, chain: ChainId) -> list[str]:
        """The others, and why they are not compared."""
        ...

    async def list(
        self, chain: ChainId, target: TargetId, behind: ChunkId | None, limit: int
    ) -> tuple[ChainVersion, ListChunksResponse]:
        """A page and the chain version that it is of. Fs3Error."""
        ...


class RpcLister:
    """``Lister`` over RPC. ``verify``: have the bytes read; ``mend``: have bad ones repaired."""

    def __init__(self, caller: ChainCaller, routing: RoutingSource, *, verify: bool, mend: bool) -> None:
        self._caller = caller
        self._routing = routing
        self._verify = verify
        self._mend = mend

    def members(self, chain: ChainId) -> list[TargetId]:
        """See ``Lister``."""
        info = self._routing.routing.chains.get(chain)
        return [member.target for member in info.serving] if info is not None else []

    def absent(self, chain: ChainId) -> list[str]:
        """See ``Lister``."""
        info = self._routing.routing.chains.get(chain)
        members = info.members if info is not None else ()
        return [
            f"target {member.target:x} is {member.state.name}"
            for member in members
            if member.state is not TargetState.SERVING
        ]

    async def list(
        self, chain: ChainId, target: TargetId, behind: ChunkId | None, limit: int
    ) -> tuple[ChainVersion, ListChunksResponse]:
        """See ``Lister``."""
        asked = [ChainVersion(0)]

        def build(info: ChainInfo) -> ListChunksRequest:
            asked[0] = info.version
            return ListChunksRequest(
                chain=chain,
                chain_version=info.version,
                target=target,
                behind=behind,
                limit=limit,
                verify=self._verify,
                mend=self._mend,
            )

        def pick(info: ChainInfo) -> Member | None:
            return next((member for member in info.serving if member.target == target), None)

        answer = await self._caller.call_member(
            chain, LIST_CHUNKS, build, pick, timeout_s=CALL_S, idempotent=True
        )
        return asked[0], answer


class _Side:
    """What one member has, from some chunk on."""

    def __init__(self, target: TargetId, behind: ChunkId | None) -> None:
        self.target = target
        self.behind = behind
        self.records: deque[ListedChunk] = deque()
        self.is_done = False


class ChainReader:
    """The chunks of one chain in order, each with what every member says of it."""

    def __init__(self, lister: Lister, chain: ChainId, behind: ChunkId | None) -> None:
        self.chain = chain
        self._lister = lister
        self._sides = [_Side(target, behind) for target in lister.members(chain)]
        self.problems = [f"chain {chain}: {why}: not compared" for why in lister.absent(chain)]
        """Why the chain was not read, or not at all of its members."""
        self.is_incomplete = not self._sides
        """No member was read to the end: what is not in the answer may be there."""
        if not self._sides:
            self.problems.append(f"chain {chain}: no member serves")

    async def through(self, last: InodeId) -> list[tuple[ChunkId, Row]]:
        """The chunks of all inodes up to ``last`` that were not handed out before."""
        found: list[tuple[ChunkId, Row]] = []
        while True:
            for side in list(self._sides):
                await self._fill(side)
            heads = [side.records[0].chunk for side in self._sides if side.records]
            if not heads or min(heads).inode > last:
                return found
            chunk = min(heads)
            row: dict[TargetId, ListedChunk | None] = {}
            for side in self._sides:
                has = bool(side.records) and side.records[0].chunk == chunk
                row[side.target] = side.records.popleft() if has else None
            found.append((chunk, row))

    async def _fill(self, side: _Side) -> None:
        while not side.records and not side.is_done:
            try:
                _, page = await self._lister.list(self.chain, side.target, side.behind, PAGE)
            except (Retryable, StaleRouting, MaybeApplied) as error:
                self.problems.append(f"chain {self.chain}, target {side.target:x} was not read: {error}")
                self._sides.remove(side)
                self.is_incomplete = not self._sides
                return
            side.records.extend(page.records)
            side.is_done = not page.more
            if page.records:
                side.behind = page.records[-1].chunk


async def look(lister: Lister, chain: ChainId, chunk: ChunkId) -> Row:
    """One chunk at all serving members, all at one chain version. Fs3Error."""
    before = _before(chunk)
    for _ in range(LOOKS_MAX):
        row: dict[TargetId, ListedChunk | None] = {}
        versions: dict[ChainVersion, None] = {}
        for target in lister.members(chain):
            version, page = await lister.list(chain, target, before, 1)
            versions[version] = None
            row[target] = next((r for r in page.records if r.chunk == chunk), None)
        if row and len(versions) == 1:
            return row
        await asyncio.sleep(LOOK_PAUSE_S)
    raise StaleRouting(f"chain {chain} changes its version all the time")


async def settled(
    lister: Lister, chain: ChainId, chunk: ChunkId, seen: Row
) -> tuple[Row, list[Finding], str]:
    """Look until a difference has gone or has stayed; the last look, what is wrong, and why it is not known.

    A chunk that changes at every look is being written: its chain works.
    """
    try:
        for _ in range(LOOKS_MAX):
            await asyncio.sleep(LOOK_PAUSE_S)
            now = await look(lister, chain, chunk)
            found = differences(chain, chunk, now)
            if not found or now == seen:
                return now, found, ""
            seen = now
    except Fs3Error as error:
        return seen, [], f"chain {chain}, chunk {chunk} was not compared: {error}"
    return seen, [], ""


def _before(chunk: ChunkId) -> ChunkId | None:
    """The greatest chunk id below this one."""
    if chunk.chunk_index:
        return ChunkId(chunk.inode, chunk.chunk_index - 1)
    return ChunkId(InodeId(chunk.inode - 1), _LAST_INDEX) if chunk.inode else None

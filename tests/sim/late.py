"""A client whose session ends while it writes: what it sends again afterwards is refused, and never appears.

It is cut off from chunk servers in the middle of a write (or works on, unaware); then its session is closed
behind its back, as a lost one is. When the cluster has settled it the links are mended and the client goes
on trying.
"""

from __future__ import annotations

import asyncio
import errno

from fs3.client.file import AsyncFile
from fs3.ids import ClientSessionId
from fs3.kv.schema import key_u64
from fs3.rng import Rng
from fs3.wire.meta import CLOSE_SESSION, CloseSessionRequest

from .blocks import BLOCKS, place, stamped
from .cluster import World
from .history import ChunkOp
from .seen import NO_ERROR, ONCE, SERVING, Seen
from .workload import Burst

SETTLED_WITHIN_S = 120.0
REFUSED = (errno.ESTALE, errno.EIO)


class LateClient:
    """One such client."""

    def __init__(self, world: World, number: int, seen: Seen, rng: Rng) -> None:
        self._world = world
        self._loop = world.loop
        self._seen = seen
        self._rng = rng
        self._host = f"late{number}"

    async def run(self, burst: Burst) -> None:
        """Write to the chunk of a burst, be cut off, be given up, go on."""
        world = self._world
        await asyncio.sleep(burst.at_s)
        fs, rpc, scope = await world.make_client(self._host)
        path, chunk = burst.target
        file = await fs.open(path, "r+b")
        assert file.open_file is None, "a file that is open for writing"
        session = (await fs.core.sessions.current()).id
        hosts = [host for host in world.storage_hosts if self._rng.random() < 0.7]
        first, value = self._rng.randrange(BLOCKS), self._seen.value()
        op = self._seen.histories[path, chunk].begin("write", self._host, self._loop.time(), first, (value,))
        writing = scope.start("late write", self._write(file, op, chunk, value))
        await asyncio.sleep(self._rng.choice((0.0, self._rng.uniform(0, 0.01))))
        for host in hosts:
            world.net.cut(self._host, host, both_ways=self._rng.random() < 0.5)
        await asyncio.sleep(self._rng.uniform(0, 2))
        request = CloseSessionRequest(session=session)
        await world.clients[0].core.meta.call(CLOSE_SESSION, request, timeout_s=60.0)
        await self._until_settled(session)
        if not op.has_ended:
            op.lapses_s = self._loop.time()
        for host in world.storage_hosts:
            world.net.mend(self._host, host)
        await writing
        await self._again(file, chunk)
        self._seen.did("late write")
        await fs.close()
        await scope.aclose()
        await rpc.aclose()

    async def _write(self, file: AsyncFile, op: ChunkOp, chunk: int, value: int) -> None:
        try:
            await file.pwrite(stamped(value, chunk, op.first), place(chunk, op.first))
            await file.flush()
        except OSError as error:
            if error.errno not in REFUSED:
                self._seen.wrong(NO_ERROR, f"{self._host}: {error!r}")
            return
        if op.start_s >= op.lapses_s:
            self._seen.wrong(ONCE, f"{self._host}: {op} was acknowledged though its session was over")
        op.ended(min(op.lapses_s, self._loop.time()))  # the answer may be late, what it tells of may not

    async def _again(self, file: AsyncFile, chunk: int) -> None:
        """Another write under the old session has no effect at all."""
        value, now_s = self._seen.value(), self._loop.time()
        op = ChunkOp("write", self._host, now_s, 0, (value,), lapses_s=now_s)  # not in the chunk's history
        await self._write(file, op, chunk, value)
        try:
            await file.close()
        except OSError as error:
            if error.errno not in REFUSED:
                self._seen.wrong(NO_ERROR, f"{self._host}, close: {error!r}")

    async def _until_settled(self, session: ClientSessionId) -> None:
        store, key = self._world.store, key_u64(b"SESS", session)
        deadline_s = self._loop.time() + SETTLED_WITHIN_S
        while store.value_at(key, store.version) is not None:
            if self._loop.time() > deadline_s:
                self._seen.wrong(
                    SERVING, f"session {session:x} is not settled {SETTLED_WITHIN_S} s after its end"
                )
                return
            await asyncio.sleep(0.05)

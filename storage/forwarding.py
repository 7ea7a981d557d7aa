"""Sends a pending version, or a decree, to the next member of the chain.

The first attempt sends the bytes as they arrived; later ones read them from the store, a few at a time,
since the request that brought them may be gone.
"""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from fs3.errors import CorruptData, Unavailable
from fs3.ids import ChainId, TargetId
from fs3.rpc.buffers import aligned_payload
from fs3.rpc.service import BlockingCaller, Caller
from fs3.wire.chunk import Update, UpdateKind
from fs3.wire.storage import (
    END_SESSION,
    RAISE_EPOCH,
    UPDATE,
    EndSessionRequest,
    RaiseEpochRequest,
    UpdateRequest,
    UpdateResponse,
)

from .effects import EpochRaise, Forward, PassOn, SessionEnd
from .engine.store import ChunkStore
from .held import HeldBytes
from .lanes import READS, Lanes
from .membership import Membership
from .sums import check_payload

FORWARD_TIMEOUT_S = 5.0
"""Longest wait for the answer to one attempt: the successor waits for its own meanwhile."""
BULK_BYTES = 64 * 1024
"""Longer payloads go over the bulk plane (design 5.2)."""
RESENDS_MAX = 4
"""Payloads of repeated forwards in memory at a time, for one target."""


class PendingCorrupt(CorruptData):
    """The own bytes of a pending version fail their sums: no other member can be asked for them."""


class Forwarder:
    """The sending half of one target."""

    def __init__(
        self,
        store: ChunkStore,
        membership: Membership,
        caller: Caller,
        lanes: Lanes,
        blocking: BlockingCaller | None,
    ) -> None:
        self._store = store
        self._membership = membership
        self._caller = caller
        self._lanes = lanes
        self._blocking = blocking
        self._resends = asyncio.Semaphore(RESENDS_MAX)

    async def send(self, chain: ChainId, effect: Forward) -> UpdateResponse:
        """One attempt, in a task of its own. Raises what the successor answered; Unavailable, MaybeApplied;
        PendingCorrupt."""
        held, task = effect.payload, asyncio.current_task()
        if not isinstance(held, HeldBytes):
            return await self._send(chain, effect)
        assert task is not None
        held.sending(partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
        try:
            return await self._send(chain, effect)
        except asyncio.CancelledError:
            if held.is_answered:
                raise Unavailable("the request was answered before its successor") from None
            raise

    async def _send(self, chain: ChainId, effect: Forward) -> UpdateResponse:
        if effect.payload is not None and not effect.whole:
            return await self._call(chain, effect, effect.update, effect.payload.view)
        if not effect.whole and effect.update.kind in (UpdateKind.TRUNCATE, UpdateKind.REMOVE):
            return await self._call(chain, effect, effect.update, memoryview(b""))
        async with self._resends:
            update, view = await self._lanes.run(READS, partial(self._read_back, effect))
            return await self._call(chain, effect, update, view)

    def _read_back(self, effect: Forward) -> tuple[Update, memoryview]:
        """The update and its bytes, read from the pending version; the whole chunk if need be."""
        update = effect.update
        offset_bytes, length_bytes, kind = update.offset_bytes, update.length_bytes, update.kind
        if effect.whole:
            offset_bytes, length_bytes, kind = 0, effect.stored.length_bytes, UpdateKind.REPLACE
        view = aligned_payload(length_bytes)
        try:
            found = self._store.read_into(update.chunk, update.identity, offset_bytes, view, wait=True)
            if found is not None and found.length_bytes == length_bytes:
                check_payload(view, offset_bytes, found.sums)
        except CorruptData as error:
            raise PendingCorrupt(
                f"pending version {update.identity} of chunk {update.chunk}: {error}"
            ) from error
        if found is None or found.length_bytes != length_bytes:
            raise Unavailable(f"pending version {update.identity} is not there any more")
        changed = msgspec.structs.replace(
            update, kind=kind, offset_bytes=offset_bytes, length_bytes=length_bytes, sums=found.sums
        )
        return changed, view

    def send_here(self, chain: ChainId, effect: Forward) -> UpdateResponse:
        """The first attempt, in the thread that has the bytes. Raises as ``send``."""
        held = effect.payload
        assert self._blocking is not None and isinstance(held, HeldBytes), effect
        return self._blocking.call_blocking(
            self._address(effect.member.target),
            UPDATE,
            self._request(chain, effect, effect.update),
            timeout_s=FORWARD_TIMEOUT_S,
            payload=(held.view,),
            begun=held.sending,
        )

    async def _call(
        self, chain: ChainId, effect: Forward, update: Update, view: memoryview
    ) -> UpdateResponse:
        return await self._caller.call(
            self._address(effect.member.target),
            UPDATE,
            self._request(chain, effect, update),
            timeout_s=FORWARD_TIMEOUT_S,
            payload=(view,) if len(view) else (),
            bulk=len(view) > BULK_BYTES,
        )

    def _request(self, chain: ChainId, effect: Forward, update: Update) -> UpdateRequest:
        return UpdateRequest(
            chain=chain,
            chain_version=effect.version,
            sender=self._store.target,
            update=update,
            dedup_result_length_bytes=effect.stored.length_bytes,
            behind_count=self._behind_count(chain, effect.member.target),
        )

    def _behind_count(self, chain: ChainId, target: TargetId) -> int:
        """Members that an update travels to behind ``target``; of a chain that has changed: whatever, it is
        refused."""
        info = self._membership.routing.chains.get(chain)
        order = [member.target for member in info.writable] if info is not None else []
        return len(order) - 1 - order.index(target) if target in order else 0

    def _address(self, target: TargetId) -> str:
        address = self._membership.routing.address_of(target)
        if address is None:
            raise Unavailable(f"the node of target {target:x} is not in routing")
        return address

    async def pass_on(self, chain: ChainId, effect: PassOn) -> None:
        """One attempt to have the successor, and all behind it, keep a decree. Raises as ``send``."""
        address = self._address(effect.member.target)
        match effect.decree:
            case EpochRaise(inode, epoch):
                raising = RaiseEpochRequest(
                    chain=chain, chain_version=effect.version, inode=inode, epoch=epoch
                )
                await self._caller.call(address, RAISE_EPOCH, raising, timeout_s=FORWARD_TIMEOUT_S)
            case SessionEnd(session):
                ending = EndSessionRequest(chain=chain, chain_version=effect.version, session=session)
                await self._caller.call(address, END_SESSION, ending, timeout_s=FORWARD_TIMEOUT_S)

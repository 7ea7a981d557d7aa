"""Slots: each mutation is applied once, however often it is sent.

A client numbers the requests of a slot; one is in flight at a time. The answer is stored under
(session, slot) in the operation's own transaction and overwritten by the slot's next request (design 3.3;
NFS 4.1 sessions, RIFL). Every mutation reads its slot with conflict: of two tries of one request that run
at the same time, the second to commit fails and then finds the answer of the first.

Only what was applied is stored: an error changed nothing, so that a retry may run anew.
"""

from __future__ import annotations

import msgspec

from fs3.errors import InvalidRequest
from fs3.ids import ClientSessionId
from fs3.kv.schema import key_u64
from fs3.kv.transaction import ReadTransaction, Transaction
from fs3.wire.meta import Mutation

from .inode import decoded, encode
from .session import SLOT_COUNT

SEQUENCE_MAX = (1 << 63) - 1


class SlotRecord(msgspec.Struct, frozen=True, array_like=True):
    """The last request of a slot."""

    sequence: int
    method: int
    answer: bytes


_SLOT = msgspec.msgpack.Decoder(SlotRecord)


def check_mutation(mutation: Mutation) -> None:
    """InvalidRequest when its numbers cannot be."""
    if not 0 <= mutation.slot < SLOT_COUNT:
        raise InvalidRequest(f"slot {mutation.slot} is not in 0 … {SLOT_COUNT - 1}")
    if not 0 < mutation.sequence <= SEQUENCE_MAX:
        raise InvalidRequest(f"sequence {mutation.sequence} is not in 1 … 2**63 - 1")


def slot_key(session: ClientSessionId, slot: int) -> bytes:
    """Key of a slot's record."""
    return key_u64(b"SLOT", session, slot)


async def stored_answer(txn: ReadTransaction, mutation: Mutation, method: int) -> bytes | None:
    """The answer of this very request, if it was applied; None: it is new.

    InvalidRequest when the slot has moved on, or the number was used for another method.
    """
    data = await txn.get(slot_key(mutation.session, mutation.slot))
    if data is None:
        return None
    record = decoded(_SLOT, data, "slot")
    if record.sequence < mutation.sequence:
        return None
    if record.sequence > mutation.sequence:
        raise InvalidRequest(
            f"slot {mutation.slot} is at sequence {record.sequence}; {mutation.sequence} is over"
        )
    if record.method != method:
        raise InvalidRequest(f"sequence {mutation.sequence} was used for method {record.method}")
    return record.answer


def store_answer(txn: Transaction, mutation: Mutation, method: int, answer: bytes) -> None:
    """Remember what this request came to."""
    record = SlotRecord(mutation.sequence, method, answer)
    txn.set(slot_key(mutation.session, mutation.slot), encode(record))

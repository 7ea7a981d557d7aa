"""What a transaction asks for, in the form that travels to whoever commits it. PURE.

A ``CommitRequest`` holds the mutations in the order of the calls, what was read, and what conflicts beyond
the mutations. Stamped mutations carry their key or value as FoundationDB has it: the bytes with ten bytes
of space for the stamp, then the offset of that space as u32 little endian.

Source: design 1 (KV store); the semantics of the atomic operations are FoundationDB's at API version 710.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from ..errors import InvalidRequest
from .ranges import USER_KEYS_END, KeyRange
from .transaction import AtomicOp, KvLimits

STAMP_BYTES = 10
"""A versionstamp: u64 commit version, u16 number within its batch, both big endian."""
ITEM_OVERHEAD_BYTES = 16
"""What each mutation and each conflict counts for besides its bytes, so that tiny ones are bounded too."""
_STAMP = struct.Struct(">QH")
_OFFSET = struct.Struct("<I")


class Kind(enum.IntEnum):
    """Kinds of mutations; the numbers travel and are never given again."""

    SET = 0
    CLEAR = 1
    CLEAR_RANGE = 2
    """``key`` is the begin, ``value`` the end."""
    ADD = 3
    MAX = 4
    MIN = 5
    BYTE_MAX = 6
    COMPARE_AND_CLEAR = 7
    STAMPED_KEY = 8
    STAMPED_VALUE = 9


KIND_OF_ATOMIC = {
    AtomicOp.ADD: Kind.ADD,
    AtomicOp.MAX: Kind.MAX,
    AtomicOp.MIN: Kind.MIN,
    AtomicOp.BYTE_MAX: Kind.BYTE_MAX,
    AtomicOp.COMPARE_AND_CLEAR: Kind.COMPARE_AND_CLEAR,
}

Mutation = tuple[int, bytes, bytes]
"""(kind, key, value)."""


class CommitRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One transaction as its committer sees it."""

    read_version: int
    """0 if nothing was read with conflict."""
    read_keys: list[bytes]
    read_ranges: list[KeyRange]
    mutations: list[Mutation]
    write_keys: list[bytes]
    """Keys that conflict as if written, besides those of the mutations."""
    write_ranges: list[KeyRange]

    def has_read_conflicts(self) -> bool:
        """Whether the read version matters at all."""
        return bool(self.read_keys or self.read_ranges)

    def size_bytes(self) -> int:
        """What ``KvLimits.transaction_bytes`` bounds: keys and values written plus both ends of conflicts."""
        size = 0
        for _, key, value in self.mutations:
            size += len(key) + len(value) + ITEM_OVERHEAD_BYTES
        for keys in (self.read_keys, self.write_keys):
            for key in keys:
                size += 2 * len(key) + ITEM_OVERHEAD_BYTES
        for ranges in (self.read_ranges, self.write_ranges):
            for begin, end in ranges:
                size += len(begin) + len(end) + ITEM_OVERHEAD_BYTES
        return size


def versionstamp(version: int, order: int) -> bytes:
    """The 10-byte stamp of commit number ``order`` of the batch that made ``version``."""
    return _STAMP.pack(version, order)


def stamp_version(stamp: bytes) -> int:
    """The commit version inside a stamp."""
    version, _ = _STAMP.unpack(stamp)
    return int(version)


def stamped_template(prefix: bytes, suffix: bytes) -> bytes:
    """``prefix + stamp + suffix`` with the stamp still open, as it travels."""
    return prefix + bytes(STAMP_BYTES) + suffix + _OFFSET.pack(len(prefix))


def fill_stamp(template: bytes, stamp: bytes) -> bytes:
    """The bytes that a template stands for; InvalidRequest if its offset points outside of it."""
    body_bytes = len(template) - _OFFSET.size
    if body_bytes < STAMP_BYTES:
        raise InvalidRequest(f"stamped template of {len(template)} bytes is too short")
    (offset,) = _OFFSET.unpack_from(template, body_bytes)
    if offset + STAMP_BYTES > body_bytes:
        raise InvalidRequest(f"stamp at {offset} of {body_bytes} bytes")
    return template[:offset] + stamp + template[offset + STAMP_BYTES : body_bytes]


def apply_atomic(kind: int, existing: bytes | None, operand: bytes) -> bytes | None:
    """The value after an atomic operation; None means that the key is absent afterwards."""
    if kind == Kind.COMPARE_AND_CLEAR:
        return None if existing is None or existing == operand else existing
    if existing is None:
        return operand
    if kind == Kind.BYTE_MAX:
        return max(existing, operand)
    assert kind in (Kind.ADD, Kind.MAX, Kind.MIN), kind
    width = len(operand)
    mine = int.from_bytes(operand, "little")
    theirs = int.from_bytes(existing[:width], "little")
    if kind == Kind.ADD:
        result = (mine + theirs) & ((1 << 8 * width) - 1)
    else:
        result = max(mine, theirs) if kind == Kind.MAX else min(mine, theirs)
    return result.to_bytes(width, "little")


def check_key(limits: KvLimits, key: bytes) -> None:
    """InvalidRequest unless ``key`` may be read and written."""
    if not 0 < len(key) <= limits.key_bytes:
        raise InvalidRequest(f"key of {len(key)} bytes; 1 … {limits.key_bytes} are allowed")
    if key >= USER_KEYS_END:
        raise InvalidRequest(f"key {key[:16]!r} lies in the store's own range")


def check_value(limits: KvLimits, value: bytes) -> None:
    """InvalidRequest if ``value`` is too long."""
    if len(value) > limits.value_bytes:
        raise InvalidRequest(f"value of {len(value)} bytes; at most {limits.value_bytes} are allowed")


def check_range(limits: KvLimits, begin: bytes, end: bytes) -> None:
    """InvalidRequest unless ``[begin, end)`` is a range of user keys."""
    if begin > end:
        raise InvalidRequest(f"range ends before it begins: {begin[:16]!r} … {end[:16]!r}")
    if end > USER_KEYS_END:
        raise InvalidRequest(f"range end {end[:16]!r} lies in the store's own range")
    if max(len(begin), len(end)) > limits.key_bytes + 1:
        raise InvalidRequest(f"range bound longer than {limits.key_bytes + 1} bytes")


def check_size(limits: KvLimits, request: CommitRequest) -> int:
    """Size of the transaction, bytes; InvalidRequest if it is too large."""
    size = request.size_bytes()
    if size > limits.transaction_bytes:
        raise InvalidRequest(f"transaction of {size} bytes; at most {limits.transaction_bytes} are allowed")
    return size


def check_request(limits: KvLimits, request: CommitRequest) -> None:
    """What a committer must check in a request before it believes it; InvalidRequest says what.

    On the path of every commit: what is right passes inline, what looks wrong goes to the function that
    says why.
    """
    key_max, value_max = limits.key_bytes, limits.value_bytes
    size = 0
    for keys in (request.read_keys, request.write_keys):
        for key in keys:
            length = len(key)
            if not 0 < length <= key_max or key >= USER_KEYS_END:
                check_key(limits, key)
            size += 2 * length + ITEM_OVERHEAD_BYTES
    for ranges in (request.read_ranges, request.write_ranges):
        for begin, end in ranges:
            check_range(limits, begin, end)
            size += len(begin) + len(end) + ITEM_OVERHEAD_BYTES
    for kind, key, value in request.mutations:
        length = len(key)
        if (
            not 0 <= kind <= Kind.CLEAR
            or not 0 < length <= key_max
            or key >= USER_KEYS_END
            or len(value) > value_max
        ):
            _check_mutation(limits, kind, key, value)
        size += length + len(value) + ITEM_OVERHEAD_BYTES
    if size > limits.transaction_bytes:
        check_size(limits, request)


def _check_mutation(limits: KvLimits, kind: int, key: bytes, value: bytes) -> None:
    if not Kind.SET <= kind <= Kind.STAMPED_VALUE:
        raise InvalidRequest(f"unknown kind of mutation {kind}")
    if kind == Kind.CLEAR_RANGE:
        check_range(limits, key, value)
    elif kind == Kind.STAMPED_KEY:
        check_key(limits, fill_stamp(key, bytes(STAMP_BYTES)))
        check_value(limits, value)
    else:
        check_key(limits, key)
        stamped = kind == Kind.STAMPED_VALUE
        check_value(limits, fill_stamp(value, bytes(STAMP_BYTES)) if stamped else value)

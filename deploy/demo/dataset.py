"""The demo's training set: shards of samples and many small files, all bytes given by a seed. Pure.

The readers know only names, lengths and SHA-256 hashes (a *manifest*), made while the bytes were generated
and before fs3 saw any of them: what they verify is independent of fs3's own checksums.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from fs3.rng import Rng, derived_rng

BLOCK_BYTES = 1 << 20
"""A shard is hashed, and read, by blocks of this much."""
SMALL_BYTES_MIN, SMALL_BYTES_MAX = 200, 12 * 1024
SHARD_MIB = (16, 32, 64, 128, 24, 48, 96, 16)
"""Shard lengths, in turn; the last shard is cut to what is left."""
SMALL_PER_DIRECTORY = 500
POOL_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One file of the set."""

    path: str
    """Below the demo's directory."""
    length_bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """What the readers are given."""

    shards: dict[str, list[str]]
    """Path -> hex SHA-256 of each block."""
    shard_lengths: dict[str, int]
    small: dict[str, str]
    """Path -> hex SHA-256 of the whole file."""
    total_bytes: int


def shard_specs(total_bytes: int) -> list[FileSpec]:
    """Shards that make up at least ``total_bytes``; every one between 16 and 128 MiB."""
    specs: list[FileSpec] = []
    left = total_bytes
    while left > 0:
        length = SHARD_MIB[len(specs) % len(SHARD_MIB)] << 20
        length = max(16 << 20, min(length, left))
        specs.append(FileSpec(f"shards/{len(specs):04d}.bin", length))
        left -= length
    return specs


def small_specs(count: int, rng: Rng) -> list[FileSpec]:
    """``count`` small files in directories of ``SMALL_PER_DIRECTORY``."""
    return [
        FileSpec(
            f"samples/{i // SMALL_PER_DIRECTORY:03d}/{i:05d}.txt",
            rng.randint(SMALL_BYTES_MIN, SMALL_BYTES_MAX),
        )
        for i in range(count)
    ]


@functools.cache
def _pool(seed: int) -> bytes:
    return derived_rng(seed, "pool").randbytes(POOL_BYTES)


def blocks(spec: FileSpec, seed: int) -> Iterator[bytes]:
    """The bytes of a file, in blocks: each a window of one random pool, at a place of its own.

    Drawing fresh bytes for each block would cost more time than writing them, and hide what is measured.
    """
    rng, pool = derived_rng(seed, spec.path), _pool(seed)
    for start in range(0, spec.length_bytes, BLOCK_BYTES):
        first = rng.randrange(POOL_BYTES - BLOCK_BYTES)
        yield pool[first : first + min(BLOCK_BYTES, spec.length_bytes - start)]


def sum_hex(data: bytes | memoryview) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()

"""Writes the demo's training set, with a progress bar, and keeps the hashes the readers verify against."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import fs3.client
from fs3.rng import derived_rng

from .dataset import FileSpec, Manifest, blocks, shard_specs, small_specs, sum_hex

SEED = 3
SHARD_WRITERS = 3
"""Shards written at a time."""
SMALL_WRITERS = 16
DIRECTORY_MODE = 0o755

Advance = Callable[[int], None]
"""Told how many bytes (or files) are done since the last call."""


@dataclass(slots=True)
class Written:
    """What was written, and how fast."""

    manifest: Manifest
    shard_mib_s: float
    small_files_per_s: float
    longest_write_s: float
    """The longest wait of a shard's writer for one block, or for its close."""


def write_set(
    filesystem: fs3.client.FileSystem,
    root: str,
    shard_bytes: int,
    small_count: int,
    on_shard_bytes: Advance,
    on_small_file: Advance,
) -> Written:
    """Write everything below ``root``; OSError if something cannot be written."""
    shards = shard_specs(shard_bytes)
    small = small_specs(small_count, derived_rng(SEED, "sizes"))
    for directory in sorted({f"{root}/{spec.path.rpartition('/')[0]}" for spec in shards + small}):
        filesystem.makedirs(directory, exist_ok=True)

    waits_s: list[float] = []

    def shard(spec: FileSpec) -> tuple[str, list[str]]:
        sums: list[str] = []
        file = filesystem.open(f"{root}/{spec.path}", "wb")
        for block in blocks(spec, SEED):
            sums.append(sum_hex(block))
            waits_s.append(_time_of(partial(file.write, block)))
            on_shard_bytes(len(block))
        waits_s.append(_time_of(file.close))
        return spec.path, sums

    began = time.monotonic()
    with ThreadPoolExecutor(SHARD_WRITERS) as pool:
        shard_sums = dict(pool.map(shard, shards))
    shard_s = time.monotonic() - began

    contents = {spec.path: b"".join(blocks(spec, SEED)) for spec in small}

    def one_small(path: str) -> None:
        with filesystem.open(f"{root}/{path}", "wb") as file:
            file.write(contents[path])
        on_small_file(1)

    began = time.monotonic()
    with ThreadPoolExecutor(SMALL_WRITERS) as pool:
        list(pool.map(one_small, contents))
    small_s = time.monotonic() - began

    lengths = {spec.path: spec.length_bytes for spec in shards}
    manifest = Manifest(
        shards=shard_sums,
        shard_lengths=lengths,
        small={path: sum_hex(data) for path, data in contents.items()},
        total_bytes=sum(lengths.values()) + sum(map(len, contents.values())),
    )
    return Written(
        manifest, sum(lengths.values()) / (1 << 20) / shard_s, len(small) / small_s, max(waits_s, default=0.0)
    )


def _time_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began

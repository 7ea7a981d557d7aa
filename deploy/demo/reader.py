"""One reader process of the demo: its share of the set, in shuffled batches, every byte hashed.

    python -m fs3.deploy.demo.reader URL MANIFEST ROOT RANK COUNT

Progress goes to standard output, a JSON line each: ``{"read": bytes}``; the last line is a
``ReaderResult``. A line ``killed`` on standard input says that a node was killed now.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import msgspec

import fs3.client
from fs3.rng import derived_rng

from .dataset import BLOCK_BYTES, Manifest, sum_hex
from .report import ReaderResult

BATCH_BLOCKS = 8
SHUFFLE_SEED = 20
ERRORS_MAX = 20


class Reader:
    """Reads and verifies; keeps what it saw in ``result``."""

    def __init__(self, filesystem: fs3.client.FileSystem, manifest: Manifest, root: str) -> None:
        self._filesystem = filesystem
        self._manifest = manifest
        self._root = root
        self.result = ReaderResult()
        self._killed = threading.Event()

    def watch_input(self) -> None:
        """Note when the parent says that a node was killed (a thread: the main one reads)."""
        for line in sys.stdin:
            if line.strip() == "killed":
                self._killed.set()

    def shards(self, rank: int, count: int) -> None:
        """Every block of all shards whose turn is ours, in batches over the whole set."""
        todo = [(path, i) for path, sums in sorted(self._manifest.shards.items()) for i in range(len(sums))]
        derived_rng(SHUFFLE_SEED, "blocks").shuffle(todo)
        mine = todo[rank::count]
        files = {path: self._filesystem.open(f"{self._root}/{path}", "rb") for path, _ in mine}
        buffer = memoryview(bytearray(BATCH_BLOCKS * BLOCK_BYTES))
        try:
            for start in range(0, len(mine), BATCH_BLOCKS):
                self._batch(mine[start : start + BATCH_BLOCKS], files, buffer)
        finally:
            for file in files.values():
                file.close()

    def _batch(
        self, batch: list[tuple[str, int]], files: dict[str, fs3.client.File], buffer: memoryview
    ) -> None:
        ranges, outs, position = [], [], 0
        for path, index in batch:
            offset = index * BLOCK_BYTES
            length = min(BLOCK_BYTES, self._manifest.shard_lengths[path] - offset)
            ranges.append((files[path], offset, length))
            outs.append(buffer[position : position + length])
            position += length
        after_kill = self._killed.is_set()
        began = time.monotonic()
        try:
            self._filesystem.read_batch(ranges, out=outs)
        except OSError as error:
            self._error(f"batch with {batch[0][0]}: {error}")
            return
        self._note(time.monotonic() - began, after_kill or self._killed.is_set())
        for (path, index), out in zip(batch, outs, strict=True):
            if sum_hex(out) != self._manifest.shards[path][index]:
                self._error(f"{path}, block {index}: wrong bytes")
            else:
                self.result.bytes_verified += len(out)
        emit({"read": position})

    def small_files(self, rank: int, count: int) -> None:
        """Our share of the small files, whole, in shuffled order."""
        paths = sorted(self._manifest.small)
        derived_rng(SHUFFLE_SEED, "small").shuffle(paths)
        began, done = time.monotonic(), 0
        for path in paths[rank::count]:
            try:
                with self._filesystem.open(f"{self._root}/{path}", "rb") as file:
                    data = file.read()
            except OSError as error:
                self._error(f"{path}: {error}")
                continue
            if sum_hex(data) != self._manifest.small[path]:
                self._error(f"{path}: wrong bytes")
            else:
                self.result.bytes_verified += len(data)
                self.result.files_verified += 1
                done += len(data)
        emit({"read": done})
        self.result.small_elapsed_s = time.monotonic() - began

    def _note(self, took_s: float, after_kill: bool) -> None:
        self.result.latencies_s.append(took_s)
        self.result.longest_s = max(self.result.longest_s, took_s)
        if after_kill:
            self.result.longest_after_kill_s = max(self.result.longest_after_kill_s, took_s)

    def _error(self, text: str) -> None:
        if len(self.result.errors) < ERRORS_MAX:
            self.result.errors.append(text)


def emit(value: object) -> None:
    """One line of JSON to the parent."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Entry point of the process."""
    url, manifest_path, root, rank_text, count_text = sys.argv[1:]
    manifest = msgspec.json.decode(Path(manifest_path).read_bytes(), type=Manifest)
    rank, count = int(rank_text), int(count_text)
    with fs3.client.connect(url) as filesystem:
        reader = Reader(filesystem, manifest, root)
        threading.Thread(target=reader.watch_input, daemon=True).start()
        began = time.monotonic()
        reader.shards(rank, count)
        reader.result.elapsed_s = time.monotonic() - began
        reader.small_files(rank, count)
    emit(reader.result)


if __name__ == "__main__":
    main()

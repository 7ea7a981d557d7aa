"""Frozen limit program: durable commits of one process that talks to LMDB and to nobody else.

Each transaction reads 5 random keys and writes 2 of them (108-byte values, 100,000 keys of 12 bytes); 64
transactions share one LMDB write transaction with default sync. No conflicts are checked and nothing is
sent anywhere. The key-value layer is measured against this (design 5.6); do not improve it.

    python -m tests.bench.limits.raw_group_commit --directory DIR --seconds 3
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time

import lmdb

KEYS = 100_000
BATCH = 64


def key(number: int) -> bytes:
    return b"TEST%08d" % number


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        env = lmdb.open(folder, map_size=1 << 34)
        with env.begin(write=True) as txn:
            for number in range(KEYS):
                txn.put(key(number), bytes(108))
        commits = 0
        began = time.perf_counter()
        while time.perf_counter() - began < options.seconds:
            with env.begin(write=True) as txn:
                for _ in range(BATCH):
                    keys = [key(rng.randrange(KEYS)) for _ in range(5)]
                    for one in keys:
                        txn.get(one)
                    for one in keys[:2]:
                        txn.put(one, rng.randbytes(108))
            commits += BATCH
        print(f"{commits / (time.perf_counter() - began):.1f}")
        env.close()


if __name__ == "__main__":
    main()

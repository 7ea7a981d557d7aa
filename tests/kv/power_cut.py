"""The power goes at any moment: what LMDB wrote is replayed to each prefix, opened again, and checked.

An owner works under load while its writes and syncs are recorded. A cut after event n leaves what was
synced by then, and of the later writes any subset, some of them torn at a sector. From each such image the
store has to open, hold exactly the state of the version that it names, that version not older than any
commit that was acknowledged before the cut, and take new commits.

``python -m tests.kv.power_cut DIR syncs|none`` runs it in a process of its own: a broken store can end that.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fs3.clock import SystemClock
from fs3.kv.lmdb_client import LmdbKv, LmdbSettings
from fs3.kv.mutations import CommitRequest, Kind, Mutation, apply_atomic, stamp_version
from fs3.kv.resolver import Resolver
from fs3.kv.store import FORMAT_KEY, LMDB_LIMITS, VERSION_KEY, StoreWriter, scan
from fs3.kv.transaction import AtomicOp
from fs3.rng import Rng, derived_rng
from fs3.tasks import TaskScope

from .call_recorder import DURABLE_WRITE, SYNC, WRITE, Event, events
from .owner_process import OwnerProcess

SECTOR_BYTES = 512
WORKERS = 4
KEYS = 40
State = dict[bytes, bytes]


@dataclass
class Recording:
    """What happened: the calls of LMDB, and the commits with the place in the log where each was known."""

    initial: bytes
    """The file before the first commit."""
    calls: list[Event]
    commits: dict[bytes, list[Mutation]] = field(default_factory=dict)
    """By stamp, so in the order of the store."""
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    """(bytes of the log when the answer arrived, commit version)."""

    def states(self) -> dict[int, State]:
        """The content at each version."""
        state: State = {}
        found = {1: dict(state)}
        for stamp in sorted(self.commits):
            for mutation in self.commits[stamp]:
                apply(state, mutation)
            found[stamp_version(stamp)] = dict(state)
        return found


def apply(state: State, mutation: Mutation) -> None:
    kind, key, value = mutation
    if kind == Kind.SET:
        state[key] = value
    elif kind == Kind.CLEAR_RANGE:
        for other in [other for other in state if key <= other < value]:
            del state[other]
    else:
        result = apply_atomic(kind, state.get(key), value)
        assert result is not None
        state[key] = result


def drawn(rng: Rng) -> list[Mutation]:
    """The mutations of one transaction: small and large values, deletions, sums."""
    mutations: list[Mutation] = []
    for _ in range(rng.randrange(1, 4)):
        key = b"TEST%02d" % rng.randrange(KEYS)
        draw = rng.random()
        if draw < 0.65:
            mutations.append((Kind.SET, key, rng.randbytes(rng.choice([20, 200, 9000]))))
        elif draw < 0.85:
            mutations.append((Kind.ADD, b"TESTsum", b"\x01\0\0\0"))
        else:
            mutations.append((Kind.CLEAR_RANGE, key, key + b"~"))
    return mutations


async def record(directory: Path, commits: int, seed: int) -> Recording:
    """Run the load under a recorded owner."""
    log = directory / "calls"
    store = directory / "store"
    owner = OwnerProcess(store, log=log)
    owner.start()
    kv = LmdbKv(LmdbSettings(store), clock=SystemClock())
    recording = Recording((store / "data.mdb").read_bytes(), [])
    started_at = log.stat().st_size
    inode = (store / "data.mdb").stat().st_ino

    async def worker(name: str) -> None:
        rng = derived_rng(seed, name)
        for _ in range(commits // WORKERS):
            txn = kv.transaction()
            mutations = drawn(rng)
            for kind, key, value in mutations:
                if kind == Kind.SET:
                    txn.set(key, value)
                elif kind == Kind.ADD:
                    txn.atomic(AtomicOp.ADD, key, value)
                else:
                    txn.clear_range(key, value)
            stamp = await txn.commit()
            assert stamp is not None
            recording.acknowledged.append((log.stat().st_size, stamp_version(stamp)))
            recording.commits[stamp] = mutations

    try:
        async with TaskScope("load", lambda _, error: None) as scope:
            names = [f"worker{number}" for number in range(WORKERS)]
            for task in [scope.start(name, worker(name)) for name in names]:
                await task
    finally:
        await kv.aclose()
        owner.stop()
    calls = list(events(log))
    assert {call.inode for call in calls if call.log_end > started_at} == {inode}, "nothing else is written"
    recording.calls = [call for call in calls if call.log_end > started_at]
    return recording


def images(recording: Recording, rng: Rng, stride: int, subsets: int) -> Iterator[tuple[str, int, bytes]]:
    """Files as a power cut could leave them: (what was done, bytes of the log by then, the file)."""
    durable = bytearray(recording.initial.rstrip(b"\0"))
    pending: list[Event] = []
    for number, call in enumerate(recording.calls):
        if number % stride == 0:
            at = recording.calls[number - 1].log_end if number else 0
            yield f"cut at {number}, nothing more", at, bytes(durable)
            yield f"cut at {number}, all", at, patched(durable, pending)
            for subset in range(subsets if pending else 0):
                kept = [torn(event, rng) for event in pending if rng.random() < 0.5]
                rng.shuffle(kept)
                yield f"cut at {number}, subset {subset}", at, patched(durable, kept)
        if call.kind == WRITE:
            pending.append(call)
        elif call.kind == DURABLE_WRITE:
            patch(durable, call)
        else:
            assert call.kind == SYNC, call.kind
            for event in pending:
                patch(durable, event)
            pending = []
    yield "cut at the end", recording.calls[-1].log_end, bytes(durable)


def torn(event: Event, rng: Rng) -> Event:
    """One write in four loses what lies before or behind a random sector's edge."""
    sectors = len(event.data) // SECTOR_BYTES
    if sectors < 2 or rng.random() < 0.75:
        return event
    cut = rng.randrange(1, sectors) * SECTOR_BYTES
    if rng.random() < 0.5:
        return event._replace(data=event.data[:cut])
    return event._replace(offset=event.offset + cut, data=event.data[cut:])


def patch(image: bytearray, event: Event) -> None:
    end = event.offset + len(event.data)
    if len(image) < end:
        image.extend(bytes(end - len(image)))
    image[event.offset : end] = event.data


def patched(image: bytearray, some: list[Event]) -> bytes:
    copy = bytearray(image)
    for event in some:
        patch(copy, event)
    return bytes(copy)


def check(directory: Path, image: bytes, states: dict[int, State], least_version: int) -> None:
    """Open the image as an owner does; its content is that of its version; it takes a commit."""
    data = directory / "data.mdb"
    data.write_bytes(image)
    (directory / "lock.mdb").unlink(missing_ok=True)
    store = StoreWriter(directory, lambda: bytes(16))
    try:
        version = store.version()
        assert version >= least_version, f"version {version}; {least_version} was acknowledged"
        with store.begin() as txn:
            content = dict(scan(txn, b"", b"\xff\xff", reverse=False))
            del content[FORMAT_KEY], content[VERSION_KEY]
            assert content == states[version], f"content is not that of version {version}"
            request = CommitRequest(0, [], [], [(Kind.SET, b"TESTafter", b"1")], [], [])
            resolver = Resolver(LMDB_LIMITS, version)
            store.write(txn, resolver.resolve([request], 0.0, store.reader(txn)))
        assert store.version() == version + 1
        assert store.get(b"TESTafter") == b"1"
    finally:
        store.close()


def cut_everywhere(recording: Recording, place: Path, *, stride: int, subsets: int, seed: int) -> int:
    """Check every image; returns how many there were."""
    states = recording.states()
    rng = derived_rng(seed, "cuts")
    count = 0
    for what, log_bytes, image in images(recording, rng, stride, subsets):
        least = max((version for at, version in recording.acknowledged if at <= log_bytes), default=1)
        try:
            check(place, image, states, least)
        except BaseException as error:
            error.add_note(what)
            raise
        count += 1
    return count


async def run(
    directory: Path, *, commits: int, stride: int, subsets: int, seed: int, syncs: bool = True
) -> None:
    """Record a load and cut the power at every ``stride``-th event. ``syncs`` off: forget what was synced."""
    (directory / "image").mkdir()
    recording = await record(directory, commits, seed)
    kinds = [call.kind for call in recording.calls]
    batches = kinds.count(DURABLE_WRITE)
    assert kinds.count(SYNC) == batches, "each batch syncs its pages, then writes its meta page durably"
    assert len(recording.commits) == commits and batches > 5, batches
    if not syncs:
        recording.calls = [call for call in recording.calls if call.kind != SYNC]
    count = cut_everywhere(recording, directory / "image", stride=stride, subsets=subsets, seed=seed)
    assert count > len(recording.calls) // stride


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), commits=40, stride=1, subsets=1, seed=9, syncs=sys.argv[2] == "syncs"))

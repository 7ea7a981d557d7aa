"""The check of a file system: every kind of damage is found, none where there is none, and repairs repair."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs3.errors import StaleFile
from fs3.ids import ROOT_INODE, ChainId, ChunkId, ClientSessionId, Epoch, InodeId
from fs3.kv.schema import key_u64
from fs3.kv.transaction import Transaction
from fs3.layout import Layout
from fs3.meta.dirent import Dirent, dirent_key
from fs3.meta.fsck import walk
from fs3.meta.fsck.findings import WHAT_NEXT, Kind
from fs3.meta.inode import encode, get_inode, put_inode
from fs3.meta.intents import CutIntent, put_cut
from fs3.wire import meta as wire
from fs3.wire.meta import InodeKind
from fs3.wire.storage import ListedChunk
from tests.meta.fsck_world import FakeLister, check, identity, mend, write
from tests.meta.world import CHAINS, Client, World

NOBODY = InodeId(0x4242)
GONE = ClientSessionId(0x9999)
SIZE = 64 * 1024


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "INODE_PAGE", 2)
    monkeypatch.setattr(walk, "ENTRY_PAGE", 3)
    monkeypatch.setattr(walk, "RECORD_PAGE", 2)
    monkeypatch.setattr(walk.Walk.window, "__defaults__", (2,))


@dataclass(slots=True)
class Tree:
    """``/d/e``, ``/d/f`` (inline), ``/c`` (three chunks); who made them."""

    world: World
    client: Client
    lister: FakeLister
    d: InodeId
    e: InodeId
    f: InodeId
    c: InodeId
    chains: tuple[ChainId, ...]
    """Of ``/c``."""

    async def change(self, inode: InodeId, **more: object) -> None:
        """Store other attributes."""

        async def body(txn: Transaction) -> None:
            record = await get_inode(txn, inode)
            assert record is not None
            put_inode(txn, msgspec.structs.replace(record, **more))

        await write(self.world, body)

    async def put(self, key: bytes, value: bytes | None) -> None:
        """Store or clear a record."""
        await write(self.world, lambda txn: txn.clear(key) if value is None else txn.set(key, value))

    def replica(self, record: ListedChunk | None) -> None:
        """Replica 1 of the first chunk of ``/c`` says this."""
        self.lister.changed[1, ChunkId(self.c, 0)] = record


async def make(world: World) -> Tree:
    client = await world.client()
    d = await client.mkdir(b"/d", layout=Layout(chunk_size_bytes=SIZE))
    e = await client.mkdir(b"/d/e")
    f = await client.create(b"/d/f", b"content")
    opened = await client.chunked(b"/d/c")
    client.write(opened, 0, 2 * SIZE + 100)
    await client.close(opened, 2 * SIZE + 100)
    await client.rename(b"/d/c", b"/c")
    assert opened.attributes.layout is not None
    return Tree(
        world, client, FakeLister(world.chains), d.inode, e.inode, f.attributes.inode,
        opened.attributes.inode, world.placement.chains_of(opened.attributes.layout),
    )  # fmt: skip


Plant = Callable[[Tree], Awaitable[None]]


def entry(directory: InodeId, name: bytes) -> bytes:
    return dirent_key(directory, name)


async def _cut_left(t: Tree) -> None:
    await t.change(t.c, cutting=True, epoch=Epoch(9))
    await write(t.world, lambda txn: put_cut(txn, t.c, CutIntent(Epoch(9), 2 * SIZE + 100)))


async def _nameless(t: Tree) -> None:
    await t.change(t.f, nlink=0)
    await t.put(entry(t.d, b"f"), None)


async def _orphan(t: Tree) -> None:
    t.world.chains.stored[CHAINS[0], NOBODY] = {0: 10, 7: 20}


async def _foreign(t: Tree) -> None:
    other = next(c for c in CHAINS if c != t.chains[0])
    t.world.chains.stored.setdefault((other, t.c), {})[0] = 10


async def _too_long(t: Tree) -> None:
    t.world.chains.stored[t.chains[0], t.c][0] = SIZE + 1


def said(**more: object) -> Plant:
    async def plant(t: Tree) -> None:
        number = t.world.chains.stored[t.chains[0], t.c][0]
        whole = ListedChunk(chunk=ChunkId(t.c, 0), identity=identity(number + 1), length_bytes=number)
        t.replica(msgspec.structs.replace(whole, **more))

    return plant


async def _no_replica(t: Tree) -> None:
    t.replica(None)


K = Kind
PLANTS: dict[str, tuple[Plant, set[Kind]]] = {
    "a name of nothing": (
        lambda t: t.put(entry(ROOT_INODE, b"ghost"), encode(Dirent(NOBODY, InodeKind.FILE))),
        {K.DANGLING_ENTRY}),
    "a directory's name of nothing": (
        lambda t: t.put(entry(t.e, b"ghost"), encode(Dirent(NOBODY, InodeKind.DIRECTORY))),
        {K.DANGLING_ENTRY, K.WRONG_SUBDIRECTORIES}),
    "a name that calls a file a symlink": (
        lambda t: t.put(entry(ROOT_INODE, b"c"), encode(Dirent(t.c, InodeKind.SYMLINK))), {K.WRONG_KIND}),
    "entries of no directory": (
        lambda t: t.put(entry(NOBODY, b"x"), encode(Dirent(t.c, InodeKind.FILE))),
        {K.LOST_DIRECTORY, K.WRONG_NLINK}),
    "a file that lost its name": (lambda t: t.put(entry(t.d, b"f"), None), {K.NO_ENTRY}),
    "a directory that lost its name": (
        lambda t: t.put(entry(t.d, b"e"), None), {K.NO_ENTRY, K.WRONG_SUBDIRECTORIES}),
    "a wrong nlink": (lambda t: t.change(t.c, nlink=5), {K.WRONG_NLINK}),
    "a wrong count of subdirectories": (
        lambda t: t.put(key_u64(b"DSUB", t.d), (7).to_bytes(8, "little")), {K.WRONG_SUBDIRECTORIES}),
    "a wrong parent": (
        lambda t: t.put(key_u64(b"DPAR", t.e), (1).to_bytes(8, "big")), {K.WRONG_PARENT}),
    "no parent": (lambda t: t.put(key_u64(b"DPAR", t.e), None), {K.WRONG_PARENT}),
    "a file without a name that nobody removes": (_nameless, {K.NO_REMOVAL}),
    "a truncate that nobody finishes": (lambda t: t.change(t.c, cutting=True), {K.NO_INTENT}),
    "a settlement that nobody finishes": (lambda t: t.change(t.c, settling=True), {K.NO_INTENT}),
    "content of nothing": (lambda t: t.put(key_u64(b"INLN", NOBODY), b"x"), {K.STRAY_RECORD}),
    "a directory's count of a file": (
        lambda t: t.put(key_u64(b"DSUB", t.f), bytes(8)), {K.STRAY_RECORD}),
    "a truncate of which the file knows nothing": (
        lambda t: t.put(key_u64(b"CUTQ", t.c), encode(CutIntent(Epoch(3), 0))), {K.STRAY_RECORD}),
    "inline content of another length": (
        lambda t: t.put(key_u64(b"INLN", t.f), b"more than it says"), {K.WRONG_INLINE}),
    "an inode that cannot be read": (
        lambda t: t.put(key_u64(b"INOD", t.f), b"\x01garbage"), {K.UNDECODABLE}),
    "an entry that cannot be read": (
        lambda t: t.put(entry(ROOT_INODE, b"c"), b""), {K.UNDECODABLE, K.NO_ENTRY}),
    "a slot of no session": (lambda t: t.put(key_u64(b"SLOT", GONE, 3), b"x"), {K.NO_SESSION}),
    "a renewal of no session": (lambda t: t.put(key_u64(b"SREN", GONE), bytes(8)), {K.NO_SESSION}),
    "a file open by no session": (
        lambda t: t.put(key_u64(b"OPEN", t.c, GONE), encode(wire.Path())), {K.NO_SESSION}),
    "a file held by no session": (lambda t: t.put(key_u64(b"SOPN", GONE, t.c), b""), {K.NO_SESSION}),
    "nothing, opened": (
        lambda t: t.put(key_u64(b"OPEN", NOBODY, t.client.session), b"x"), {K.STRAY_RECORD}),
    "opened, and the session does not know": (
        lambda t: t.put(key_u64(b"OPEN", t.c, t.client.session), b"x"), {K.STRAY_RECORD}),
    "an old truncate": (_cut_left, {K.OLD_INTENT}),
    "chunks of nothing": (_orphan, {K.ORPHAN_CHUNK}),
    "a chunk on the wrong chain": (_foreign, {K.FOREIGN_CHUNK}),
    "a chunk beyond the end": (lambda t: t.change(t.c, length_bytes=SIZE), {K.BEYOND_END}),
    "a chunk that is too long": (_too_long, {K.CHUNK_TOO_LONG}),
    "a file longer than its chunks": (lambda t: t.change(t.c, length_bytes=4 * SIZE), {K.HOLE_AT_END}),
    "a replica without the chunk": (_no_replica, {K.REPLICA_MISSING}),
    "a replica with another version": (said(identity=identity(3)), {K.REPLICAS_DIFFER}),
    "a replica that removed it": (said(identity=identity(3), removed=True), {K.REPLICAS_DIFFER}),
    "a replica with other bytes": (said(content_sum=7), {K.CONTENT_DIFFERS}),
    "a replica with bad bytes": (said(bad_block_count=2), {K.BAD_BYTES}),
    "a version that stays pending": (said(pending=identity(999_999)), {K.LONG_PENDING}),
}  # fmt: skip


def test_every_kind_is_planted_and_has_advice() -> None:
    assert {kind for _, kinds in PLANTS.values() for kind in kinds} == set(Kind) == set(WHAT_NEXT)


@pytest.mark.parametrize("name", PLANTS)
def test_planted_damage_is_found_and_mended(name: str) -> None:
    plant, kinds = PLANTS[name]
    world = World()

    async def body() -> None:
        tree = await make(world)
        assert not (await check(world, tree.lister)).findings
        await plant(tree)
        state = await check(world, tree.lister)
        assert {finding.kind for finding in state.findings} == kinds, state.findings
        assert not state.problems
        await mend(world, state)
        left = {finding.kind for finding in (await check(world, tree.lister)).findings}
        can = {kind for kind in kinds if "--repair" in WHAT_NEXT[kind] and kind is not Kind.BAD_BYTES}
        assert not left & can, left

    world.run(body())


ACTS = ("mkdir", "inline", "chunked", "remove", "rename", "truncate")
STEP = st.tuples(st.sampled_from(ACTS), st.integers(0, 99))


async def act(client: Client, places: list[bytes], number: int, step: tuple[str, int]) -> None:
    """One step of a random history; steps that cannot be are left out."""
    what, draw = step
    place = places[draw % len(places)]
    name = place.rstrip(b"/") + b"/n%d" % number
    if what == "mkdir":
        await client.mkdir(name)
        places.append(name)
    elif what == "inline":
        await client.create(name, bytes(draw))
    elif what == "chunked":
        opened = await client.chunked(name)
        client.write(opened, draw * 1000, 100_000)
        await client.close(opened, draw * 1000 + 100_000)
    else:
        names = await client.names(place)
        if not names:
            return
        chosen = place.rstrip(b"/") + b"/" + names[draw % len(names)]
        if what == "remove":
            await client.remove(chosen, kind=wire.RemoveKind.ANY, recursive=True)
            places[:] = [p for p in places if p != chosen and not p.startswith(chosen + b"/")]
        elif what == "rename" and chosen not in places:
            await client.rename(chosen, places[(draw // 7) % len(places)].rstrip(b"/") + b"/r%d" % number)
        elif what == "truncate" and chosen not in places:
            with contextlib.suppress(StaleFile):  # an inline file would have to be moved out
                await client.truncate(chosen, draw * 3000)


@given(st.lists(STEP, max_size=25), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_a_healthy_tree_has_no_findings_while_others_work_on_it(
    history: list[tuple[str, int]], share: int
) -> None:
    world = World()

    async def body() -> None:
        client = await world.client()
        places = [b"/"]
        half = len(history) // share
        for number, step in enumerate(history[:half]):
            await act(client, places, number, step)

        async def go_on() -> None:
            for number, step in enumerate(history[half:], half):
                await act(client, places, number, step)
                await asyncio.sleep(0.003)

        lister = FakeLister(world.chains)
        async with asyncio.timeout(1000):
            state, _ = await asyncio.gather(check(world, lister, patience_s=0.0), go_on())
        harmless = (Kind.HOLE_AT_END, Kind.OLD_INTENT)  # no removal worker runs here
        assert not [f for f in state.findings if f.kind not in harmless], state.findings

    world.run(body())


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_a_check_that_was_killed_goes_on_and_finds_the_same(stop_after: int) -> None:
    world = World()

    async def body() -> None:
        tree = await make(world)
        await tree.change(tree.c, nlink=5)
        await tree.put(key_u64(b"INLN", NOBODY), b"x")
        await tree.put(entry(ROOT_INODE, b"ghost"), encode(Dirent(NOBODY, InodeKind.FILE)))
        await _orphan(tree)
        whole = await check(world, tree.lister)
        half = await check(world, tree.lister, stop_after=stop_after)
        rest = await check(world, tree.lister, state=half)
        assert {f.identity for f in rest.findings} == {f.identity for f in whole.findings}
        assert len(whole.findings) == len(rest.findings) == 5
        assert (rest.inodes, rest.chunks) == (whole.inodes, whole.chunks)

    world.run(body())

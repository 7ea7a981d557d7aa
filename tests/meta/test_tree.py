"""Names: create, mkdirs, list, stat, remove, rename, as POSIX says."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from fs3.errors import FsError, InvalidRequest
from fs3.ids import ROOT_INODE, InodeId
from fs3.layout import Layout
from fs3.meta.inode import get_inode, put_inode
from fs3.wire import meta as wire
from fs3.wire.meta import InodeKind, RemoveKind, RenameFlags, Storage
from tests.meta.world import ALICE, BOB, Client, World


async def tree(client: Client) -> None:
    """d/ e/ d/f d/sub/ d/sub/g top."""
    for directory in (b"d", b"e", b"d/sub"):
        await client.mkdir(directory)
    for name in (b"d/f", b"d/sub/g", b"top"):
        await client.create(name, b"content of " + name)


def test_a_file_with_content_is_there_in_one_request() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        made = await client.create(b"f", b"hello", permissions=0o640, mtime_ns=77)
        assert made.created and made.attributes.storage is Storage.INLINE
        opened = await client.open(b"f", wire.OpenMode.READ)
        assert opened.content == b"hello"
        found = await client.stat(b"f")
        assert (found.length_bytes, found.mode, found.mtime_ns, found.nlink) == (5, 0o640, 77, 1)
        assert found.inode == made.attributes.inode and found.inode > 1 << 32
        assert found.layout is not None and found.layout.table_version == 1

    world.run(work())


def test_a_directory_counts_its_subdirectories_and_its_changes() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await client.mkdir(b"d")
        before = await client.stat(b"d")
        world.clock.wall_jump_ns += 5_000
        await client.mkdir(b"d/a")
        await client.create(b"d/f")
        after = await client.stat(b"d")
        assert (before.nlink, after.nlink) == (2, 3)
        assert after.mtime_ns == after.ctime_ns == before.mtime_ns + 5_000
        await client.remove(b"d/a")
        assert (await client.stat(b"d")).nlink == 2
        await client.setattr(b"d", mtime_ns=123)
        assert (await client.stat(b"d")).mtime_ns == 123
        await client.create(b"d/g")
        assert (await client.stat(b"d")).mtime_ns == after.mtime_ns

    world.run(work())


def test_list_pages_in_byte_order_with_attributes() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await client.mkdir(b"d")
        names = sorted(b"n%d" % i for i in range(25))
        for name in names:
            await client.create(b"d/" + name, name)
        await client.mkdir(b"d/zz")
        seen: list[Any] = []
        after, more = b"", True
        while more:
            request = wire.ListRequest(path=wire.Path(b"d"), after=after, limit=10, with_attributes=True)
            page = await client.call(wire.LIST, request)
            seen.extend(page.entries)
            after, more = page.entries[-1].name, page.more
        assert [e.name for e in seen] == [*names, b"zz"]
        for entry in seen:
            assert entry.attributes == await client.stat(b"d/" + entry.name)
            assert entry.kind is entry.attributes.kind
        plain = await client.call(wire.LIST, wire.ListRequest(path=wire.Path(b"d")))
        assert all(e.attributes is None for e in plain.entries) and not plain.more

    world.run(work())


Attempt = Callable[[Client], Awaitable[Any]]
EXCHANGE, NOREPLACE = RenameFlags.EXCHANGE, RenameFlags.NOREPLACE
REFUSED: list[tuple[str, Attempt, int]] = [
    ("create exclusive over a file", lambda c: c.create(b"top", exclusive=True), errno.EEXIST),
    ("create over a directory", lambda c: c.create(b"d", b"x"), errno.EISDIR),
    ("create with a slash", lambda c: c.create(b"new/"), errno.EISDIR),
    ("create below nothing", lambda c: c.create(b"no/x"), errno.ENOENT),
    ("create through a file", lambda c: c.create(b"top/x"), errno.ENOTDIR),
    ("create with a long name", lambda c: c.create(b"x" * 256), errno.ENAMETOOLONG),
    ("create with a long path", lambda c: c.create(b"d/" * 2049 + b"x"), errno.ENAMETOOLONG),
    ("create with a zero byte", lambda c: c.create(b"a\0b"), errno.EINVAL),
    ("create with too much content", lambda c: c.create(b"big", bytes(16385)), errno.EFBIG),
    ("odd chunk size", lambda c: c.create(b"x", layout=Layout(chunk_size_bytes=100_000)), errno.EINVAL),
    ("huge chunk size", lambda c: c.create(b"x", layout=Layout(chunk_size_bytes=1 << 27)), errno.EINVAL),
    ("negative stripe", lambda c: c.create(b"x", layout=Layout(stripe=-1)), errno.EINVAL),
    ("no such table", lambda c: c.create(b"x", layout=Layout(table=9)), errno.EINVAL),  # type: ignore[arg-type]
    ("mkdir of what is there", lambda c: c.mkdir(b"d"), errno.EEXIST),
    ("mkdir over a file", lambda c: c.mkdir(b"top", exist_ok=True), errno.EEXIST),
    ("mkdir below nothing", lambda c: c.mkdir(b"no/x"), errno.ENOENT),
    ("mkdirs through a file", lambda c: c.mkdir(b"top/x/y", parents=True), errno.ENOTDIR),
    ("mkdir of the root", lambda c: c.mkdir(b"/"), errno.EEXIST),
    ("mkdir bad layout", lambda c: c.mkdir(b"x", layout=Layout(chunk_size_bytes=3)), errno.EINVAL),
    ("stat of nothing", lambda c: c.stat(b"no"), errno.ENOENT),
    ("stat through a file", lambda c: c.stat(b"top/x"), errno.ENOTDIR),
    ("stat of a file with slash", lambda c: c.stat(b"top/"), errno.ENOTDIR),
    ("stat of an inode that is gone", lambda c: c.stat_inode(InodeId(99)), errno.ESTALE),
    ("list of a file", lambda c: c.names(b"top"), errno.ENOTDIR),
    ("list after a long name", lambda c: c.names(b"d", after=b"x" * 256), errno.ENAMETOOLONG),
    ("open of a directory", lambda c: c.open(b"d", wire.OpenMode.READ), errno.EISDIR),
    ("open for nothing", lambda c: c.open(b"top", wire.OpenMode(0)), errno.EINVAL),
    (
        "truncate without write",
        lambda c: c.open(b"top", wire.OpenMode.READ, truncate=True),
        errno.EINVAL,
    ),
    ("remove nothing", lambda c: c.remove(b"no"), errno.ENOENT),
    ("rmdir of a file", lambda c: c.remove(b"top", kind=RemoveKind.DIRECTORY), errno.ENOTDIR),
    ("unlink of a directory", lambda c: c.remove(b"e", kind=RemoveKind.FILE), errno.EISDIR),
    ("rmdir with entries", lambda c: c.remove(b"d"), errno.ENOTEMPTY),
    ("remove the root", lambda c: c.remove(b"/", recursive=True), errno.EBUSY),
    ("remove dot", lambda c: c.remove(b"d/."), errno.EINVAL),
    ("remove dot dot", lambda c: c.remove(b"d/sub/.."), errno.EINVAL),
    ("rename of nothing", lambda c: c.rename(b"no", b"x"), errno.ENOENT),
    ("rename into nothing", lambda c: c.rename(b"top", b"no/x"), errno.ENOENT),
    ("rename over a full directory", lambda c: c.rename(b"e", b"d"), errno.ENOTEMPTY),
    ("rename file over directory", lambda c: c.rename(b"top", b"e"), errno.EISDIR),
    ("rename directory over file", lambda c: c.rename(b"e", b"top"), errno.ENOTDIR),
    ("rename into itself", lambda c: c.rename(b"d", b"d/x"), errno.EINVAL),
    ("rename far into itself", lambda c: c.rename(b"d", b"d/sub/x"), errno.EINVAL),
    ("rename of the root", lambda c: c.rename(b"/", b"x"), errno.EBUSY),
    ("rename no replace", lambda c: c.rename(b"top", b"d/f", NOREPLACE), errno.EEXIST),
    ("exchange with nothing", lambda c: c.rename(b"top", b"x", EXCHANGE), errno.ENOENT),
    ("exchange with what is above", lambda c: c.rename(b"d/sub", b"d", EXCHANGE), errno.EINVAL),
    ("exchange with what is below", lambda c: c.rename(b"d", b"d/sub", EXCHANGE), errno.EINVAL),
    ("rename a file to a slash", lambda c: c.rename(b"top", b"x/"), errno.ENOTDIR),
    ("layout of a file", lambda c: c.setattr(b"top", layout=Layout()), errno.ENOTDIR),
    ("truncate of a directory", lambda c: c.truncate(b"d", 0), errno.EISDIR),
    ("negative length", lambda c: c.truncate(b"top", -1), errno.EINVAL),
    ("length beyond all limits", lambda c: c.truncate(b"top", (1 << 60) + 1), errno.EFBIG),
]


@pytest.mark.parametrize(("attempt", "number"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_posix_refuses_is_refused_and_changes_nothing(attempt: Attempt, number: int) -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await tree(client)
        version = world.store.version
        with pytest.raises(FsError) as caught:
            await attempt(client)
        assert caught.value.errno == number, caught.value
        assert world.store.version == version

    world.run(work())


WRONG: list[tuple[str, Attempt]] = [
    ("limit 0", lambda c: c.names(b"d", limit=0)),
    ("limit too high", lambda c: c.names(b"d", limit=5000)),
    ("flags together", lambda c: c.rename(b"top", b"x", NOREPLACE | EXCHANGE)),
    ("flags unknown", lambda c: c.rename(b"top", b"x", 8)),
    ("mode bits", lambda c: c.setattr(b"top", mode=0o100644)),
    ("negative uid", lambda c: c.setattr(b"top", uid=-1)),
    ("uid no one", lambda c: c.setattr(b"top", gid=(1 << 32) - 1)),
    ("time before time", lambda c: c.setattr(b"top", mtime_ns=-2)),
]


@pytest.mark.parametrize("attempt", [row[1] for row in WRONG], ids=[row[0] for row in WRONG])
def test_malformed_requests_are_refused(attempt: Attempt) -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await tree(client)
        with pytest.raises(InvalidRequest):
            await attempt(client)

    world.run(work())


def test_paths_lead_where_posix_says() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await tree(client)
        g = (await client.stat(b"d/sub/g")).inode
        for path in (b"/d/sub/g", b"d//sub/./g", b"d/sub/../sub/g", b"../../d/sub/g", b"e/../d/sub/g"):
            assert (await client.stat(path)).inode == g, path
        assert (await client.stat(b"d/sub/..")).inode == (await client.stat(b"d/")).inode
        assert (await client.stat(b"")).inode == ROOT_INODE
        sub = (await client.stat(b"d/sub")).inode
        answer = await client.call(wire.STAT, wire.StatRequest(path=wire.Path(b"../f", sub)))
        assert answer.attributes.inode == (await client.stat(b"d/f")).inode

    world.run(work())


def test_mkdirs_makes_what_is_missing() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        made = await client.mkdir(b"a/b/c", parents=True, permissions=0o500)
        assert (await client.stat(b"a/b/c")).inode == made.inode
        assert (made.mode, (await client.stat(b"a/b")).mode) == (0o500, 0o700)
        again = await client.mkdir(b"a/b/c", parents=True, exist_ok=True)
        assert again.inode == made.inode
        assert (await client.stat(b"a")).nlink == 3

    world.run(work())


def test_layouts_are_inherited_and_chosen() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await client.mkdir(b"d", layout=Layout(chunk_size_bytes=1 << 16, stripe=2))
        await client.mkdir(b"d/sub")
        layouts = []
        for number in range(20):
            made = await client.create(b"d/sub/%d" % number)
            assert made.attributes.layout is not None
            layouts.append(made.attributes.layout)
        assert {(one.chunk_size_bytes, one.stripe) for one in layouts} == {(1 << 16, 2)}
        assert len({one.first for one in layouts}) > 3
        assert all(len(set(world.placement.chains_of(one))) == 2 for one in layouts)

    world.run(work())


def test_rename_moves_replaces_and_exchanges() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await tree(client)
        top, f = await client.stat(b"top"), await client.stat(b"d/f")
        await client.rename(b"top", b"d/f")
        assert (await client.stat(b"d/f")).inode == top.inode
        assert await client.names(b"") == [b"d", b"e"]
        with pytest.raises(FsError):
            await client.stat_inode(f.inode)  # inline and not open: gone at once
        await client.rename(b"d/sub", b"e")
        assert [(await client.stat(p)).nlink for p in (b"", b"d", b"e")] == [4, 2, 2]
        assert await client.names(b"e") == [b"g"]
        await client.rename(b"d/f", b"e", EXCHANGE)
        assert (await client.stat(b"e")).inode == top.inode
        assert await client.names(b"d/f") == [b"g"]
        assert [(await client.stat(p)).nlink for p in (b"", b"d")] == [3, 3]
        assert (await client.stat(b"d/f/..")).inode == (await client.stat(b"d")).inode
        await client.rename(b"d", b"d")
        assert await client.names(b"d") == [b"f"]

    world.run(work())


def test_inode_count_follows() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await tree(client)
        answer = await client.call(wire.STATFS, wire.StatFsRequest())
        assert answer.file_count == 7
        await client.remove(b"top")
        await client.remove(b"e", kind=RemoveKind.DIRECTORY)
        assert (await client.call(wire.STATFS, wire.StatFsRequest())).file_count == 5
        assert not await client.remove(b"top", missing_ok=True)

    world.run(work())


def test_symlinks_are_followed_inside_the_tree_only() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await tree(client)
        await plant_symlink(world, client, b"d/up", b"../top")
        await plant_symlink(world, client, b"d/abs", b"/d/sub")
        await plant_symlink(world, client, b"d/out", b"../../../../top")
        await plant_symlink(world, client, b"d/loop", b"loop")
        await plant_symlink(world, client, b"d/dangling", b"newfile")
        top = (await client.stat(b"top")).inode
        assert (await client.stat(b"d/up")).inode == top
        assert (await client.stat(b"d/out")).inode == top
        assert (await client.stat(b"d/up", follow=False)).kind is InodeKind.SYMLINK
        assert await client.names(b"d/abs") == [b"g"]
        assert (await client.stat(b"d/abs/g")).inode == (await client.stat(b"d/sub/g")).inode
        with pytest.raises(FsError) as caught:
            await client.stat(b"d/loop")
        assert caught.value.errno == errno.ELOOP
        made = await client.create(b"d/dangling", b"x")
        assert (await client.stat(b"d/newfile")).inode == made.attributes.inode
        assert await client.remove(b"d/up")
        assert (await client.stat(b"top")).inode == top

    world.run(work())


async def plant_symlink(world: World, client: Client, path: bytes, target: bytes) -> None:
    """There is no operation that makes symlinks yet; their records are read already."""
    made = await client.create(path)
    txn = world.kv.transaction()
    record = await get_inode(txn, made.attributes.inode)
    assert record is not None
    put_inode(
        txn, msgspec.structs.replace(record, kind=InodeKind.SYMLINK, symlink_target=target, layout=None)
    )
    await txn.commit()


def test_permissions() -> None:
    world = World()

    async def work() -> None:
        root, alice, bob = await world.client(), await world.client(ALICE), await world.client(BOB)
        await alice.mkdir(b"a", permissions=0o750)
        await alice.create(b"a/secret", b"x", permissions=0o600)
        await expect(bob.stat(b"a/secret"), errno.EACCES)
        await expect(bob.names(b"a"), errno.EACCES)
        await expect(bob.create(b"a/x"), errno.EACCES)
        await expect(bob.setattr(b"a", mode=0o777), errno.EPERM)
        await expect(alice.setattr(b"a", uid=1001), errno.EPERM)
        await expect(alice.setattr(b"a", gid=77), errno.EPERM)
        assert (await alice.setattr(b"a", gid=50)).gid == 50
        assert await bob.names(b"a") == [b"secret"]
        await expect(bob.open(b"a/secret", wire.OpenMode.READ), errno.EACCES)
        await expect(bob.remove(b"a/secret"), errno.EACCES)
        await root.setattr(b"a", mode=0o3777)
        await expect(bob.remove(b"a/secret"), errno.EPERM)
        await expect(bob.rename(b"a/secret", b"a/mine"), errno.EPERM)
        made = await bob.create(b"a/bobs", permissions=0o4755)
        assert made.attributes.gid == 50
        assert (await bob.mkdir(b"a/dir")).mode == 0o2755
        assert (await root.setattr(b"a/bobs", uid=1000)).uid == 1000
        assert (await root.stat(b"a/secret")).uid == 1000
        await expect(bob.setattr(b"a/bobs", mtime_ns=1), errno.EPERM)
        await expect(bob.setattr(b"a/bobs", mtime_ns=-1), errno.EACCES)
        assert (await alice.setattr(b"a/bobs", mtime_ns=1)).mtime_ns == 1

    world.run(work())


def test_only_admins_act_for_others() -> None:
    world = World()

    async def work() -> None:
        root, alice = await world.client(), await world.client(ALICE)
        as_bob = wire.ActAs(1001, 1001, (50,))
        assert (await root.create(b"for-bob", act_as=as_bob)).attributes.uid == 1001
        await expect(alice.create(b"x", act_as=as_bob), errno.EPERM)
        await expect(alice.create(b"x", act_as=wire.ActAs(1000, 0)), errno.EPERM)
        assert (await alice.create(b"x", act_as=wire.ActAs(1000, 50))).attributes.gid == 50

    world.run(work())


async def expect(call: Awaitable[Any], number: int) -> None:
    """The call fails with this errno."""
    with pytest.raises(FsError) as caught:
        await call
    assert caught.value.errno == number, caught.value

"""Files: open, close, length, truncate, inline content and spill; with what the storage nodes see of it."""

from __future__ import annotations

import errno

import pytest

from fs3.errors import DeadlineExceeded, FsError, MaybeApplied, StaleFile, Unavailable
from fs3.identity.capability import CAPABILITY_MS, Rights
from fs3.wire import meta as wire
from fs3.wire.meta import OpenMode, Storage
from tests.meta.test_tree import expect
from tests.meta.world import ALICE, CHAINS, Client, World

READ, WRITE = OpenMode.READ, OpenMode.WRITE
MIB = 1 << 20


def test_the_capability_names_file_epoch_rights_and_session() -> None:
    world = World()

    async def work() -> None:
        client = await world.client(ALICE)
        opened = await client.create(b"f", mode=READ | WRITE)
        capability = world.services.signer.verify(opened.capability, world.cluster_ms)
        assert capability.inode == opened.attributes.inode
        assert capability.rights == Rights.READ | Rights.WRITE
        assert (capability.session, capability.uid) == (client.session, 1000)
        assert opened.capability_expires_ms == world.cluster_ms + CAPABILITY_MS
        reading = await client.open(b"f", READ)
        assert world.services.signer.verify(reading.capability, world.cluster_ms).rights == Rights.READ

    world.run(work())


def test_the_length_is_exact_after_close_and_sync() -> None:
    world = World()

    async def work() -> None:
        client, other = await world.client(), await world.client()
        opened = await client.chunked(b"f")
        client.write(opened, 0, 3 * MIB + 5)
        assert (await other.stat(b"f")).length_bytes == 0
        await client.close(opened, 3 * MIB, keep_open=True)
        assert (await other.stat(b"f")).length_bytes == 3 * MIB
        closed = await client.close(opened, 3 * MIB + 5)
        assert closed.length_bytes == 3 * MIB + 5
        await expect(client.close(opened, 9 * MIB), errno.EBADF)
        assert (await other.stat(b"f")).length_bytes == 3 * MIB + 5

    world.run(work())


def test_two_writers_and_a_smaller_end_never_shorten() -> None:
    world = World()

    async def work() -> None:
        client, other = await world.client(), await world.client()
        first = await client.chunked(b"f")
        second = await other.open(b"f", WRITE)
        await other.close(second, 9 * MIB)
        assert (await client.close(first, 2 * MIB)).length_bytes == 9 * MIB

    world.run(work())


def test_a_writer_that_does_not_know_lets_the_chains_be_asked() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        opened = await client.chunked(b"f")
        client.write(opened, 5 * MIB, 100)
        assert (await client.close(opened, -1)).length_bytes == 5 * MIB + 100

    world.run(work())


def test_truncate_cuts_before_it_answers_and_fences_older_writers() -> None:
    world = World()

    async def work() -> None:
        client, other = await world.client(), await world.client()
        opened = await client.chunked(b"f")
        client.write(opened, 0, 4 * MIB)
        await client.close(opened, 4 * MIB, keep_open=True)
        after = await other.truncate(b"f", MIB + 7)
        assert after.length_bytes == MIB + 7
        assert after.epoch > opened.attributes.epoch
        assert after.layout is not None
        assert world.chains.end_now(after.inode, after.layout).length_bytes == MIB + 7
        with pytest.raises(StaleFile):
            client.write(opened, 0, 1)
        # what the old writer says of its old epoch does not make the file longer again
        assert (await client.close(opened, 4 * MIB)).length_bytes == MIB + 7
        again = await client.open(b"f", WRITE)
        assert again.attributes.epoch == after.epoch
        client.write(again, 0, 2 * MIB)
        assert (await client.close(again, 2 * MIB)).length_bytes == 2 * MIB

    world.run(work())


def test_a_cut_that_arrives_late_meets_no_new_bytes() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        opened = await client.chunked(b"f")
        client.write(opened, 0, 2 * MIB)
        await client.close(opened, 2 * MIB)
        during = world.chains
        epochs: list[int] = []

        async def note(_name: str) -> None:
            epochs.append(max(during.epochs.values(), default=0))

        during.before = [note, note, note]
        await client.truncate(b"f", 0)
        again = await client.open(b"f", WRITE)
        client.write(again, 0, MIB)
        layout = again.attributes.layout
        assert layout is not None
        with pytest.raises(StaleFile):  # the same cut once more, from a connection that was slow
            during.cut_now(
                again.attributes.inode,
                layout,
                world.placement.chains_of(layout),
                0,
                epochs[1],  # type: ignore[arg-type]
            )
        assert during.end_now(again.attributes.inode, layout).length_bytes == MIB

    world.run(work())


def test_growing_needs_no_cut_unless_there_is_more() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        opened = await client.chunked(b"f")
        grown = await client.truncate(b"f", 10 * MIB)
        assert (grown.length_bytes, grown.epoch) == (10 * MIB, opened.attributes.epoch)
        client.write(opened, 20 * MIB, 5)
        shorter = await client.truncate(b"f", 12 * MIB)
        assert shorter.epoch > opened.attributes.epoch
        assert shorter.layout is not None
        assert world.chains.end_now(shorter.inode, shorter.layout).length_bytes <= 12 * MIB

    world.run(work())


def test_open_with_truncate_and_create_over_a_file() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        opened = await client.chunked(b"f")
        client.write(opened, 0, MIB)
        await client.close(opened, MIB)
        again = await client.open(b"f", WRITE, truncate=True)
        assert again.attributes.length_bytes == 0
        client.write(again, 0, 5)  # the epoch of the answer is good for writing
        await client.close(again, 5)
        over = await client.create(b"f", mode=WRITE, truncate=True)
        assert not over.created and over.attributes.length_bytes == 0
        client.write(over, 0, 7)
        assert (await client.close(over, 7)).length_bytes == 7
        with pytest.raises(StaleFile):
            await client.create(b"f", b"small now")

    world.run(work())


def test_a_truncate_whose_service_dies_is_finished_by_whoever_comes() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        opened = await client.chunked(b"f")
        client.write(opened, 0, 2 * MIB)
        await client.close(opened, 2 * MIB)
        world.chains.down = dict.fromkeys(CHAINS)
        request = wire.TruncateRequest(path=wire.Path(b"f"), mutation=client.mutation(), length_bytes=5)
        with pytest.raises(MaybeApplied):
            await client.call(wire.TRUNCATE, request)
        waiting = await client.stat(b"f")
        assert waiting.length_bytes == 5
        with pytest.raises(Exception, match=r"f|chain") as caught:  # open for writing waits for the cut
            await client.open(b"f", WRITE)
        assert not isinstance(caught.value, FsError)
        world.chains.down.clear()
        answer = await client.call(wire.TRUNCATE, request)  # the same request again: applied once
        assert answer.attributes.length_bytes == 5
        end = world.chains.end_now(waiting.inode, waiting.layout)  # type: ignore[arg-type]
        assert end.length_bytes == 5
        again = await client.open(b"f", WRITE)
        client.write(again, 0, MIB)

    world.run(work())


def test_a_finisher_that_died_before_the_last_step_does_not_block_the_next() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        opened = await client.chunked(b"f")
        client.write(opened, 0, 2 * MIB)
        await client.close(opened, 2 * MIB)
        layout, inode = opened.attributes.layout, opened.attributes.inode
        assert layout is not None
        chains = world.placement.chains_of(layout)

        async def somebody_was_here(_name: str) -> None:
            await world.chains.raise_epoch(inode, 9, chains, timeout_s=1)  # type: ignore[arg-type]

        world.chains.before = [somebody_was_here]
        after = await client.truncate(b"f", 0)
        assert after.epoch > 9
        assert world.chains.end_now(inode, layout).length_bytes == 0

    world.run(work())


def test_inline_content_is_written_by_version() -> None:
    world = World()

    async def work() -> None:
        client, other = await world.client(), await world.client()
        opened = await client.create(b"f", b"one", mode=READ | WRITE)
        version = opened.attributes.content_version
        request = wire.WriteInlineRequest(
            inode=opened.attributes.inode,
            mutation=client.mutation(),
            content_version=version,
            content=b"two2",
        )
        answer = await client.call(wire.WRITE_INLINE, request)
        assert answer.attributes.content_version == version + 1
        assert (await client.call(wire.WRITE_INLINE, request)) == answer
        stale = wire.WriteInlineRequest(
            inode=opened.attributes.inode,
            mutation=client.mutation(),
            content_version=version,
            content=b"three",
        )
        with pytest.raises(StaleFile):
            await client.call(wire.WRITE_INLINE, stale)
        unopened = wire.WriteInlineRequest(
            inode=opened.attributes.inode,
            mutation=other.mutation(),
            content_version=version + 1,
            content=b"x",
        )
        await expect(other.call(wire.WRITE_INLINE, unopened), errno.EBADF)
        assert (await other.open(b"f", READ)).content == b"two2"
        assert (await client.truncate(b"f", 2)).length_bytes == 2
        assert (await other.open(b"f", READ)).content == b"tw"
        assert (await client.truncate(b"f", 4)).length_bytes == 4
        assert (await other.open(b"f", READ)).content == b"tw\0\0"
        with pytest.raises(StaleFile):
            await client.truncate(b"f", 100_000)
        with pytest.raises(StaleFile):
            await client.close(opened, 5)
        assert not world.chains.calls

    world.run(work())


def test_a_file_moves_out_in_two_steps_and_readers_see_it_whole() -> None:
    world = World()

    async def work() -> None:
        client, other = await world.client(), await world.client()
        opened = await client.create(b"f", b"content", mode=WRITE)
        second = await other.open(b"f", WRITE)
        started = await client.spill(opened, 1)
        assert started.content == b"content"
        assert started.attributes.storage is Storage.SPILLING
        assert (await other.open(b"f", READ)).content == b"content"
        with pytest.raises(DeadlineExceeded, match="another client"):
            await other.call(
                wire.SPILL,
                wire.SpillRequest(
                    inode=second.attributes.inode, mutation=other.mutation(), content_version=1
                ),
                timeout_s=0.5,
            )
        client.write(opened, 0, 7)
        finished = await client.spill(opened, 1, finish=True)
        assert finished.attributes.storage is Storage.CHUNKED
        assert (await other.open(b"f", READ)).content is None
        client.write(opened, 7, 100)
        assert (await client.close(opened, 107)).length_bytes == 107
        with pytest.raises(StaleFile):
            await other.spill(second, 1)

    world.run(work())


def test_removal_of_an_open_file_waits_and_keeps_it_writable() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        opened = await client.chunked(b"f")
        client.write(opened, 0, MIB)
        assert await client.remove(b"f")
        left = await client.stat_inode(opened.attributes.inode)
        assert left.nlink == 0
        client.write(opened, MIB, MIB)
        assert (await client.close(opened, 2 * MIB, keep_open=True)).length_bytes == 2 * MIB
        assert (await client.create(b"f", b"new")).created
        small = await client.create(b"g", b"x", mode=WRITE)
        assert await client.remove(b"g")
        assert (await client.stat_inode(small.attributes.inode)).nlink == 0

    world.run(work())


async def renewed(client: Client, capability: bytes) -> bytes:
    """What the capability becomes."""
    request = wire.RenewCapabilitiesRequest(session=client.session, capabilities=(capability,))
    answer = await client.call(wire.RENEW_CAPABILITIES, request)
    return bytes(answer.capabilities[0])


def test_capabilities_are_renewed_while_the_file_is_what_it_was() -> None:
    world = World()

    async def work() -> None:
        client, other = await world.client(), await world.client(ALICE)
        opened = await client.chunked(b"f")
        world.cluster_ms += CAPABILITY_MS // 2
        longer = await renewed(client, opened.capability)
        end_ms = world.services.signer.verify(longer, world.cluster_ms + CAPABILITY_MS - 1).expires_ms
        assert end_ms == world.cluster_ms + CAPABILITY_MS
        assert await renewed(client, b"rubbish") == b""
        request = wire.RenewCapabilitiesRequest(session=other.session, capabilities=(longer,))
        assert (await other.call(wire.RENEW_CAPABILITIES, request)).capabilities == (b"",)
        await client.truncate(b"f", 0)
        client.write(await client.open(b"f", WRITE), 0, 5)
        await client.truncate(b"f", 0)
        assert await renewed(client, longer) == b""
        world.cluster_ms += CAPABILITY_MS
        assert await renewed(client, longer) == b""

    world.run(work())


def test_without_the_store_capabilities_are_renewed_for_an_hour() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        opened = await client.chunked(b"f")
        capability = opened.capability

        def gone() -> None:
            raise Unavailable("away")

        world.faults.at_read = gone  # type: ignore[method-assign]
        for _ in range(11):
            world.loop.advance(300)
            world.cluster_ms += 300_000
            capability = await renewed(client, capability)
            assert capability
        world.loop.advance(310)
        world.cluster_ms += 310_000
        assert await renewed(client, capability) == b""
        assert await renewed(client, opened.capability) == b""

    world.run(work())

"""The replica machine: exact effects of single steps, and whole chains under faults."""

from __future__ import annotations

import msgspec
import pytest

from fs3.errors import Fs3Error
from fs3.ids import ChunkId, Epoch
from fs3.routing import ChainInfo
from fs3.storage.chunk_work import ChunkWork, Job, Pending
from fs3.storage.effects import Answer, Decree, Done, Effect, EpochRaise, WriteAsk
from fs3.storage.replica import Replica
from fs3.wire.chunk import UpdateResult, WriterTag

from .replica_clients import Reader, Writer, check_history, check_quiet
from .replica_world import INODE, Faults, World

CHUNKS = [ChunkId(INODE, 0), ChunkId(INODE, 1)]


def run(
    seed: int,
    members: int,
    faults: Faults,
    *,
    writers: int = 3,
    writes: int = 12,
    replica_type: type[Replica] = Replica,
) -> World:
    world = World(seed, members, faults, replica_type)
    clients = [Writer(world, i, CHUNKS, writes) for i in range(writers)]
    readers = [Reader(world, i, CHUNKS) for i in range(2)]
    world.run_until(106.0)
    world.heal()
    world.run_until(116.0)
    for reader in readers:
        reader.stopped = True
    assert not any(c.left for c in clients), "a writer is stuck"
    assert sum(o.is_write for o in world.history.operations) == writers * writes
    check_history(world)
    check_quiet(world)
    return world


@pytest.mark.parametrize("members", [1, 2, 3])
def test_a_quiet_chain_does_what_it_is_asked(members: int) -> None:
    world = run(1, members, Faults())
    assert len(world.history.operations) > 100


@pytest.mark.parametrize("seed", range(30))
def test_messages_are_lost_repeated_and_reordered(seed: int) -> None:
    run(seed, 1 + seed % 3, Faults(lost=0.1, repeated=0.1, delay_s=0.05))


@pytest.mark.parametrize("seed", range(60))
def test_nodes_die_and_come_back_as_new_generations(seed: int) -> None:
    run(
        seed,
        1 + seed % 3,
        Faults(lost=0.05, repeated=0.1, delay_s=0.03, crash_every_s=1.2, leases_missing=0.3),
    )


class CommitsBeforeItsSuccessor(Replica):
    def _drive(self, work: ChunkWork, pending: Pending, now_s: float) -> list[Effect]:
        super()._drive(work, pending, now_s)
        return self._commit(work, pending, now_s)


class ServesWhatItBroughtAlong(Replica):
    def must_settle(self, chunk: ChunkId) -> bool:
        return False


class AnswersFromTheRecordAtOnce(Replica):
    def _replay(self, work: ChunkWork, job: Job, result: UpdateResult) -> list[Effect]:
        return [Answer(job.ticket, Done(result.identity, result.length_bytes, 0), replayed=True)]


class NumbersOverAPendingVersion(Replica):
    def _take_write(self, work: ChunkWork, job: Job, ask: WriteAsk) -> list[Effect] | None:
        held, work.pending = work.pending, None
        taken = super()._take_write(work, job, ask)
        if work.staging is None:
            work.pending = held
        return taken


class ForgetsItsPendings(Replica):
    def on_routing(self, info: ChainInfo, now_s: float) -> list[Effect]:
        for work in self._chunks.values():
            work.pending = None
        return super().on_routing(info, now_s)


class ForgetsChannels(Replica):
    def _take_write(self, work: ChunkWork, job: Job, ask: WriteAsk) -> list[Effect] | None:
        tag = WriterTag(ask.writer.session, ask.writer.channel, ask.writer.sequence + job.ticket * 1000)
        return super()._take_write(work, job, msgspec.structs.replace(ask, writer=tag))


@pytest.mark.parametrize(
    "mutant",
    [
        CommitsBeforeItsSuccessor,
        ServesWhatItBroughtAlong,
        AnswersFromTheRecordAtOnce,
        NumbersOverAPendingVersion,
        ForgetsItsPendings,
        ForgetsChannels,
    ],
)
def test_this_world_finds_a_broken_rule(mutant: type[Replica]) -> None:
    """The checks above are worth what they catch."""
    for seed in range(100):
        try:
            run(seed, 3, Faults(0.1, 0.1, 0.05, 0.8, 0.5, 0.2), replica_type=mutant)
        except AssertionError:
            return
    pytest.fail(f"{mutant.__name__} was not caught")


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_many_seeds(block: int) -> None:
    for seed in range(1000 + block * 50, 1050 + block * 50):
        run(seed, 1 + seed % 3, Faults(0.1, 0.1, 0.05, 0.8, 1.0, 0.3))


@pytest.mark.parametrize("seed", range(20))
def test_a_raised_epoch_lets_no_older_update_appear(seed: int) -> None:
    """After the raise is acknowledged every version that appears was numbered under the new epoch."""
    world = World(seed, 3, Faults(lost=0.05, repeated=0.05, delay_s=0.05, crash_every_s=3.0))
    writers = [Writer(world, i, CHUNKS, 15) for i in range(3)]
    acknowledged: list[dict[ChunkId, int]] = []
    decree: Decree = EpochRaise(INODE, Epoch(5))

    def raise_epoch() -> None:
        head = world.nodes[world.info.members[0].target]
        version = world.info.version

        def answer(done: Done | None, error: Fs3Error | None) -> None:
            if error is not None:
                world.later(0.1, raise_epoch)
            elif not acknowledged:
                versions = head.store.now.committed
                acknowledged.append({c: v.identity.update_version for c, v in versions.items()})

        head.ask(
            lambda replica, ticket: replica.on_decree(
                ticket, decree, version, world.now_s, world.now_s + 2.0
            ),
            answer,
        )

    world.later(0.4, raise_epoch)
    world.run_until(106.0)
    world.heal()
    world.run_until(116.0)
    assert not any(writer.left for writer in writers)
    assert acknowledged
    for node in world.nodes.values():
        assert node.store.epoch(INODE) == 5
    check_history(world)
    check_quiet(world)
    later = [epoch for (c, n), epoch in world.history.epochs.items() if n > acknowledged[0].get(c, 0)]
    assert later, "nothing was written after the raise"
    assert min(later) >= 5

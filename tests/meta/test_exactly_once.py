"""Slots: a request is applied once, however often it is sent, whatever becomes of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from fs3.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MaybeApplied,
    SessionLost,
    TransactionConflict,
    Unauthenticated,
    Unavailable,
)
from fs3.ids import ClientSessionId
from fs3.meta.allocate import scrambled
from fs3.meta.ops import OPERATIONS
from fs3.wire import meta as wire
from fs3.wire.meta import META, Mutation, OpenMode
from tests.meta.world import ALICE, BOB, Client, World


def make(client: Client, name: bytes, mutation: Mutation | None = None) -> wire.MkdirsRequest:
    return wire.MkdirsRequest(path=wire.Path(name), mutation=mutation or client.mutation())


def test_every_method_of_the_service_has_its_operation() -> None:
    assert {o.method for o in OPERATIONS} == set(META.methods)
    assert len(OPERATIONS) == len(META.methods)


def test_a_repeated_request_gets_the_same_answer_from_any_service() -> None:
    world = World()
    second = world.another()

    async def work() -> None:
        client = await world.client()
        request = make(client, b"d")
        first = await client.call(wire.MKDIRS, request)
        assert await second.call(client.peer, wire.MKDIRS, request) == first
        await client.mkdir(b"e")
        with pytest.raises(InvalidRequest):  # the slot has moved on
            await client.call(wire.MKDIRS, request)
        assert await client.names(b"") == [b"d", b"e"]

    world.run(work())


def test_the_error_of_a_request_is_not_kept() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        request = wire.RemoveRequest(path=wire.Path(b"d"), mutation=client.mutation())
        with pytest.raises(FileNotFoundError):
            await client.call(wire.REMOVE, request)
        other = await world.client()
        await other.mkdir(b"d")
        assert (await client.call(wire.REMOVE, request)).removed
        await other.mkdir(b"d")
        assert (await client.call(wire.REMOVE, request)).removed
        assert await client.names(b"") == [b"d"]

    world.run(work())


@pytest.mark.parametrize("applied", [False, True])
def test_an_unknown_commit_result_is_resolved_by_the_slot(applied: bool) -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await client.mkdir(b"warm")
        step: Any = MaybeApplied("lost")
        (world.faults.after if applied else world.faults.before).append(step)
        await client.mkdir(b"d")
        assert await client.names(b"") == [b"d", b"warm"]
        assert (await client.stat(b"")).nlink == 4

    world.run(work())


def test_an_unknown_result_at_the_deadline_is_told_and_the_retry_knows() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        await client.mkdir(b"warm")
        world.faults.after.append(MaybeApplied("lost"))

        def gone() -> None:
            raise Unavailable("away")

        here = world.faults.at_read
        lost: list[int] = []

        def later() -> None:
            if lost:
                gone()
            lost.append(1)

        world.faults.at_read = later  # type: ignore[method-assign]
        request = make(client, b"d")
        with pytest.raises(MaybeApplied):
            await client.call(wire.MKDIRS, request, timeout_s=1.0)
        world.faults.at_read = here  # type: ignore[method-assign]
        answer = await client.call(wire.MKDIRS, request)
        assert answer.attributes.inode == (await client.stat(b"d")).inode

    world.run(work())


def test_two_tries_at_the_same_time_are_one() -> None:
    world = World()
    second = world.another()

    async def work() -> None:
        client = await world.client()
        await client.mkdir(b"warm")
        request = make(client, b"d")
        answers: list[Any] = []

        async def the_other_try() -> None:
            answers.append(await second.call(client.peer, wire.MKDIRS, request))

        world.faults.before.append(the_other_try)
        answers.append(await client.call(wire.MKDIRS, request))
        assert answers[0] == answers[1]
        assert world.driver._replays.value == 1
        assert (await client.stat(b"")).nlink == 4

    world.run(work())


def test_a_body_that_ran_several_times_leaves_one_trace() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        opened = await client.chunked(b"f")
        await client.close(opened)
        del world.events[:]
        count = (await client.call(wire.STATFS, wire.StatFsRequest())).file_count
        world.faults.before += [TransactionConflict("injected")] * 3
        await client.remove(b"f")
        assert [event.name for event in world.events] == ["removal queued"]
        world.faults.before += [TransactionConflict("injected")] * 3
        made = await client.create(b"g", b"x")
        world.faults.before += [TransactionConflict("injected")] * 3
        await client.mkdir(b"a/b", parents=True)
        assert (await client.call(wire.STATFS, wire.StatFsRequest())).file_count == count + 3
        assert (await client.stat(b"g")).inode == made.attributes.inode
        assert [(await client.stat(path)).nlink for path in (b"", b"a", b"a/b")] == [3, 3, 2]

    world.run(work())


def test_the_deadline_ends_an_operation_that_was_not_applied() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        world.faults.before += [Unavailable("away")] * 1000
        start_s = world.clock.boot_s()
        with pytest.raises(DeadlineExceeded):
            await client.call(wire.MKDIRS, make(client, b"d"), timeout_s=3.0)
        assert world.clock.boot_s() - start_s < 3.5
        del world.faults.before[:]
        assert await client.names(b"") == []

    world.run(work())


@pytest.mark.parametrize(
    "mutation",
    [Mutation(ClientSessionId(16), 64, 1), Mutation(ClientSessionId(16), -1, 1),
     Mutation(ClientSessionId(16), 0, 0), Mutation(ClientSessionId(16), 0, 1 << 63)],
)  # fmt: skip
def test_numbers_that_cannot_be(mutation: Mutation) -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        with pytest.raises(InvalidRequest):
            await client.call(wire.MKDIRS, make(client, b"d", mutation))

    world.run(work())


def test_a_number_used_for_another_method_is_refused() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        mutation = client.mutation()
        await client.call(wire.MKDIRS, make(client, b"d", mutation))
        with pytest.raises(InvalidRequest):
            await client.call(wire.REMOVE, wire.RemoveRequest(path=wire.Path(b"d"), mutation=mutation))

    world.run(work())


def test_a_session_is_its_users() -> None:
    world = World()

    async def work() -> None:
        alice = await world.client(ALICE)
        with pytest.raises(Unauthenticated):
            await world.call(BOB, wire.MKDIRS, make(alice, b"d"))
        with pytest.raises(Unauthenticated):
            await world.call(BOB, wire.RENEW_SESSION, wire.RenewSessionRequest(session=alice.session))
        with pytest.raises(Unauthenticated):
            await world.call(BOB, wire.CLOSE_SESSION, wire.CloseSessionRequest(session=alice.session))
        stolen = wire.OpenRequest(path=wire.Path(b"x"), mode=OpenMode.READ, mutation=alice.mutation())
        await alice.create(b"x", b"1")
        with pytest.raises(Unauthenticated):
            await world.call(BOB, wire.OPEN, stolen)

    world.run(work())


def test_a_session_that_is_over_is_refused() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        request = make(client, b"d")
        await client.call(wire.MKDIRS, request)
        for _ in range(2):
            await client.call(wire.CLOSE_SESSION, wire.CloseSessionRequest(session=client.session))
        for again in (request, make(client, b"e")):
            with pytest.raises(SessionLost):
                await client.call(wire.MKDIRS, again)
        with pytest.raises(SessionLost):
            await client.call(wire.RENEW_SESSION, wire.RenewSessionRequest(session=client.session))

    world.run(work())


def test_opening_a_session_twice_with_one_nonce_is_one_session() -> None:
    world = World()

    async def work() -> None:
        request = wire.OpenSessionRequest(host="h", request_nonce=b"n" * 16)
        first = await world.call(ALICE, wire.OPEN_SESSION, request)
        assert (await world.call(ALICE, wire.OPEN_SESSION, request)).session == first.session
        assert (await world.call(BOB, wire.OPEN_SESSION, request)).session != first.session
        with pytest.raises(InvalidRequest):
            await world.call(
                ALICE, wire.OPEN_SESSION, wire.OpenSessionRequest(host="h", request_nonce=bytes(65))
            )

    world.run(work())


def test_ids_are_spread_and_never_repeat() -> None:
    seen = [scrambled(number) for number in range(1, 20_001)]
    assert len(set(seen)) == len(seen)
    shares = [0] * 16
    for one in seen:
        shares[one >> 60] += 1
    assert max(shares) < 1.3 * min(shares)

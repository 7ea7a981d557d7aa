"""Requests of every kind with numbers and names that nobody should send: a clear error, never a bug."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import Fs3Error
from fs3.ids import ROOT_INODE
from fs3.layout import Layout
from fs3.meta.ops import OPERATIONS
from fs3.wire import meta as wire
from tests.meta.world import ALICE, Client, World

NUMBERS = st.one_of(
    st.sampled_from([-(1 << 63), -2, -1, 0, 1, 2, 16, 63, 64, (1 << 32) - 1, 1 << 60, (1 << 64) - 1]),
    st.integers(-5, 70),
)
NAMES = st.sampled_from(
    [b"", b"a", b"d", b"f", b"/", b".", b"..", b"d/x", b"x" * 256, b"a\0", b"\xff\xfe", b"d/"]
)
LAYOUTS = st.one_of(
    st.none(),
    st.builds(
        Layout, table=NUMBERS, table_version=NUMBERS, chunk_size_bytes=NUMBERS, stripe=NUMBERS, first=NUMBERS
    ),
)
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "path": st.builds(wire.Path, NAMES, NUMBERS | st.just(ROOT_INODE)),
    "source": st.builds(wire.Path, NAMES),
    "destination": st.builds(wire.Path, NAMES, NUMBERS | st.just(ROOT_INODE)),
    "layout": LAYOUTS,
    "act_as": st.one_of(st.none(), st.builds(wire.ActAs, NUMBERS, NUMBERS, st.tuples(NUMBERS))),
    "content": st.sampled_from([b"", b"abc", bytes(16384), bytes(20_000)]),
    "after": NAMES,
    "request_nonce": st.sampled_from([b"", bytes(16), bytes(100)]),
    "host": st.sampled_from(["", "h", "h" * 1000]),
    "description": st.just(""),
    "capabilities": st.sampled_from([(), (b"",), (bytes(64),), (b"x",) * 1001]),
    "mode": st.sampled_from([wire.OpenMode(0), wire.OpenMode(1), wire.OpenMode(2), wire.OpenMode(3)]),
    "kind": st.sampled_from(list(wire.RemoveKind)),
    "flags": st.sampled_from([wire.RenameFlags(n) for n in range(5)]),
}
FLAGS = {"follow", "exclusive", "truncate", "keep_open", "finish", "parents", "exist_ok", "recursive",
         "missing_ok", "with_attributes"}  # fmt: skip


def a_request(method: Any) -> st.SearchStrategy[tuple[Any, dict[str, Any], bool]]:
    """(method, fields without the mutation, whether the mutation is to be a bad one too)."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for name in method.request.__struct_fields__:
        if name == "mutation":
            continue
        if name == "mode" and method is wire.SETATTR:
            fields[name] = st.one_of(st.none(), NUMBERS)
        elif name in FLAGS:
            fields[name] = st.booleans()
        else:
            fields[name] = BY_NAME.get(name, NUMBERS)
    return st.tuples(st.just(method), st.fixed_dictionaries(fields), st.booleans())


REQUESTS = st.sampled_from([operation.method for operation in OPERATIONS]).flatmap(a_request)


async def send(client: Client, method: Any, fields: dict[str, Any], odd: wire.Mutation | None) -> None:
    if "mutation" in method.request.__struct_fields__:
        fields = {**fields, "mutation": odd or client.mutation()}
    if "session" in fields and fields["session"] == 1:
        fields = {**fields, "session": client.session}
    try:
        await client.call(method, method.request(**fields), timeout_s=0.2)
    except Fs3Error:
        pass  # clear, and ours


@given(
    st.lists(REQUESTS, min_size=1, max_size=12),
    st.builds(wire.Mutation, NUMBERS, NUMBERS, NUMBERS),
)
def test_whatever_is_sent_the_answer_is_clear_and_the_tree_stays_whole(
    requests: list[tuple[Any, dict[str, Any], bool]], odd: wire.Mutation
) -> None:
    world = World()

    async def work() -> None:
        client = await world.client(ALICE)
        await client.mkdir(b"d")
        await client.create(b"f", b"content")
        for method, fields, is_odd in requests:
            await send(client, method, fields, odd if is_odd else None)
        await whole(world)

    world.run(work())


async def whole(world: World) -> None:
    """Every name leads to an inode, every directory's count of subdirectories is right."""
    client = await world.client()
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        page = await client.call(
            wire.LIST, wire.ListRequest(path=wire.Path(path), with_attributes=True, limit=4096)
        )
        below = [e.name for e in page.entries if e.kind is wire.InodeKind.DIRECTORY]
        assert (await client.stat(path)).nlink == 2 + len(below), path
        waiting += [path + b"/" + name if path else name for name in below]

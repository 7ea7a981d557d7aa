"""Every pair of operations at the same time, and with unknown commit results: as one after the other.

For each pair (first, second) the second runs, whole, in another service

* ``conflict``: between the body and the commit of the first,
* ``lost``: after the first was committed and before its answer is lost (it runs again),
* ``refused``: before the commit of the first, whose answer is lost though it was not applied.

Answers and the tree afterwards must be those of first-then-second or of second-then-first, as the reference
model (``model.py``) gives them. A second test holds the model against the operations, one after the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fs3.errors import DeadlineExceeded, Fs3Error, FsError, MaybeApplied
from fs3.wire import meta as wire
from fs3.wire.meta import InodeKind, OpenMode
from tests.meta.model import CHUNKED, Model, Node, Refused
from tests.meta.world import Client, World

MIB = 1 << 20
WRITE = OpenMode.WRITE


@dataclass
class Actor:
    """A client with both its lives: the real one and the model's."""

    name: str
    client: Client
    handles: dict[bytes, wire.OpenResponse]


Real = Callable[[Actor], Awaitable[Any]]
Said = Callable[[Model, str], Any]


@dataclass(frozen=True)
class Act:
    """An operation, and what the model says of it."""

    real: Real
    said: Said
    reads: bool = False


def attributes(shown: wire.Attributes) -> tuple[Any, ...]:
    """What the pair tests compare of an answer."""
    if shown.kind is InodeKind.DIRECTORY:
        return "dir", shown.mode, shown.nlink
    return "file", shown.mode, shown.nlink, shown.length_bytes, int(shown.storage)


async def created(answer: Awaitable[wire.OpenResponse]) -> Any:
    got = await answer
    return attributes(got.attributes), got.created


async def opened(answer: Awaitable[wire.OpenResponse]) -> Any:
    got = await answer
    return attributes(got.attributes), got.content


async def plain(answer: Awaitable[wire.Attributes]) -> Any:
    return attributes(await answer)


async def write_inline(actor: Actor) -> Any:
    request = wire.WriteInlineRequest(
        inode=actor.handles[b"i"].attributes.inode,
        mutation=actor.client.mutation(),
        content_version=1,
        content=actor.name.encode(),
    )
    return attributes((await actor.client.call(wire.WRITE_INLINE, request)).attributes)


async def spill(actor: Actor) -> Any:
    request = wire.SpillRequest(
        inode=actor.handles[b"i"].attributes.inode, mutation=actor.client.mutation(), content_version=1
    )
    answer = await actor.client.call(wire.SPILL, request, timeout_s=0.3)
    return attributes(answer.attributes), answer.content


def node(model: Model, name: bytes) -> Node:
    """What a handle of the start refers to, wherever its name has gone."""
    return model.start[name]


NO: dict[str, bool] = {"exclusive": False, "write": False, "cut": False}
ACTS: dict[str, Act] = {
    "create new": Act(
        lambda a: created(a.client.create(b"d/new", b"n")),
        lambda m, w: m.create(w, b"d/new", b"n", **NO),
    ),
    "create exclusive": Act(
        lambda a: created(a.client.create(b"d/new", exclusive=True, mode=WRITE)),
        lambda m, w: m.create(w, b"d/new", None, **NO | {"exclusive": True, "write": True}),
    ),
    "create over inline": Act(
        lambda a: created(a.client.create(b"d/f", b"other", truncate=True)),
        lambda m, w: m.create(w, b"d/f", b"other", **NO),
    ),
    "create over chunked": Act(
        lambda a: created(a.client.create(b"e/g", mode=WRITE, truncate=True)),
        lambda m, w: m.create(w, b"e/g", None, **NO | {"write": True, "cut": True}),
    ),
    "content over chunked": Act(
        lambda a: created(a.client.create(b"e/g", b"small")),
        lambda m, w: m.create(w, b"e/g", b"small", **NO),
    ),
    "mkdir": Act(
        lambda a: plain(a.client.mkdir(b"d/new")), lambda m, w: m.mkdir(b"d/new", parents=False)
    ),
    "mkdirs": Act(
        lambda a: plain(a.client.mkdir(b"d/sub/x/y", parents=True)),
        lambda m, w: m.mkdir(b"d/sub/x/y", parents=True),
    ),
    "unlink inline": Act(lambda a: a.client.remove(b"d/f"), lambda m, w: m.remove(b"d/f", recursive=False)),
    "unlink chunked": Act(lambda a: a.client.remove(b"e/g"), lambda m, w: m.remove(b"e/g", recursive=False)),
    "unlink open": Act(lambda a: a.client.remove(b"h"), lambda m, w: m.remove(b"h", recursive=False)),
    "rmdir": Act(lambda a: a.client.remove(b"d/sub"), lambda m, w: m.remove(b"d/sub", recursive=False)),
    "remove tree": Act(
        lambda a: a.client.remove(b"d", recursive=True), lambda m, w: m.remove(b"d", recursive=True)
    ),
    "rename file": Act(
        lambda a: plain(a.client.rename(b"d/f", b"e/f")), lambda m, w: m.rename(b"d/f", b"e/f")
    ),
    "rename over": Act(
        lambda a: plain(a.client.rename(b"d/f", b"e/g")), lambda m, w: m.rename(b"d/f", b"e/g")
    ),
    "rename noreplace": Act(
        lambda a: plain(a.client.rename(b"i", b"d/new", 1)),
        lambda m, w: m.rename(b"i", b"d/new", "noreplace"),
    ),
    "rename down": Act(
        lambda a: plain(a.client.rename(b"d", b"e/d")), lambda m, w: m.rename(b"d", b"e/d")
    ),
    "rename down the other way": Act(
        lambda a: plain(a.client.rename(b"e", b"d/sub/e")), lambda m, w: m.rename(b"e", b"d/sub/e")
    ),
    "rename directory": Act(
        lambda a: plain(a.client.rename(b"d/sub", b"e/sub")), lambda m, w: m.rename(b"d/sub", b"e/sub")
    ),
    "rename over directory": Act(
        lambda a: plain(a.client.rename(b"empty", b"d/sub")), lambda m, w: m.rename(b"empty", b"d/sub")
    ),
    "exchange": Act(
        lambda a: plain(a.client.rename(b"d/f", b"e", 2)), lambda m, w: m.rename(b"d/f", b"e", "exchange")
    ),
    "chmod directory": Act(
        lambda a: plain(a.client.setattr(b"d", mode=0o711)), lambda m, w: m.chmod(b"d", 0o711)
    ),
    "chmod file": Act(
        lambda a: plain(a.client.setattr(b"d/f", mode=0o600)), lambda m, w: m.chmod(b"d/f", 0o600)
    ),
    "truncate": Act(
        lambda a: plain(a.client.truncate(b"h", MIB)), lambda m, w: m.truncate(b"h", MIB)
    ),
    "truncate longer": Act(
        lambda a: plain(a.client.truncate(b"h", 9 * MIB)), lambda m, w: m.truncate(b"h", 9 * MIB)
    ),
    "truncate inline": Act(
        lambda a: plain(a.client.truncate(b"d/f", 3)), lambda m, w: m.truncate(b"d/f", 3)
    ),
    "open for writing": Act(
        lambda a: opened(a.client.open(b"e/g", WRITE)), lambda m, w: m.open(w, b"e/g", write=True)
    ),
    "open with truncate": Act(
        lambda a: opened(a.client.open(b"h", WRITE, truncate=True)),
        lambda m, w: m.open(w, b"h", write=True, cut=True),
    ),
    "open for reading": Act(
        lambda a: opened(a.client.open(b"d/f", OpenMode.READ)),
        lambda m, w: m.open(w, b"d/f", write=False),
        reads=True,
    ),
    "close": Act(
        lambda a: plain(a.client.close(a.handles[b"h"], 5 * MIB)),
        lambda m, w: m.close(w, node(m, b"h"), 0, 5 * MIB, keep=False),
    ),
    "sync": Act(
        lambda a: plain(a.client.close(a.handles[b"h"], 4 * MIB, keep_open=True)),
        lambda m, w: m.close(w, node(m, b"h"), 0, 4 * MIB, keep=True),
    ),
    "close inline": Act(
        lambda a: plain(a.client.close(a.handles[b"i"])),
        lambda m, w: m.close(w, node(m, b"i"), 0, 0, keep=False),
    ),
    "write inline": Act(
        write_inline, lambda m, w: m.write_inline(w, node(m, b"i"), 1, w.encode())
    ),
    "spill": Act(spill, lambda m, w: m.spill(w, node(m, b"i"), 1)),
    "stat": Act(lambda a: plain(a.client.stat(b"d")), lambda m, w: m.get(b"d").shown(), reads=True),
    "list": Act(
        lambda a: a.client.names(b"d"), lambda m, w: sorted(m.get(b"d").entries), reads=True
    ),
}  # fmt: skip


async def real_start(world: World, second: World) -> tuple[Actor, Actor, Client]:
    """The tree that all pairs start from, two clients that have ``h`` and ``i`` open, and an observer."""
    watcher = await world.client()
    for path in (b"d", b"d/sub", b"e", b"empty"):
        await watcher.mkdir(path)
    await watcher.create(b"d/f", b"content")
    made = await watcher.chunked(b"e/g")
    watcher.write(made, 0, 2 * MIB)
    await watcher.close(made, 2 * MIB)
    actors: list[Actor] = []
    for name, home in (("A", world), ("B", second)):
        client = await home.client()
        await client.mkdir(b"warm")  # this service has ids now: the next commit is the operation's own
        await client.remove(b"warm")
        if not actors:
            handles = {b"h": await client.chunked(b"h")}
            handles[b"i"] = await client.create(b"i", b"inline", mode=WRITE)
        else:
            handles = {path: await client.open(path, WRITE) for path in (b"h", b"i")}
        actors.append(Actor(name, client, handles))
    actors[0].client.write(actors[0].handles[b"h"], 0, 3 * MIB)
    await actors[0].client.close(actors[0].handles[b"h"], 3 * MIB, keep_open=True)
    return actors[0], actors[1], watcher


def fresh_model() -> Model:
    """The same in the model."""
    model = Model()
    for path in (b"d", b"d/sub", b"e", b"empty"):
        model.mkdir(path, parents=False)
    model.create("W", b"d/f", b"content", **NO)
    for path, length, who in ((b"e/g", 2 * MIB, ""), (b"h", 3 * MIB, "AB")):
        model.create("W", path, None, **NO)
        made = model.get(path)
        made.storage, made.length, made.written_end = CHUNKED, length, length
        made.opens = dict.fromkeys(who, 1)
        model.start[path] = made
    model.create("W", b"i", b"inline", **NO)
    model.start[b"i"] = model.get(b"i")
    model.start[b"i"].opens = {"A": 1, "B": 1}
    return model


def said(act: Act, model: Model, who: str) -> Any:
    """The model's answer, errors included."""
    try:
        return act.said(model, who)
    except Refused as refusal:
        return refusal


def comparable(answer: Any) -> Any:
    """Answers and errors in one form."""
    if isinstance(answer, Refused):
        return "error", answer.what
    if isinstance(answer, FsError):
        return "error", answer.errno
    if isinstance(answer, MaybeApplied):  # an attempt in doubt, then busy until the deadline
        return "error", DeadlineExceeded.__name__
    if isinstance(answer, Fs3Error):
        return "error", type(answer).__name__
    return answer


async def done(act: Act, actor: Actor) -> Any:
    """The real answer, errors included."""
    try:
        return comparable(await act.real(actor))
    except Fs3Error as error:
        return comparable(error)


async def picture(client: Client) -> dict[bytes, Any]:
    """Everything that can be seen from the root."""
    found: dict[bytes, Any] = {}
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        shown = await client.stat(path)
        content = None
        if shown.kind is InodeKind.FILE:
            content = (await client.open(path, OpenMode.READ)).content
        else:
            waiting += [path + b"/" + name if path else name for name in await client.names(path)]
        found[path] = (*attributes(shown), content)
    return found


def serial(first: Act, second: Act) -> list[tuple[Any, Any, dict[bytes, Any]]]:
    """(answer of first, answer of second, tree) in both orders."""
    one, two = fresh_model(), fresh_model()
    first_then = comparable(said(first, one, "A"))
    second_then = comparable(said(second, one, "B"))
    second_before = comparable(said(second, two, "B"))
    first_after = comparable(said(first, two, "A"))
    return [
        (first_then, second_then, one.picture()),
        (first_after, second_before, two.picture()),
    ]


def at_once(first: Act, second: Act, mode: str) -> tuple[Any, Any, dict[bytes, Any]] | None:
    """Run the pair as the module says; None: the first refused before it came to a commit."""
    world = World()
    other = world.another()

    async def work() -> tuple[Any, Any, dict[bytes, Any]] | None:
        actor, intruder, watcher = await real_start(world, other)
        outcome: list[Any] = []

        async def meanwhile() -> None:
            outcome.append(await done(second, intruder))
            if mode != "conflict":
                raise MaybeApplied(mode)

        script = world.faults.after if mode == "lost" else world.faults.before
        script.append(meanwhile)
        answer = await done(first, actor)
        if not outcome:
            return None
        return answer, outcome[0], await picture(watcher)

    return world.run(work())


def in_turn(first: Act, second: Act) -> tuple[Any, Any, dict[bytes, Any]]:
    """Run the first, then the second."""
    world = World()
    other = world.another()

    async def work() -> tuple[Any, Any, dict[bytes, Any]]:
        actor, intruder, watcher = await real_start(world, other)
        one = await done(first, actor)
        return one, await done(second, intruder), await picture(watcher)

    return world.run(work())


def explained(first: str, second: str, got: Any, expected: list[Any]) -> str:
    """Both names, and where the outcome differs from each expected one."""
    lines = [f"{first} | {second}"]
    for wanted in expected:
        lines.append(f"  answers {got[:2]} against {wanted[:2]}")
        lines += [
            f"    {path!r}: {got[2].get(path)} against {wanted[2].get(path)}"
            for path in sorted(set(got[2]) | set(wanted[2]))
            if got[2].get(path) != wanted[2].get(path)
        ]
    return "\n".join(lines)


WRITES = [name for name, act in ACTS.items() if not act.reads]


MODES = ["conflict", "lost", "refused"]


def sample(name: str, mode: str) -> list[str]:
    """A fifth of the second operations, another one for each first and mode; all of them in the slow tier."""
    offset = list(ACTS).index(name) + 2 * (MODES.index(mode) if mode in MODES else 0)
    return [other for number, other in enumerate(ACTS) if (number + offset) % 5 == 0]


def check_pairs(name: str, mode: str, others: list[str]) -> None:
    """The outcome of each pair is one that some order gives."""
    for other in others:
        got = at_once(ACTS[name], ACTS[other], mode)
        if got is not None:
            expected = serial(ACTS[name], ACTS[other])
            assert got in expected, explained(name, other, got, expected)


def check_model(name: str, others: list[str]) -> None:
    """The model says of first-then-second what the operations do."""
    for other in others:
        got = in_turn(ACTS[name], ACTS[other])
        expected = serial(ACTS[name], ACTS[other])[0]
        assert got == expected, explained(name, other, got, [expected])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WRITES)
def test_a_pair_ends_as_some_order_of_the_two(name: str, mode: str) -> None:
    check_pairs(name, mode, sample(name, mode))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WRITES)
def test_all_pairs(name: str, mode: str) -> None:
    check_pairs(name, mode, list(ACTS))


@pytest.mark.parametrize("name", list(ACTS))
def test_the_model_and_the_operations_agree_one_after_the_other(name: str) -> None:
    check_model(name, sample(name, ""))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ACTS))
def test_model_and_operations_agree_on_all_pairs(name: str) -> None:
    check_model(name, list(ACTS))

"""The judge of a chunk's history finds what one chunk cannot do, and nothing else."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from fs3.ids import ChunkId, InodeId

from .history import UNKNOWN, ChunkHistory, ChunkOp, Values, judge, relaxed_problem, versions_grow

INF = math.inf
BLOCKS = 3


def history(*ops: tuple[str, float, float, int, Values]) -> ChunkHistory:
    """Operations as (kind, start, end, first block, values)."""
    made = ChunkHistory("c", ChunkId(InodeId(1), 0), BLOCKS)
    for kind, start_s, end_s, first, values in ops:
        made.begin(kind, "k", start_s, first, values).ended(end_s)
    return made


@pytest.mark.parametrize(
    "made",
    [
        history(("write", 0, 1, 0, (1, 1)), ("read", 2, 3, 0, (1, 1, 0))),
        history(("write", 0, 10, 0, (1,)), ("write", 0, 10, 0, (2,)), ("read", 1, 2, 0, (2,)),
                ("read", 3, 4, 0, (1,))),
        history(("write", 0, INF, 0, (1,)), ("read", 5, 6, 0, (0,)), ("read", 7, 8, 0, (1,))),
        history(("write", 0, 1, 0, (1, 1, 1)), ("cut", 2, 5, 1, ()), ("read", 3, 4, 0, (1, 1, 1)),
                ("read", 6, 7, 0, (1, 0, 0))),
        history(("write", 0, 1, 1, (5,)), ("read", 2, 3, 0, (0, UNKNOWN, 0))),
        history(("write", 0, 4, 0, (1,)), ("read", 1, 6, 0, (0, 0)), ("read", 4.5, 5, 0, (1,))),
    ],
)  # fmt: skip
def test_what_one_chunk_can_do_passes(made: ChunkHistory) -> None:
    assert judge(made) is None


@pytest.mark.parametrize(
    ("made", "broken"),
    [
        (history(("write", 0, 1, 0, (1,)), ("read", 2, 3, 0, (0,))), 1),
        (history(("write", 0, 1, 0, (1,)), ("read", 2, 3, 0, (7,))), 1),
        (history(("write", 0, 1, 0, (1, 1)), ("write", 2, 4, 0, (2, 2)), ("read", 3, 5, 0, (1, 2))), 2),
        (history(("write", 0, INF, 0, (1,)), ("read", 1, 2, 0, (1,)), ("read", 3, 4, 0, (0,))), 2),
        (history(("write", 0, 1, 2, (1,)), ("cut", 2, 3, 1, ()), ("read", 4, 5, 2, (1,))), 2),
        (history(("cut", 0, 1, 0, ()), ("write", 2, 3, 0, (1,)), ("read", 4, 5, 0, (0,))), 2),
        (history(("write", 0, 9, 0, (1,)), ("write", 0, 9, 0, (2,)), ("read", 1, 2, 0, (2,)),
                 ("read", 3, 4, 0, (1,)), ("read", 5, 6, 0, (2,))), 4),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_found(made: ChunkHistory, broken: int) -> None:
    found = judge(made)
    assert found is not None and found.op is made.ops[broken], found


def test_a_write_whose_session_is_over_does_not_come_later() -> None:
    def made(first_seen_s: float) -> ChunkHistory:
        found = history(("write", 0, INF, 0, (1,)), ("read", first_seen_s, first_seen_s + 1, 0, (1,)))
        found.begin("read", "k", 4, 0, (0,)).ended(5)
        found.ops[0].lapses_s = 3
        return found

    before = history(("write", 0, INF, 0, (1,)), ("read", 4, 5, 0, (1,)), ("read", 6, 7, 0, (1,)))
    before.ops[0].lapses_s = 3
    assert judge(before) is None, "it had its effect in time"
    assert judge(made(6)) is not None, "first it was not there, then it was"
    never = history(("write", 0, INF, 0, (1,)), ("read", 4, 5, 0, (0,)))
    never.ops[0].lapses_s = 3
    assert judge(never) is None


def brute_force(made: ChunkHistory) -> bool:
    """Whether some order of some of the operations explains all that ended."""
    must = [op for op in made.ops if op.has_ended]
    may = [op for op in made.ops if not op.has_ended and op.kind != "read"]
    chosen = itertools.chain.from_iterable(itertools.combinations(may, n) for n in range(len(may) + 1))
    return any(_explains(order) for more in chosen for order in itertools.permutations([*must, *more]))


def _explains(order: tuple[ChunkOp, ...]) -> bool:
    state: Values | None = (0,) * BLOCKS
    for at, op in enumerate(order):
        if any(later.end_s < op.start_s for later in order[at + 1 :]):
            return False
        assert state is not None
        state = op.after(state)
        if state is None:
            return False
    return True


def test_it_agrees_with_trying_every_order() -> None:
    draw = random.Random(7)
    verdicts = {True: 0, False: 0}
    for _ in range(400):
        made = ChunkHistory("c", ChunkId(InodeId(1), 0), BLOCKS)
        for value in range(1, draw.randint(3, 6)):
            kind = draw.choice(("write", "write", "cut", "read", "read"))
            start_s, first = draw.uniform(0, 6), draw.randrange(BLOCKS)
            values: Values = ()
            if kind == "write":
                values = (value,)
            elif kind == "read":
                values = tuple(draw.choice((0, 0, 1, 2, 3)) for _ in range(first, BLOCKS))
            op = made.begin(kind, "k", start_s, first, values)
            if draw.random() < 0.8:
                op.ended(start_s + draw.uniform(0, 4))
        expected = brute_force(made)
        assert (judge(made) is None) is expected, "\n".join(map(str, made.ops))
        verdicts[expected] += 1
    assert min(verdicts.values()) > 40, verdicts


def test_versions_that_go_back_are_found() -> None:
    made = history(("read", 0, 1, 0, (0,)), ("read", 2, 3, 0, (0,)))
    made.ops[0].version, made.ops[1].version = 2, 2
    assert not versions_grow(made)
    made.ops[1].version = 1
    assert "was answered after" in versions_grow(made)
    made.ops[1].start_s = 0.5
    assert not versions_grow(made), "they overlap"


def test_relaxed_reads_may_be_behind_but_not_behind_an_answer() -> None:
    made = history(("write", 0, 1, 0, (1,)), ("write", 2, 4, 0, (2,)), ("cut", 8, 9, 0, ()))
    assert not relaxed_problem(made, 0, 1, 3, 3.5)
    assert not relaxed_problem(made, 0, 2, 3, 3.5)
    assert "acknowledged before" in relaxed_problem(made, 0, 1, 5, 6)
    assert "acknowledged before" in relaxed_problem(made, 0, 0, 5, 6)
    assert "nobody wrote" in relaxed_problem(made, 0, 9, 5, 6)
    assert not relaxed_problem(made, 0, 0, 10, 11)
    assert "acknowledged before" in relaxed_problem(made, 0, 2, 10, 11)


def test_overlaps_are_counted() -> None:
    made = history(("write", 0, 1, 0, (1,)), ("read", 0.5, 0.6, 0, (1,)), ("read", 2, 3, 0, (1,)))
    assert made.overlapping_count() == 2

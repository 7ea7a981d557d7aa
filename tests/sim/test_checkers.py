"""The checkers find what they are for, and nothing else."""

from __future__ import annotations

import pytest

from .checkers import INITIAL, Register, linearizable, replicas_identical


def register(writes: list[tuple[int, float, float]], reads: list[tuple[int, float, float]]) -> Register:
    """A register with this history."""
    made = Register("r")
    for value, start_s, end_s in writes:
        made.wrote(value, start_s, end_s)
    for value, start_s, end_s in reads:
        assert not made.read(value, start_s, end_s)
    return made


INF = float("inf")


@pytest.mark.parametrize(
    ("writes", "reads"),
    [
        ([(1, 0, 1), (2, 2, 3)], [(INITIAL, -1, 0.5), (1, 0.5, 2.5), (2, 2.5, 4)]),
        ([(1, 0, 10), (2, 0, 10)], [(2, 1, 2), (1, 3, 4)]),
        ([(1, 0, INF)], [(INITIAL, 5, 6), (INITIAL, 7, 8)]),
        ([(1, 0, INF)], [(INITIAL, 5, 6), (1, 7, 8), (1, 9, 10)]),
    ],
)
def test_what_is_linearizable_passes(
    writes: list[tuple[int, float, float]], reads: list[tuple[int, float, float]]
) -> None:
    assert not linearizable(register(writes, reads))


@pytest.mark.parametrize(
    ("writes", "reads"),
    [
        ([(1, 0, 1)], [(INITIAL, 2, 3)]),
        ([(1, 0, 1), (2, 2, 3)], [(1, 4, 5)]),
        ([(1, 0, 10), (2, 0, 10)], [(1, 1, 2), (2, 3, 4), (1, 5, 6)]),
        ([(1, 0, 10)], [(1, 1, 2), (INITIAL, 3, 4)]),
        ([(1, 0, INF)], [(1, 1, 2), (INITIAL, 3, 4)]),
    ],
)
def test_stale_and_flickering_reads_are_found(
    writes: list[tuple[int, float, float]], reads: list[tuple[int, float, float]]
) -> None:
    assert linearizable(register(writes, reads))


def test_a_value_from_nowhere_and_from_the_future_is_found() -> None:
    made = register([(1, 5, 6)], [])
    assert "never written" in made.read(7, 0, 1)
    assert "before its write" in made.read(1, 0, 1)


def test_replicas_that_differ_are_named() -> None:
    assert not replicas_identical([("a", {1: "x"}), ("b", {1: "x"})], 1)
    assert "1, 2:" in replicas_identical([("a", {1: "x"}), ("b", {1: "x", 2: "y"})], 1)[0]

"""Range sets and conflict windows against the obvious slow models; the schema's packing."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.kv.conflicts import ConflictWindow
from fs3.kv.ranges import KeyRange, RangeSet, key_after, prefix_end
from fs3.kv.schema import TABLE, key_u32, key_u64, range_of, split_u32, split_u64

POINTS = [bytes([number]) for number in range(12)]
KEYS = st.sampled_from(POINTS)
RANGES = st.tuples(KEYS, KEYS)


def inside(ranges: list[KeyRange]) -> set[bytes]:
    return {point for point in POINTS for begin, end in ranges if begin <= point < end}


@given(st.lists(RANGES, max_size=12), RANGES)
def test_a_range_set_is_the_set_of_its_keys(added: list[KeyRange], asked: KeyRange) -> None:
    ranges = RangeSet()
    for begin, end in added:
        ranges.add(begin, end)
    kept = list(ranges)
    assert all(begin < end for begin, end in kept)
    assert all(one[1] < two[0] for one, two in pairwise(kept)), "disjoint and merged"
    expected = inside(added)
    assert {point for point in POINTS if point in ranges} == expected
    asked_points = inside([asked])
    assert ranges.overlaps(*asked) == bool(asked_points & expected)
    gaps = ranges.gaps(*asked)
    assert inside(gaps) == asked_points - expected
    assert gaps == sorted(gaps)


COMMITS = st.lists(
    st.tuples(st.lists(KEYS, max_size=3), st.lists(RANGES, max_size=2), st.sampled_from([0.0, 0.5, 3.0])),
    max_size=12,
)


@given(COMMITS, st.lists(KEYS, max_size=2), st.lists(RANGES, max_size=2), st.integers(0, 12))
def test_the_window_remembers_exactly_the_last_seconds(
    commits: list[tuple[list[bytes], list[KeyRange], float]],
    keys: list[bytes],
    ranges: list[KeyRange],
    back: int,
) -> None:
    window = ConflictWindow(10, window_s=5.0)
    now_s = 100.0
    history: list[tuple[int, float, set[bytes]]] = []
    version = 10
    for written, cleared, pause_s in commits:
        version += 1
        now_s += pause_s
        window.open_batch(version, now_s)
        half = len(written) // 2
        window.add(written[:half], cleared)
        window.conflicts(max(window.floor, version - 1), [], [(b"", b"\xff")])  # builds the sorted keys early
        window.add(written[half:], [])
        history.append((version, now_s, set(written) | inside(cleared)))
    gone = [at for at, when_s, _ in history if when_s < now_s - 5.0]
    assert window.floor == max(gone, default=10)
    read_version = max(window.floor, version - back)
    changed = set().union(*(points for at, _, points in history if at > read_version))
    assert window.conflicts(read_version, keys, ranges) == bool(changed & (set(keys) | inside(ranges)))
    window.expire(now_s + 6)
    assert window.floor == version and len(window) == 0


def test_a_batch_without_commits_leaves_no_trace() -> None:
    window = ConflictWindow(1)
    window.open_batch(2, 0.0)
    window.abandon_batch()
    window.open_batch(2, 0.0)
    window.add([b"a"], [])
    assert window.conflicts(1, [b"a"], [])
    assert not window.conflicts(2, [b"a"], [])


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_neighbours_of_keys(key: bytes, other: bytes) -> None:
    assert key < key_after(key)
    assert not key < other < key_after(key)
    prefix = b"a" + key
    begin, end = range_of(prefix)
    assert (begin <= other < end) == other.startswith(prefix)
    assert prefix_end(b"a\xff") == b"b"


@given(st.lists(st.integers(0, 2**64 - 1), max_size=4), st.binary(max_size=8))
def test_packed_keys_come_apart_again(numbers: list[int], tail: bytes) -> None:
    key = key_u64(b"TEST", *numbers, tail=tail)
    assert split_u64(key, len(numbers)) == (tuple(numbers), tail)
    small = [number >> 32 for number in numbers]
    assert split_u32(key_u32(b"TEST", *small, tail=tail), len(small)) == (tuple(small), tail)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2), st.lists(st.integers(0, 9), min_size=2))
def test_keys_sort_as_their_numbers(one: list[int], two: list[int]) -> None:
    assert (key_u64(b"TEST", *one) < key_u64(b"TEST", *two[:2])) == (one < two[:2])


def test_the_table_has_no_prefix_twice() -> None:
    assert len({row.prefix for row in TABLE}) == len(TABLE)
    with pytest.raises(struct.error):
        key_u64(b"TEST", 1 << 64)

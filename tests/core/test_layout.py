"""Layout: ranges cut into chunks, and the shuffle that existing files are found by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fs3.ids import ChainId, InodeId
from fs3.layout import Layout, chunk_count, extents, file_chains, shuffle

TABLE = tuple(ChainId(c) for c in range(1, 8))


def test_the_shuffle_is_what_it_was() -> None:
    """If this fails every file that exists is lost: mend the shuffle, never the test."""
    assert shuffle(8, 0) == [4, 6, 2, 0, 5, 1, 7, 3]
    assert shuffle(8, 1) == [2, 7, 6, 3, 4, 0, 1, 5]
    assert shuffle(3, 4_294_967_295) == [1, 0, 2]


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_a_shuffle_is_a_permutation(count: int, seed: int) -> None:
    assert sorted(shuffle(count, seed)) == list(range(count))


@given(st.integers(0, 100), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_chains_of_a_file_are_a_run_of_the_table(first: int, stripe: int, seed: int) -> None:
    chains = file_chains(Layout(first=first, stripe=stripe, seed=seed), TABLE)
    assert len(chains) == len(set(chains)) == min(stripe or len(TABLE), len(TABLE))
    assert set(chains) <= set(TABLE)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 24), st.sampled_from([65_536, 1 << 20, 1 << 26]))
def test_extents_cover_a_range_once_and_in_order(offset: int, length: int, size: int) -> None:
    layout = Layout(chunk_size_bytes=size)
    position = 0
    for extent in extents(InodeId(9), layout, TABLE, offset, length):
        assert extent.position_bytes == position
        assert extent.chunk.chunk_index * size + extent.offset_bytes == offset + position
        assert 0 < extent.length_bytes <= size - extent.offset_bytes
        assert extent.chain == TABLE[extent.chunk.chunk_index % len(TABLE)]
        position += extent.length_bytes
    assert position == length


@given(st.integers(0, 1 << 50), st.sampled_from([65_536, 1 << 20]))
def test_chunk_count_is_what_a_length_reaches(length: int, size: int) -> None:
    assert (chunk_count(length, size) - 1) * size < length <= chunk_count(length, size) * size or length == 0


def test_layouts_that_cannot_be_say_why() -> None:
    assert not Layout().problem()
    assert "power of two" in Layout(chunk_size_bytes=100_000).problem()
    assert "64 MiB" in Layout(chunk_size_bytes=1 << 27).problem()
    assert "stripe" in Layout(stripe=-1).problem()

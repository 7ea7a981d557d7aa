"""The pure parts: planning, replica choice, channels, read-ahead, sums, small contents."""

from __future__ import annotations

from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from fs3.client.channels import Channel, Channels
from fs3.client.memory import BytesToFill, fresh_memory
from fs3.client.open_flags import parse_mode
from fs3.client.outgoing import cut_buffers, piece_sums
from fs3.client.plan import REQUEST_BYTES_MAX, Piece, cut, group, sum_cuts
from fs3.client.readahead import ReadAhead
from fs3.client.selection import HEDGE_MAX_S, HedgeBudget, Latencies, Replicas
from fs3.client.small_content import SmallContent
from fs3.ids import ChainId, ChunkId, InodeId
from fs3.layout import Layout, extents
from fs3.wire.chunk import SUM_BLOCK_BYTES
from fs3.wire.storage import READ_ITEMS_MAX

KIB64 = 64 * 1024
CHAINS = tuple(ChainId(i) for i in range(1, 6))
INODE = InodeId(77)
MIB = 1 << 20


@given(st.integers(0, 3 * MIB), st.integers(0, MIB))
def test_a_range_is_cut_as_the_layout_says(offset: int, length: int) -> None:
    pieces: list[Piece[str]] = []
    memory = memoryview(bytearray(length))
    cut("file", INODE, KIB64, CHAINS, offset, memory, pieces)
    layout = Layout(chunk_size_bytes=KIB64)
    expected = [
        (e.chunk, e.chain, e.offset_bytes, e.length_bytes)
        for e in extents(INODE, layout, CHAINS, offset, length)
    ]
    found = [(p.chunk, p.chain, p.offset_bytes, p.length_bytes) for p in pieces if p.length_bytes]
    assert found == expected
    assert sum(len(p.view) for p in pieces) == length


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 2 * MIB)), max_size=3000))
def test_batches_hold_every_piece_once_and_keep_their_bounds(sizes: list[tuple[int, int]]) -> None:
    pieces = [
        Piece("f", ChainId(chain), ChunkId(INODE, 0), 0, size, memoryview(b"")) for chain, size in sizes
    ]
    batches = group(pieces, lambda piece: f"node{piece.chain % 3}")
    assert sorted(map(id, pieces)) == sorted(id(p) for batch in batches for p in batch.pieces)
    for batch in batches:
        assert {f"node{p.chain % 3}" for p in batch.pieces} == {batch.address}
        assert batch.bytes == sum(p.length_bytes for p in batch.pieces)
        assert len(batch.pieces) <= READ_ITEMS_MAX
        assert batch.bytes <= REQUEST_BYTES_MAX or len(batch.pieces) == 1
        assert len({p.length_bytes >= KIB64 for p in batch.pieces}) == 1


@given(st.integers(0, 200_000), st.lists(st.binary(max_size=70_000), max_size=8))
def test_buffers_are_cut_and_summed_as_if_they_were_joined(offset: int, buffers: list[bytes]) -> None:
    whole = b"".join(buffers)
    cuts = cut_buffers(buffers, offset, KIB64 * 2)
    assert b"".join(bytes(part) for _, _, parts in cuts for part in parts) == whole
    at = offset
    for index, within, parts in cuts:
        assert (index, within) == divmod(at, KIB64 * 2)
        data = b"".join(parts)
        assert within + len(data) <= KIB64 * 2
        sums = tuple(crc32c(data[start:end]) for start, end in sum_cuts(within, len(data)))
        assert piece_sums(parts, within) == sums
        at += len(data)


@given(st.integers(0, 300_000), st.integers(0, 300_000))
def test_sums_are_cut_at_blocks_of_the_chunk(offset: int, length: int) -> None:
    cuts = list(sum_cuts(offset, length))
    assert sum(end - start for start, end in cuts) == length
    for start, end in cuts:
        assert (offset + start) // SUM_BLOCK_BYTES == (offset + end - 1) // SUM_BLOCK_BYTES
        assert start == 0 or (offset + start) % SUM_BLOCK_BYTES == 0


def test_the_least_loaded_unsuspected_replica_is_chosen() -> None:
    replicas = Replicas()
    names = ["a", "b", "c"]
    assert [replicas.choose(names, 0.0) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    replicas.begin("a", 100)
    replicas.begin("b", 50)
    assert replicas.choose(names, 0.0) == "c"
    assert replicas.choose(["a", "b"], 0.0) == "b"
    assert replicas.choose(["a", "b"], 0.0, planned_bytes={"b": 51}) == "a"
    assert replicas.choose(["a", "b"], 0.0, avoid=("b",)) == "a"
    assert replicas.choose(["a"], 0.0, avoid=("a",)) == "a"
    replicas.suspect("c", 0.0)
    assert replicas.choose(names, 0.5) == "b"
    assert replicas.choose(names, 1.5) == "c"
    replicas.end("a", 100)
    replicas.suspect("c", 1.5)
    assert replicas.is_suspected("c", 3.4), "twice as long the second time"
    replicas.trust("c", 0.0)
    assert not replicas.is_suspected("c", 3.4)


def test_hedges_come_at_three_times_the_99th_percentile_and_are_few() -> None:
    latencies = Latencies()
    assert latencies.hedge_after_s(4096) == HEDGE_MAX_S
    for _ in range(64):
        latencies.note(4096, 0.02)
    assert abs(latencies.hedge_after_s(4096) - 0.06) < 1e-9
    assert latencies.hedge_after_s(MIB) == HEDGE_MAX_S, "another size is another matter"
    for _ in range(64):
        latencies.note(4096, 5.0)
    assert latencies.hedge_after_s(4096) == HEDGE_MAX_S
    budget = HedgeBudget()
    assert sum(budget.spend() for _ in range(100)) == 16
    for _ in range(100):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) in (9, 10)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_channels_carry_one_request_and_never_repeat_a_number(steps: list[tuple[int, bool]]) -> None:
    channels = Channels(2)
    out: list[tuple[Channel, ChunkId]] = []
    used: dict[tuple[int, int], None] = {}
    doubts: dict[ChunkId, int] = {}
    for index, in_doubt in steps:
        chunk = ChunkId(INODE, index)
        channel = channels.take(chunk)
        if channel is None:
            if not out:
                continue
            done, its_chunk = out.pop(0)
            channels.give_back(done, its_chunk, in_doubt=in_doubt)
            if in_doubt:
                doubts[its_chunk] = done.number
            elif doubts.get(its_chunk) == done.number:
                del doubts[its_chunk]
            continue
        assert channel.number not in [other.number for other, _ in out]
        assert (channel.number, channel.sequence) not in used
        assert doubts.get(chunk, channel.number) == channel.number, "what is in doubt is followed up"
        used[channel.number, channel.sequence] = None
        out.append((channel, chunk))


def test_read_ahead_begins_with_the_second_sequential_read_and_grows() -> None:
    pattern = ReadAhead(8 * MIB)
    assert pattern.on_read(0, 100_000, 100 * MIB) is None
    fetches, at, ahead = [], 100_000, 100_000
    for _ in range(300):
        fetch = pattern.on_read(at, 100_000, 100 * MIB)
        at += 100_000
        if fetch is not None:
            assert fetch.offset_bytes >= ahead
            ahead = fetch.offset_bytes + fetch.length_bytes
            fetches.append(fetch.length_bytes)
        assert ahead - at <= 9 * MIB
    assert fetches[0] <= 2 * MIB and max(fetches) >= 4 * MIB
    assert pattern.on_read(5, 10, 100 * MIB) is None and not pattern.is_sequential


@given(st.lists(st.tuples(st.integers(0, 100 * MIB), st.integers(1, MIB)), min_size=1, max_size=50))
def test_random_reads_fetch_nothing(reads: list[tuple[int, int]]) -> None:
    pattern, end = ReadAhead(8 * MIB), -1
    for offset, length in reads:
        if offset != end:
            assert pattern.on_read(offset, length, 200 * MIB) is None
        end = offset + length if offset != end else -1
        if end == -1:
            pattern.reset()


EDITS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 50), st.binary(max_size=20)),
        st.tuples(st.none(), st.binary(max_size=20)),
        st.tuples(st.integers(0, 50), st.none()),
    ),
    max_size=20,
)


@given(st.binary(max_size=40), st.binary(max_size=40), EDITS)
def test_edits_can_be_made_again_on_another_base(
    base: bytes, other: bytes, edits: list[tuple[int | None, bytes | None]]
) -> None:
    def edited(start: bytes) -> SmallContent:
        content = SmallContent(start)
        for offset, data in edits:
            if data is not None:
                content.write(offset, data)
            elif offset is not None:
                content.truncate(offset)
        return content

    small = edited(base)
    small.rebase(other)
    assert small.content == edited(other).content
    small.stored()
    small.rebase(base)
    assert small.content == base


def test_modes_mean_what_they_mean_in_python() -> None:
    assert parse_mode("rb") == parse_mode("br")
    flags = parse_mode("a+b")
    assert flags.readable and flags.writable and flags.append and flags.creates and not flags.truncates


@given(st.integers(0, 300_000), st.integers(0, 300_000))
def test_bytes_are_filled_in_place(size: int, cut_to: int) -> None:
    room = BytesToFill(size)
    assert bytes(room.view) == bytes(size)
    room.view[: size // 2] = b"x" * (size // 2)
    count = min(size, cut_to)
    assert room.taken(count) == (b"x" * (size // 2)).ljust(size, b"\0")[:count]
    memory = fresh_memory(size)
    assert not memory.readonly and memory == bytes(size)

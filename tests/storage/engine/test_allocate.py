"""Blocks are handed out once, rest when they must, and space is what it is said to be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fs3.storage.engine.allocate import CLASSES, Allocator, Block, class_for

MIB = 1 << 20
CAPACITY_BYTES = 64 * MIB


@given(st.integers(1, 64 * MIB))
def test_the_class_is_the_smallest_that_holds_it(length_bytes: int) -> None:
    size_class = class_for(length_bytes)
    assert length_bytes <= 1 << size_class
    assert size_class == min(CLASSES) or length_bytes > 1 << (size_class - 1)


def test_space_grows_by_doubling_up_to_a_group_and_over_the_files() -> None:
    allocator = Allocator(64 * MIB, 16 * MIB)
    grown = []
    while growth := allocator.growth(20, 1 << 40, 0.0):
        allocator.grown(growth)
        grown.append((growth.file_number, growth.offset_bytes // MIB, growth.length_bytes // MIB))
        if growth.file_number == 1:
            break
    assert grown == [
        (0, 0, 1),
        (0, 1, 1),
        (0, 2, 2),
        (0, 4, 4),
        (0, 8, 8),
        (0, 16, 16),
        (0, 32, 16),
        (0, 48, 16),
        (1, 0, 16),
    ]
    assert allocator.place(Block(20, 63)) == (0, 63 * MIB)
    assert allocator.place(Block(20, 64)) == (1, 0)


def test_a_reserve_is_left_for_the_time_after_an_open() -> None:
    def filled(opened: bool) -> int:
        allocator = Allocator(64 * MIB, MIB)
        if opened:
            allocator.start({20: 1}, {20: 1}, cool_at_s=30.0)
        while growth := allocator.growth(16, 10 * MIB, 1.0):
            allocator.grown(growth)
        return allocator.prepared_bytes

    assert 10 * MIB * 0.98 < filled(opened=False) <= 10 * MIB * 0.99
    assert filled(opened=True) == 10 * MIB


def test_what_a_record_names_must_be_there() -> None:
    for high, prepared, outside in [(5, 5, None), (4, 9, Block(16, 4)), (9, 4, Block(16, 4))]:
        allocator = Allocator(64 * MIB, MIB)
        assert allocator.occupy(Block(16, 4))
        assert not allocator.occupy(Block(16, 4))
        assert allocator.start({16: high}, {16: prepared}, 0.0) == outside


def test_giving_back_twice_is_a_bug() -> None:
    allocator = Allocator(64 * MIB, MIB)
    growth = allocator.growth(16, MIB * 10, 0.0)
    assert growth is not None
    allocator.grown(growth)
    block = allocator.take(16, 0.0)
    assert block is not None
    allocator.give_back(block)
    with pytest.raises(KeyError):
        allocator.give_back(block)


class AllocatorMachine(RuleBasedStateMachine):
    """Against sets: what is used, what is held, what was ever used before the open."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(64 * MIB, 2 * MIB)
        self.now_s = 0.0
        self.cool_at_s = 0.0
        self.used: list[Block] = []
        self.held: list[Block] = []
        self.cooling: set[Block] = set()

    @rule(size_class=st.integers(16, 21))
    def take(self, size_class: int) -> None:
        block = self.allocator.take(size_class, self.now_s)
        if block is None:
            growth = self.allocator.growth(size_class, CAPACITY_BYTES, self.now_s)
            if growth is None:
                return
            self.allocator.grown(growth)
            block = self.allocator.take(size_class, self.now_s)
        assert block is not None and block.size_class == size_class
        assert block not in self.used and block not in self.held
        assert self.now_s >= self.cool_at_s or block not in self.cooling
        self.used.append(block)

    @precondition(lambda self: self.used)
    @rule(pick=st.integers(0, 1000), hold=st.booleans())
    def give_back(self, pick: int, hold: bool) -> None:
        block = self.used.pop(pick % len(self.used))
        if hold:
            self.allocator.hold(block)
            self.allocator.hold(block)
            self.held += [block, block]
        self.allocator.give_back(block)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 1000))
    def release(self, pick: int) -> None:
        self.allocator.release(self.held.pop(pick % len(self.held)))

    @rule(wanted_mib=st.integers(1, 64))
    def shrink(self, wanted_mib: int) -> None:
        before_bytes = self.allocator.prepared_bytes
        for size_class, kept in self.allocator.shrink(wanted_mib * MIB):
            assert all(block.number < kept for block in self.used + self.held if block[0] == size_class)
        assert self.allocator.prepared_bytes <= before_bytes

    @rule(wait_s=st.sampled_from((1.0, 31.0)))
    def wait(self, wait_s: float) -> None:
        self.now_s += wait_s

    @rule()
    def open_again(self) -> None:
        old, self.allocator = self.allocator, Allocator(64 * MIB, 2 * MIB)
        self.held = []
        self.cool_at_s = self.now_s + 30.0
        self.cooling = set()
        high = {size_class: old.high(size_class) for size_class in CLASSES}
        prepared = {size_class: old.prepared(size_class) for size_class in CLASSES}
        for block in self.used:
            assert self.allocator.occupy(block)
        for size_class, count in high.items():
            self.cooling |= {Block(size_class, number) for number in range(count)} - set(self.used)
        assert self.allocator.start(high, prepared, self.cool_at_s) is None

    @invariant()
    def figures_add_up(self) -> None:
        allocator = self.allocator
        assert allocator.used_bytes == sum(block.size_bytes for block in self.used)
        assert allocator.held_count() == len(set(self.held))
        assert 0 <= allocator.free_bytes() <= allocator.prepared_bytes <= CAPACITY_BYTES


TestAllocator = AllocatorMachine.TestCase
TestAllocator.settings = settings(stateful_step_count=40)

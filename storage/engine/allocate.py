"""Blocks: which are used, which are free, which must rest before they are used again. PURE.

A block is a power of two of bytes, 64 KiB … 64 MiB (its *size class* is the exponent), and lies at
``number * size`` of the files of its class, cut into files of ``file_bytes``. Per class::

    0 ........ high ........ prepared
    handed out once  fresh    not taken from the disk yet

* Blocks below ``high`` were handed out at some time. Free ones are used first (the lowest: the high end
  stays empty), so that fresh ones are left for the time when nothing else may be used.
* A freed block rests as long as a reader holds it; all that were free at an open rest for a while, since
  sends of the process before may still refer to them (design 4.1).
* ``high`` is stored with the records that use the block; ``prepared`` is the size of the files. The rest
  is rebuilt at open from the records.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

MIN_CLASS = 16
MAX_CLASS = 26
CLASSES = range(MIN_CLASS, MAX_CLASS + 1)
RESERVE_SHARE = 0.01
"""Part of the capacity that is taken only while freed blocks rest after an open."""
_FIRST_GROWTH_BYTES = 1024 * 1024


class Block(NamedTuple):
    """A block of a store."""

    size_class: int
    number: int

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return 1 << self.size_class


class Growth(NamedTuple):
    """Space to take from the disk before more blocks can be handed out."""

    size_class: int
    file_number: int
    offset_bytes: int
    length_bytes: int


def class_for(length_bytes: int) -> int:
    """The smallest class that holds so many bytes (1 … 64 MiB)."""
    assert 0 < length_bytes <= 1 << MAX_CLASS, length_bytes
    return max(MIN_CLASS, (length_bytes - 1).bit_length())


@dataclass(slots=True)
class _Class:
    high: int = 0
    prepared: int = 0
    used: set[int] = field(default_factory=set)
    free: list[int] = field(default_factory=list)
    """A heap of numbers below ``high``, free and rested."""
    cooling: list[int] = field(default_factory=list)
    """Free at the open; joins ``free`` when the pause is over."""


class Allocator:
    """The free map of one store."""

    def __init__(self, file_bytes: int, group_bytes: int) -> None:
        assert file_bytes % (1 << MAX_CLASS) == 0 and file_bytes > 0, file_bytes
        self._file_bytes = file_bytes
        self._group_bytes = group_bytes
        self._classes = {size_class: _Class() for size_class in CLASSES}
        self._readers: dict[Block, int] = {}
        self._resting: dict[Block, None] = {}
        self._cool_at_s = 0.0
        self._cooling_count = 0
        self.used_bytes = 0
        self.resting_bytes = 0
        self.prepared_bytes = 0

    # -- open

    def occupy(self, block: Block) -> bool:
        """A record names this block. False: another one did before."""
        used = self._classes[block.size_class].used
        if block.number in used:
            return False
        used.add(block.number)
        self.used_bytes += block.size_bytes
        return True

    def start(self, high: dict[int, int], prepared: dict[int, int], cool_at_s: float) -> Block | None:
        """All records have been seen: build the free map; free blocks may be used from ``cool_at_s`` on.

        Returns a block that lies outside of what is prepared or was handed out (the store is damaged).
        """
        self._cool_at_s = cool_at_s
        for size_class, blocks in self._classes.items():
            blocks.high = high.get(size_class, 0)
            blocks.prepared = prepared.get(size_class, 0)
            # Files shorter than the mark were cut by ``shrink``: what they get again is new.
            blocks.high = min(blocks.high, blocks.prepared)
            last = max(blocks.used, default=-1)
            if last >= blocks.high:
                return Block(size_class, last)
            blocks.cooling = [number for number in range(blocks.high) if number not in blocks.used]
            self._cooling_count += len(blocks.cooling)
            self.resting_bytes += len(blocks.cooling) << size_class
            self.prepared_bytes += blocks.prepared << size_class
        return None

    # -- taking and giving

    def take(self, size_class: int, now_s: float) -> Block | None:
        """A block to write into; None: space must be taken first (``growth``)."""
        self._cool(now_s)
        blocks = self._classes[size_class]
        if blocks.free:
            number = heapq.heappop(blocks.free)
        elif blocks.high < blocks.prepared:
            number = blocks.high
            blocks.high += 1
        else:
            return None
        assert number not in blocks.used, (size_class, number)
        blocks.used.add(number)
        self.used_bytes += 1 << size_class
        return Block(size_class, number)

    def give_back(self, block: Block) -> None:
        """No record names the block any more (durably). It can be taken when no reader holds it."""
        blocks = self._classes[block.size_class]
        blocks.used.remove(block.number)
        self.used_bytes -= block.size_bytes
        if block in self._readers:
            self._resting[block] = None
            self.resting_bytes += block.size_bytes
        else:
            heapq.heappush(blocks.free, block.number)

    def hold(self, block: Block) -> None:
        """A reader wants the block's bytes to stay."""
        self._readers[block] = self._readers.get(block, 0) + 1

    def release(self, block: Block) -> None:
        """A reader is done."""
        count = self._readers[block] - 1
        if count:
            self._readers[block] = count
            return
        del self._readers[block]
        if block in self._resting:
            del self._resting[block]
            self.resting_bytes -= block.size_bytes
            heapq.heappush(self._classes[block.size_class].free, block.number)

    def held_count(self) -> int:
        """Blocks that readers hold."""
        return len(self._readers)

    def _cool(self, now_s: float) -> None:
        if not self._cooling_count or now_s < self._cool_at_s:
            return
        for size_class, blocks in self._classes.items():
            self.resting_bytes -= len(blocks.cooling) << size_class
            blocks.free = list(heapq.merge(sorted(blocks.free), blocks.cooling))
            blocks.cooling = []
        self._cooling_count = 0

    # -- space

    def growth(self, size_class: int, capacity_bytes: int, now_s: float) -> Growth | None:
        """The next space to take for a class under a capacity; None: there is none left.

        A class grows by what it has, from 1 MiB up to a group, so that a store with few chunks stays small.
        """
        blocks, size_bytes = self._classes[size_class], 1 << size_class
        resting = self._cooling_count > 0 and now_s < self._cool_at_s
        limit_bytes = capacity_bytes if resting else int(capacity_bytes * (1 - RESERVE_SHARE))
        start_bytes = blocks.prepared * size_bytes
        wanted_bytes = min(self._group_bytes, max(start_bytes, _FIRST_GROWTH_BYTES))
        file_left_bytes = self._file_bytes - start_bytes % self._file_bytes
        room_bytes = min(max(wanted_bytes, size_bytes), file_left_bytes, limit_bytes - self.prepared_bytes)
        count = room_bytes // size_bytes
        if count < 1:
            return None
        number, offset_bytes = divmod(start_bytes, self._file_bytes)
        return Growth(size_class, number, offset_bytes, count * size_bytes)

    def grown(self, growth: Growth) -> None:
        """The space has been taken."""
        self._classes[growth.size_class].prepared += growth.length_bytes >> growth.size_class
        self.prepared_bytes += growth.length_bytes

    def shrink(self, wanted_bytes: int) -> list[tuple[int, int]]:
        """Give space back to the disk: (class, blocks that stay prepared), from the high ends of the classes.

        Only blocks that nobody uses or reads and that have rested. Space that was cut off and is taken
        again is new: sends that refer to what was there keep their own pages.
        """
        cuts: list[tuple[int, int]] = []
        for size_class in reversed(CLASSES):
            if wanted_bytes <= 0:
                break
            kept = self._last_needed(size_class)
            blocks = self._classes[size_class]
            if kept < blocks.prepared:
                freed_bytes = (blocks.prepared - kept) << size_class
                wanted_bytes -= freed_bytes
                self.prepared_bytes -= freed_bytes
                blocks.prepared = kept
                blocks.high = min(blocks.high, kept)
                blocks.free = sorted(number for number in blocks.free if number < kept)
                cuts.append((size_class, kept))
        return cuts

    def _last_needed(self, size_class: int) -> int:
        blocks = self._classes[size_class]
        resting = (block.number for block in self._resting if block.size_class == size_class)
        needed: Iterable[int] = (*resting, *blocks.cooling, *blocks.used)
        return max(needed, default=-1) + 1

    def high(self, size_class: int) -> int:
        """Blocks below this number were handed out at some time."""
        return self._classes[size_class].high

    def prepared(self, size_class: int) -> int:
        """Blocks that the disk has space for."""
        return self._classes[size_class].prepared

    def free_bytes(self) -> int:
        """Bytes that can be handed out now without taking space from the disk."""
        return self.prepared_bytes - self.used_bytes - self.resting_bytes

    def place(self, block: Block) -> tuple[int, int]:
        """(file number, offset in it) of a block."""
        return divmod(block.number << block.size_class, self._file_bytes)

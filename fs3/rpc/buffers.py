"""Memory for payloads: page aligned, so that it can go to disks with O_DIRECT as it is (design 5.3).

``BufferPool`` admits at most so many bulk payloads at a time in the process, and hands out the buffer that
was used last: the one whose pages are there already, and perhaps in the cache.
"""

from __future__ import annotations

import mmap
import threading

PAGE_BYTES = mmap.PAGESIZE
KEEP_BYTES = 4 << 20
"""Memory that a buffer keeps when it comes back; what a longer payload touched goes back to the kernel."""
_MAP_NORESERVE = 0x4000  # linux/mman.h; Python has no name for it
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE


def aligned_payload(size_bytes: int) -> memoryview:
    """Fresh zeroed memory of this length, page aligned; freed when the last view of it is gone."""
    return memoryview(mmap.mmap(-1, max(size_bytes, 1), _FLAGS))[:size_bytes]


class BufferPool:
    """At most ``count`` buffers of ``size_bytes`` address space each, last in first out. Thread-safe.

    Address space costs nothing until it is touched: a buffer takes as much memory as its payloads had.
    """

    def __init__(self, count: int, size_bytes: int) -> None:
        assert count > 0 and size_bytes > 0, (count, size_bytes)
        self.count = count
        self.size_bytes = size_bytes
        self._free: list[mmap.mmap] = []
        self._made = 0
        self._condition = threading.Condition()

    def take(self, timeout_s: float) -> mmap.mmap | None:
        """A buffer, or None when none came back in time. ``give`` it back."""
        with self._condition:
            if not self._condition.wait_for(self._has_one, timeout_s):
                return None
            if self._free:
                return self._free.pop()
            self._made += 1
        return mmap.mmap(-1, self.size_bytes, _FLAGS)

    def _has_one(self) -> bool:
        return bool(self._free) or self._made < self.count

    def give(self, buffer: mmap.mmap, used_bytes: int) -> None:
        """Take a buffer back; ``used_bytes`` is what was touched of it."""
        if used_bytes > KEEP_BYTES:
            buffer.madvise(mmap.MADV_DONTNEED, KEEP_BYTES)
        with self._condition:
            self._free.append(buffer)
            self._condition.notify()

    @property
    def taken(self) -> int:
        """Buffers in use now."""
        with self._condition:
            return self._made - len(self._free)

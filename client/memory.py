"""Memory to read into, and ``bytes`` that were filled in place.

``bytearray(n)`` writes zeros over all of it and ``bytes(bytearray)`` copies all of it: for large reads both
cost as much as receiving. ``bytes(n)`` takes zeroed pages from the kernel as they are touched, and
``io.BytesIO`` lends such an object for writing and gives it back uncopied while nobody else holds it.
"""

from __future__ import annotations

import io


def fresh_memory(size_bytes: int) -> memoryview:
    """Writable memory of its own, zero all over."""
    return io.BytesIO(bytes(size_bytes)).getbuffer()


class BytesToFill:
    """A ``bytes`` object in the making: fill ``view``, then ``taken(count)`` once."""

    __slots__ = ("_holder", "view")

    def __init__(self, size_bytes: int) -> None:
        self._holder = io.BytesIO(bytes(size_bytes))
        self.view = self._holder.getbuffer()

    def taken(self, count: int) -> bytes:
        """The first ``count`` bytes; nothing may be written afterwards."""
        size_bytes = len(self.view)
        self.view.release()
        return self._holder.getvalue() if count == size_bytes else self._holder.read(count)

"""Read-ahead: what to fetch before it is asked for. PURE.

A file is read sequentially when a read begins where the last one ended. The window starts small with the
second such read and doubles with each, up to the file's bound; a read elsewhere ends it. So random reads
fetch nothing that was not asked for.

Source: design 6.2.
"""

from __future__ import annotations

from typing import NamedTuple

FIRST_WINDOW_BYTES = 1 << 20
ALIGN_BYTES = 1 << 20
"""Windows end at multiples of this, so that a chunk is rarely fetched in two parts."""


class Fetch(NamedTuple):
    """A range to fetch now."""

    offset_bytes: int
    length_bytes: int


class ReadAhead:
    """The pattern of one open file's reads."""

    def __init__(self, window_bytes_max: int) -> None:
        self._max_bytes = window_bytes_max
        self._next_bytes = -1
        self._window_bytes = 0
        self._refill_bytes = 0
        """Fetch again when so little of what was fetched is left."""
        self._fetched_to_bytes = 0

    @property
    def is_sequential(self) -> bool:
        """The last reads followed one another."""
        return self._window_bytes > 0

    def on_read(self, offset_bytes: int, length_bytes: int, file_bytes: int) -> Fetch | None:
        """A read was asked for; what to fetch beyond it now (chunks of the window not fetched yet).

        A fetch begins when half of the window has been read, so that several reads share one.
        """
        end_bytes = offset_bytes + length_bytes
        sequential = offset_bytes == self._next_bytes
        self._next_bytes = end_bytes
        if not sequential or not self._max_bytes:
            self._window_bytes = 0
            self._fetched_to_bytes = end_bytes
            return None
        if not self._window_bytes:
            self._window_bytes = min(max(FIRST_WINDOW_BYTES, length_bytes), self._max_bytes)
            self._refill_bytes = self._window_bytes // 2
            self._fetched_to_bytes = end_bytes
        self._fetched_to_bytes = max(self._fetched_to_bytes, end_bytes)
        if self._fetched_to_bytes - end_bytes > self._refill_bytes:
            return None
        start_bytes = self._fetched_to_bytes
        whole_bytes = -(-(end_bytes + self._window_bytes) // ALIGN_BYTES) * ALIGN_BYTES
        stop_bytes = min(whole_bytes, file_bytes)
        self._refill_bytes = self._window_bytes // 2
        self._window_bytes = min(self._window_bytes * 2, self._max_bytes)
        if stop_bytes <= start_bytes:
            return None
        self._fetched_to_bytes = stop_bytes
        return Fetch(start_bytes, stop_bytes - start_bytes)

    def reset(self) -> None:
        """Forget the pattern: what was fetched is no longer true."""
        self._next_bytes = -1
        self._window_bytes = 0

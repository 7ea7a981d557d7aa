"""Write channels of a client session: one request at a time each, numbered, so that a retry is known. PURE.

A channel's number goes up with each *new* request; a retry repeats it. Chains remember the last request of
each channel, so a request is applied once, however often it is sent (design 4.5).

A request that was given up without an answer may still be under way and be applied late. The chain refuses
it as soon as it has seen the channel's next request; therefore the next update of *that chunk* takes
*that channel* ("in doubt"), and cannot be overtaken by it.
"""

from __future__ import annotations

from fs3.ids import ChunkId

CHANNELS_MAX = 256
DOUBTS_MAX = 65_536
"""Chunks remembered as in doubt; beyond, the oldest is forgotten: its request is minutes old by then."""


class Channel:
    """One channel, while somebody has it."""

    __slots__ = ("number", "sequence")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sequence = 0


class Channels:
    """The channels of one session. ``take`` before a request, ``give_back`` when it is over."""

    def __init__(self, count: int = CHANNELS_MAX) -> None:
        assert 0 < count <= CHANNELS_MAX, count
        self._free = {number: Channel(number) for number in range(count)}
        self._doubts: dict[ChunkId, int] = {}

    def take(self, chunk: ChunkId) -> Channel | None:
        """A channel for one new request to ``chunk``, its sequence raised; None: all (or the one that must
        be taken) are in use, wait until one is given back."""
        wanted = self._doubts.get(chunk)
        if wanted is not None:
            channel = self._free.pop(wanted, None)
        elif self._free:
            channel = self._free.popitem()[1]
        else:
            channel = None
        if channel is not None:
            channel.sequence += 1
        return channel

    def give_back(self, channel: Channel, chunk: ChunkId, *, in_doubt: bool) -> None:
        """The request is over; ``in_doubt``: without an answer, so it may still be applied."""
        assert channel.number not in self._free, channel.number
        self._free[channel.number] = channel
        if in_doubt:
            self._doubts.pop(chunk, None)
            self._doubts[chunk] = channel.number
            if len(self._doubts) > DOUBTS_MAX:
                del self._doubts[next(iter(self._doubts))]
        elif self._doubts.get(chunk) == channel.number:
            del self._doubts[chunk]

    @property
    def free_count(self) -> int:
        """Channels that nobody has."""
        return len(self._free)

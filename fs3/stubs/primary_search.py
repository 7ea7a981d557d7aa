"""Looking for the primary among the mgmtds, once for all tasks of a process.

After a primary is lost everybody looks for the next one. A process has a follower of routing, a reporter and
many that want newer routing at once; if each asked all mgmtds by itself, the next primary would begin under
ten times the calls that it needs. So a search is shared, and after one in vain none begins for a while.

Source: design 2.4 (a lost primary is looked for again within 100 ms).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..clock import Clock
from ..errors import Busy, Fs3Error, MaybeApplied, Retryable, Unavailable
from ..rng import Rng
from ..routing import NodeKind, RoutingInfo
from ..rpc.service import Caller
from ..wire.mgmtd import GET_ROUTING, GetRoutingRequest

CALL_TIMEOUT_S = 0.5
"""Longest wait for one answer of a mgmtd that is asked whether it is primary."""
PAUSE_S = 0.1
"""After the first search in vain."""
PAUSE_MAX_S = 0.4
"""While no mgmtd is primary everybody looks for one: more and more rarely, up to this."""

SHORTEST_S = 0.001
"""Two clocks differ: what is left of a pause by one may be nothing by the other."""


class PrimarySearch:
    """Finds the primary. ``seeds``: RPC addresses of some mgmtds; others are learnt from routing."""

    def __init__(self, caller: Caller, seeds: Sequence[str], clock: Clock, rng: Rng) -> None:
        assert seeds, "no mgmtd to ask"
        self._caller = caller
        self._seeds = tuple(dict.fromkeys(seeds))
        self._learnt: tuple[str, ...] = ()
        self._clock = clock
        self._rng = rng
        self._turn = 0
        self._address = ""
        self._known = asyncio.Event()
        self._under_way: asyncio.Event | None = None
        """Set when the present search ends; None: there is none."""
        self._vain_count = 0
        self._next_s = 0.0
        self._last: Retryable = Unavailable("no mgmtd was asked")

    @property
    def address(self) -> str:
        """Of the primary as last known; empty: to be found."""
        return self._address

    def found(self, address: str) -> None:
        """Somebody is the primary, as its own answer or a mgmtd's hint says; empty: nobody is known to be."""
        self._address = address
        if address:
            self._vain_count = 0
            self._known.set()
            self._known = asyncio.Event()

    def lost(self, address: str) -> None:
        """It did not answer as a primary."""
        if self._address == address:
            self._address = ""

    def learn(self, routing: RoutingInfo) -> None:
        """Take further mgmtds from routing."""
        found = (node.address for node in routing.alive(NodeKind.MGMTD))
        self._learnt = tuple(a for a in found if a and a not in self._seeds)

    async def find(self, timeout_s: float, *, waits: bool) -> str:
        """The primary's address: the known one, or whom one search finds.

        After a search in vain the next one begins some time later. ``waits``: so does this call; else it
        fails at once, as that search did.

        Raises Unavailable (no mgmtd is reached) or Busy (some are, and stand by: one of them will be primary
        in seconds).
        """
        deadline_s = self._clock.boot_s() + timeout_s
        while not self._address:
            left_s = deadline_s - self._clock.boot_s()
            pause_s = self._next_s - self._clock.boot_s()
            if left_s <= 0 or (pause_s > 0 and not waits):
                raise self._again()
            if self._under_way is not None:
                await _set_within(self._under_way, left_s)
            elif pause_s > 0:
                await _set_within(self._known, min(pause_s, left_s))
            else:
                return await self._search(left_s)
        return self._address

    def _again(self) -> Retryable:
        """What the last search came to, as an error of its own for each who is told."""
        return type(self._last)(f"no primary mgmtd found: {self._last}")

    async def _search(self, timeout_s: float) -> str:
        ended = self._under_way = asyncio.Event()
        try:
            self._last = await self._ask_each(timeout_s)
            if self._address:
                return self._address
            self._vain_count += 1
            longest_s = min(PAUSE_S * (1 << min(self._vain_count - 1, 8)), PAUSE_MAX_S)
            self._next_s = self._clock.boot_s() + longest_s * (0.5 + self._rng.random() / 2)
            raise self._again()
        finally:
            self._under_way = None
            ended.set()

    async def _ask_each(self, timeout_s: float) -> Retryable:
        """Ask each mgmtd in turn, follow hints, and note the primary; else: why there is none."""
        places = [*self._seeds, *self._learnt]
        self._turn += 1
        places = places[self._turn % len(places) :] + places[: self._turn % len(places)]
        deadline_s = self._clock.boot_s() + timeout_s
        last: Fs3Error = Unavailable("no mgmtd is primary")
        asked: dict[str, None] = {}
        some_stand_by = False
        while places and not self._address:
            address = places.pop(0)
            left_s = deadline_s - self._clock.boot_s()
            if address in asked or left_s <= 0:
                continue
            asked[address] = None
            try:
                request = GetRoutingRequest(known_version=1 << 62)  # nothing is newer: only who answers
                wait_s = min(CALL_TIMEOUT_S, left_s)
                answer = await self._caller.call(address, GET_ROUTING, request, timeout_s=wait_s)
            except (Retryable, MaybeApplied) as error:
                last = error
                continue
            if answer.is_primary:
                self.found(address)
                break
            some_stand_by = True
            if answer.primary_address:
                places.insert(0, answer.primary_address)
        return Busy(str(last)) if some_stand_by else Unavailable(str(last))


async def _set_within(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for ``event``, so long at most."""
    try:
        async with asyncio.timeout(max(timeout_s, SHORTEST_S)):
            await event.wait()
    except TimeoutError:
        return

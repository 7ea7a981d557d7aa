"""Looking for the primary among the mgmtds, once for all tasks of a process.

After a primary is lost everybody looks for the next one. A process has a follower of routing, a reporter and
many that want newer routing at once; if each asked all mgmtds again and again, the next primary would begin
under the calls of those who wait for it. So a search is shared; the first one asks who is primary, the ones
after it ask to be told as soon as there is one, and after one in vain none begins for a while.

Source: design 2.4 (a lost primary is looked for again within 100 ms).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..clock import SHORTEST_WAIT_S, Clock
from ..errors import Busy, Fs3Error, MaybeApplied, Retryable, Unavailable
from ..rng import Rng
from ..routing import NodeKind, RoutingInfo
from ..rpc.service import Caller
from ..tasks import TaskScope
from ..wire.mgmtd import GET_ROUTING, NOTHING_NEWER, GetRoutingRequest, GetRoutingResponse

ANSWER_TIMEOUT_S = 0.5
"""Longest wait for one answer of a mgmtd, beyond what it was asked to wait."""
TELL_S = 2.0
"""So long a standby is asked to wait for a primary before it says that there is none."""
PAUSE_S = 0.1
"""After the first failure."""
PAUSE_MAX_S = 0.4
"""While no mgmtd is primary everybody looks for one: more and more rarely, up to this."""


class PrimarySearch:
    """Finds the primary. ``seeds``: RPC addresses of some mgmtds; others are learnt from routing."""

    def __init__(self, caller: Caller, seeds: Sequence[str], clock: Clock, rng: Rng) -> None:
        assert seeds, "no mgmtd to ask"
        self._caller = caller
        self._seeds = tuple(dict.fromkeys(seeds))
        self._learnt: tuple[str, ...] = ()
        self._clock = clock
        self._rng = rng
        self._address = ""
        self._lost = ""
        """Who was primary before: a standby that still names it knows nothing new."""
        self._news = asyncio.Event()
        """Set, and replaced, when a primary becomes known or a search ends."""
        self._is_under_way = False
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
            self._tell()

    def lost(self, address: str) -> None:
        """It did not answer as a primary."""
        if self._address == address:
            self._address, self._lost = "", address

    def learn(self, routing: RoutingInfo) -> None:
        """Take further mgmtds from routing."""
        found = (node.address for node in routing.alive(NodeKind.MGMTD))
        self._learnt = tuple(a for a in found if a and a not in self._seeds)

    async def find(self, timeout_s: float, *, waits: bool) -> str:
        """The primary's address: the known one, or whom one search finds.

        While there is none, ``waits`` is to wait for the search under way or the next one; else the call
        fails at once, as the last search did.

        Raises Unavailable (no mgmtd is reached) or Busy (some are, and stand by: one of them will be primary
        in seconds).
        """
        deadline_s = self._clock.boot_s() + timeout_s
        while not self._address:
            now_s = self._clock.boot_s()
            left_s, pause_s = deadline_s - now_s, self._next_s - now_s
            if left_s <= 0 or (self._vain_count and not waits):
                raise self._again()
            if self._is_under_way:
                await self._hear(left_s)
            elif pause_s > 0:
                await self._hear(min(pause_s, left_s))
            else:
                return await self._search(left_s)
        return self._address

    def _again(self) -> Retryable:
        """What the last search came to, as an error of its own for each who is told."""
        return type(self._last)(f"no primary mgmtd found: {self._last}")

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _hear(self, timeout_s: float) -> None:
        """Wait for news, so long at most."""
        try:
            async with asyncio.timeout(max(timeout_s, SHORTEST_WAIT_S)):
                await self._news.wait()
        except TimeoutError:
            return

    async def _search(self, timeout_s: float) -> str:
        self._is_under_way = True
        try:
            self._last = await self._ask_all(timeout_s)
        finally:
            self._is_under_way = False
            self._tell()
        if self._address:
            return self._address
        self._vain_count += 1
        self._next_s = self._clock.boot_s() + pause_after_s(self._vain_count, self._rng)
        raise self._again()

    async def _ask_all(self, timeout_s: float) -> Retryable:
        """Ask all mgmtds at the same time, follow hints, and note the primary; else: why there is none."""
        tell_s = min(TELL_S, timeout_s) if self._vain_count else 0.0  # the first is to know, not to wait
        last: Fs3Error = Unavailable("no mgmtd is primary")
        some_stand_by = False
        asked: dict[str, None] = {}
        waiting: dict[str, asyncio.Task[GetRoutingResponse | Fs3Error]] = {}
        async with TaskScope("find the primary", _none_spawned) as scope:

            def ask(address: str) -> None:
                asked[address] = None
                waiting[address] = scope.start(f"ask {address}", self._ask(address, tell_s, timeout_s))

            for address in (*self._seeds, *self._learnt):
                ask(address)
            while waiting and not self._address:
                news = scope.start("hear", self._news.wait())  # somebody else may learn who it is
                await asyncio.wait([news, *waiting.values()], return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                for address in [a for a, task in waiting.items() if task.done()]:
                    answer = waiting.pop(address).result()
                    if isinstance(answer, Fs3Error):
                        last = answer
                        continue
                    some_stand_by = True
                    hint = answer.primary_address
                    if answer.is_primary:
                        self.found(address)
                    elif hint and hint not in asked:
                        ask(hint)
        return Busy(str(last)) if some_stand_by else Unavailable(str(last))

    async def _ask(self, address: str, tell_s: float, timeout_s: float) -> GetRoutingResponse | Fs3Error:
        """Whether it is primary; a standby says so after ``tell_s``, or when it knows of another one."""
        request = GetRoutingRequest(
            known_version=NOTHING_NEWER, wait_ms=int(tell_s * 1000), lost_address=self._lost
        )
        try:
            wait_s = min(tell_s + ANSWER_TIMEOUT_S, timeout_s)
            return await self._caller.call(address, GET_ROUTING, request, timeout_s=wait_s)
        except (Retryable, MaybeApplied) as error:
            return error


def pause_after_s(failures: int, rng: Rng) -> float:
    """How long to wait after so many failures in a row."""
    return min(PAUSE_S * (1 << min(failures - 1, 8)), PAUSE_MAX_S) * (0.5 + rng.random() / 2)


def _none_spawned(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name} was awaited by nobody") from error

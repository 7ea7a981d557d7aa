"""Which replica a read goes to, and when another one is asked as well. PURE.

``Replicas`` knows of each server how many bytes this client has asked of it and not received, and until
when it is suspected (it was silent, or its connection broke). The least loaded unsuspected one is chosen;
equals take turns.

``Latencies`` keeps the times of recent requests by size; a request that takes longer than three times their
99th percentile, and in any case one that takes 300 ms, is hedged. ``HedgeBudget`` keeps hedges to a tenth
of the requests: when everything is slow, asking everything twice makes it slower. It does not bind for a
server that is silent altogether: what that one does not answer costs it no work.

Source: design 6.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SUSPECT_S = 1.0
"""First suspicion; doubles with each that follows within the time, up to ``SUSPECT_MAX_S``."""
SUSPECT_MAX_S = 30.0
HEDGE_MAX_S = 0.3
HEDGE_MIN_S = 0.02
"""Below this, waking up late is mistaken for a slow server."""
HEDGE_FACTOR = 3.0
SAMPLES = 256
"""Times kept of each size class."""
SAMPLES_FOR_P99 = 32
HEDGE_SHARE = 0.1
HEDGES_AT_ONCE = 16.0
NOTHING_PLANNED: Mapping[str, int] = {}


SILENT_S = 0.6
"""A server that has answered nothing for this long, though it was asked, is silent and not slow."""


class _Server:
    __slots__ = ("heard_s", "in_flight_bytes", "suspect_for_s", "suspect_until_s", "turn")

    def __init__(self) -> None:
        self.heard_s = 0.0
        self.in_flight_bytes = 0
        self.suspect_until_s = 0.0
        self.suspect_for_s = 0.0
        self.turn = 0


class Replicas:
    """The servers, as this client sees them."""

    def __init__(self) -> None:
        self._servers: dict[str, _Server] = {}
        self._turn = 0

    def _server(self, address: str) -> _Server:
        found = self._servers.get(address)
        if found is None:
            found = self._servers[address] = _Server()
        return found

    def choose(
        self,
        addresses: Sequence[str],
        now_s: float,
        avoid: Sequence[str] = (),
        planned_bytes: Mapping[str, int] = NOTHING_PLANNED,
    ) -> str:
        """The best of ``addresses`` (at least one): not in ``avoid`` if possible, then not suspected, then
        with the fewest bytes in flight (and planned), then the one whose turn is longest ago."""
        assert addresses, "no replica to choose from"
        best, best_rank = addresses[0], (True, True, 0, 0)
        for number, address in enumerate(addresses):
            server = self._server(address)
            suspected = server.suspect_until_s > now_s
            load_bytes = server.in_flight_bytes + planned_bytes.get(address, 0)
            rank = (address in avoid, suspected, load_bytes, server.turn)
            if not number or rank < best_rank:
                best, best_rank = address, rank
        self._turn += 1
        self._server(best).turn = self._turn
        return best

    def begin(self, address: str, size_bytes: int) -> None:
        """A request for so many bytes is sent."""
        self._server(address).in_flight_bytes += size_bytes

    def end(self, address: str, size_bytes: int) -> None:
        """That request is over, however."""
        server = self._server(address)
        server.in_flight_bytes -= size_bytes
        assert server.in_flight_bytes >= 0, (address, server.in_flight_bytes)

    def suspect(self, address: str, now_s: float) -> None:
        """It was silent or broke off: others first for a while."""
        server = self._server(address)
        if server.suspect_until_s > now_s:
            return  # all requests under way fail together: that is one event
        recent = now_s < server.suspect_until_s + server.suspect_for_s
        server.suspect_for_s = min(SUSPECT_MAX_S, server.suspect_for_s * 2) if recent else SUSPECT_S
        server.suspect_until_s = now_s + server.suspect_for_s

    def is_suspected(self, address: str, now_s: float) -> bool:
        """Whether others go first now."""
        return self._server(address).suspect_until_s > now_s

    def is_silent(self, address: str, asked_s: float, now_s: float) -> bool:
        """Whether it has answered nobody of this client since a request that was sent at ``asked_s``, and
        for a while."""
        return now_s - max(self._server(address).heard_s, asked_s) >= SILENT_S

    def trust(self, address: str, now_s: float) -> None:
        """It answered."""
        server = self._servers.get(address)
        if server is not None:
            server.heard_s = now_s
            if server.suspect_for_s:
                server.suspect_until_s = server.suspect_for_s = 0.0


class Latencies:
    """Times of recent requests by size class (powers of four)."""

    def __init__(self) -> None:
        self._samples: dict[int, list[float]] = {}
        self._counts: dict[int, int] = {}
        self._hedge_s: dict[int, float] = {}

    @staticmethod
    def _size_class(size_bytes: int) -> int:
        return (size_bytes.bit_length() + 1) // 2

    def note(self, size_bytes: int, took_s: float) -> None:
        """A request for so many bytes took so long."""
        kind = self._size_class(size_bytes)
        samples = self._samples.setdefault(kind, [])
        count = self._counts.get(kind, 0)
        if len(samples) < SAMPLES:
            samples.append(took_s)
        else:
            samples[count % SAMPLES] = took_s
        self._counts[kind] = count + 1
        if count % SAMPLES_FOR_P99 == SAMPLES_FOR_P99 - 1:
            ordered = sorted(samples)
            p99_s = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
            self._hedge_s[kind] = min(HEDGE_MAX_S, max(HEDGE_MIN_S, HEDGE_FACTOR * p99_s))

    def hedge_after_s(self, size_bytes: int) -> float:
        """How long to wait for a request of this size before another replica is asked."""
        return self._hedge_s.get(self._size_class(size_bytes), HEDGE_MAX_S)


class HedgeBudget:
    """Allows a burst of hedges, then one for each ten requests."""

    def __init__(self) -> None:
        self._tokens = HEDGES_AT_ONCE

    def earn(self) -> None:
        """A request was sent."""
        self._tokens = min(HEDGES_AT_ONCE, self._tokens + HEDGE_SHARE)

    @property
    def has_token(self) -> bool:
        """Whether a hedge might be sent now."""
        return self._tokens >= 1.0

    def spend(self) -> bool:
        """Whether a hedge may be sent now."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

"""Members that are to leave their chains: who is told to lend them nothing more, and who has let go. PURE.

A member that leaves while it lives holds leases of the others, and each of these may serve the version
without it only when its own last lease to it is over (design 2.2 (b)). If they lent until they learn of that
version, all their readers would wait for a whole lease. So the primary tells them before, in its answers to
their beacons; their beacons say when their leases are over; and the record is written then. That is waited
for no longer than a lease that was given when they were told: whoever is silent costs no more.

It changes nothing that leases rest on: nobody has to lend, and (b) holds whatever was told.

Source: design 2.2, 8 (a member's end stalls a read ≤ 1 s).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fs3.ids import ChainId, NodeId, TargetId, node_of_target
from fs3.member.beacon import LEAVING_MAX
from fs3.member.timing import Timing

from .liveness import Life

TOLD_PERIODS = 2
"""Within so many beacons everybody who is heard has been told."""


@dataclass(slots=True)
class _Chain:
    since_s: dict[TargetId, float]
    """Who is to leave, and since when."""
    others: tuple[NodeId, ...]
    """Who stays, and is heard."""


class Leaving:
    """Of one term."""

    def __init__(self) -> None:
        self._chains: dict[ChainId, _Chain] = {}
        self._at: dict[NodeId, dict[TargetId, None]] = {}

    def note(
        self, chain: ChainId, targets: Iterable[TargetId], others: tuple[NodeId, ...], now_s: float
    ) -> None:
        """These are to leave a chain, as far as is known, and these stay. If nobody stays, nobody is told."""
        wanted = dict.fromkeys(targets if others else ())
        before = self._chains.get(chain)
        if before is None and not wanted:
            return
        if before is not None:
            if list(before.since_s) == list(wanted) and before.others == others:
                return
            del self._chains[chain]
            for node in before.others:
                for target in before.since_s:
                    self._at[node].pop(target, None)
        if wanted:
            since_s = before.since_s if before is not None else {}
            self._chains[chain] = _Chain({t: since_s.get(t, now_s) for t in wanted}, others)
            for node in others:
                self._at.setdefault(node, {}).update(wanted)

    def chains_but(self, looked_at: Mapping[ChainId, None]) -> list[ChainId]:
        """Chains that somebody was to leave, without these."""
        return [chain for chain in self._chains if chain not in looked_at]

    def told(self, node: NodeId) -> tuple[TargetId, ...]:
        """Whom a node is to lend nothing more."""
        found = self._at.get(node)
        return tuple(found)[:LEAVING_MAX] if found else ()

    def lent_until_s(
        self, chain: ChainId, target: TargetId, lives: Mapping[NodeId, Life], timing: Timing
    ) -> float:
        """Until when those who stay may have lent to a member that is to leave; 0: they do not."""
        entry = self._chains.get(chain)
        since_s = entry.since_s.get(target) if entry is not None else None
        life = lives.get(node_of_target(target))
        if entry is None or since_s is None or life is None:
            return 0.0
        if life.suspected_since_s is not None and life.was_answered:
            return 0.0  # its process is gone: nobody asks for leases any more
        if all(target in lives[node].unlent for node in entry.others if node in lives):
            return 0.0
        return since_s + TOLD_PERIODS * timing.beacon_s + timing.grant_s

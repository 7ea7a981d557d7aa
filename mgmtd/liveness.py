"""Who lives: beacons, evidence, verdicts. PURE: time is an argument.

A beacon counts when it echoes the nonce that this primary last gave to its node, is of the node's present
generation and newer than those before it. Evidence of death (a connection reset or refused, a peer's hint)
never ends a lease, a firewall can forge it: it only stops new grants and shortens the verdict. It also
changes the node's nonce, so that only a beacon made after the evidence clears it.

=========  ==============================================================================
verdict    means
=========  ==============================================================================
ALIVE      heard within the last periods
SUSPECTED  evidence against it that no beacon has cleared: no new grant
SILENT     nothing heard for some periods: not yet a verdict
DEAD       suspected and its grant is over; or silent for 5 s and its grant is over; or one of
           its chains has had no lease of either kind for 3 s by its own beacons, which were heard
=========  ==============================================================================

A primary that hears none of several nodes is more likely cut off itself than alone alive: it finds nobody
dead for silence meanwhile, nor for calls that ran out of time. When it hears again, that time counts as
nobody's silence, and such calls are forgotten; else whoever is heard first would be left alone in its chains.

Source: design 2.1, 2.2 (a primary cut off from everybody must not break every chain), 2.3.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from fs3.identity.datagram import NO_NONCE, ReplayWindow
from fs3.ids import ChainId, ChainVersion, Generation, NodeId, TargetId
from fs3.member.beacon import Beacon
from fs3.member.timing import SILENT_PERIODS, Timing

from .links import Links

DEAF_PERIODS = 2.0
"""Sooner than anybody can be found dead: a grant runs for three periods, and the last beacon of each came
at most one period before the last beacon of all."""
DEAF_AMONG_MIN = 3
"""A primary that hears none of so many nodes takes itself for cut off."""
EVIDENCE_MAX = 16
"""Pieces of evidence kept for each node, for people."""


class Verdict(enum.Enum):
    """What the primary thinks of a node."""

    ALIVE = "alive"
    SUSPECTED = "suspected"
    SILENT = "silent"
    DEAD = "dead"


class Hearing(enum.Enum):
    """What became of a beacon."""

    COUNTED = "counted"
    NONCE = "nonce"
    """It did not echo the nonce: it is told, and nothing else follows."""
    STRANGER = "stranger"
    """The node, or this generation of it, has not reported yet."""
    DROPPED = "dropped"
    """Seen before, or of an earlier generation: no answer."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that speaks against a node."""

    at_s: float
    what: str


@dataclass(slots=True)
class Life:
    """What the primary knows of a node's present generation."""

    generation: Generation
    heard_s: float
    """When it was last heard: its registration, or a beacon that counted."""
    nonce: bytes
    window: ReplayWindow = field(default_factory=ReplayWindow)
    has_echoed: bool = False
    suspected_since_s: float | None = None
    was_answered: bool = False
    """What it is suspected for was an answer (refused, reset), not the lack of one."""
    evidence: list[Evidence] = field(default_factory=list)
    no_lease_since_s: float | None = None
    attended_s: float | None = None
    """Since when beacons of it have come without a long gap: before that nobody granted it anything."""
    routing_version: int = 0
    clock_ms: int = 0
    unreachable: tuple[NodeId, ...] = ()
    unlent: frozenset[TargetId] = frozenset()
    """Targets that are to leave, and hold no lease of it (``leaving``)."""
    acknowledged: dict[ChainId, ChainVersion] = field(default_factory=dict)


class Liveness:
    """All nodes, as one primary's term hears them. ``new_nonce`` gives 16 unpredictable bytes."""

    def __init__(self, began_s: float, timing: Timing, new_nonce: Callable[[], bytes]) -> None:
        self._began_s = began_s
        self._timing = timing
        self._new_nonce = new_nonce
        self.lives: dict[NodeId, Life] = {}
        self._heard_any_s = began_s
        """When any node was last heard, counted or not."""
        self.links = Links(timing)

    def register(self, node: NodeId, generation: Generation, now_s: float, *, heard: bool) -> bool:
        """A node's generation is known, from a report (``heard``) or from the store.

        False: it is older than one that is known already. A node known from the store only has the time
        since the take-over to be heard.
        """
        life = self.lives.get(node)
        if life is not None and generation < life.generation:
            return False
        if life is None or generation > life.generation:
            self.lives[node] = Life(generation, now_s if heard else self._began_s, self._new_nonce())
            self.links.forget(node)
        elif heard:
            life.heard_s = max(life.heard_s, now_s)
        if heard:
            self._hear(now_s)
        return True

    def is_deaf(self, now_s: float) -> bool:
        """Nobody has been heard for some periods, although there are several."""
        quiet_s = now_s - self._heard_any_s
        return len(self.lives) >= DEAF_AMONG_MIN and quiet_s > DEAF_PERIODS * self._timing.beacon_s

    def _hear(self, now_s: float) -> None:
        """Somebody is heard, for the first time after a while perhaps."""
        if self.is_deaf(now_s):
            for life in self.lives.values():
                life.heard_s = min(now_s, life.heard_s + now_s - self._heard_any_s)
                if self._is_of_own_deafness(life):
                    life.suspected_since_s = None
        self._heard_any_s = max(self._heard_any_s, now_s)

    def _is_of_own_deafness(self, life: Life) -> bool:
        """Suspected only since nobody at all was heard any more, and only because it did not answer."""
        since_s = life.suspected_since_s
        return since_s is not None and since_s > self._heard_any_s and not life.was_answered

    def on_beacon(
        self,
        node: NodeId,
        generation: Generation,
        sequence: int,
        nonce: bytes,
        beacon: Beacon,
        now_s: float,
    ) -> Hearing:
        """A genuine beacon arrived."""
        life = self.lives.get(node)
        if life is None or generation > life.generation:
            return Hearing.STRANGER
        if generation < life.generation or not life.window.accept(generation, sequence):
            return Hearing.DROPPED
        self._hear(now_s)
        if nonce == NO_NONCE or nonce != life.nonce:
            return Hearing.NONCE
        if life.attended_s is None or now_s - life.heard_s > SILENT_PERIODS * self._timing.beacon_s:
            life.attended_s = now_s
        life.heard_s = now_s
        life.suspected_since_s = None  # the nonce was changed with the evidence: this is newer
        life.routing_version = max(life.routing_version, beacon.routing_version)
        life.clock_ms = beacon.clock_ms
        life.unreachable = beacon.unreachable
        life.unlent = frozenset(beacon.unlent)
        self.links.on_beacon(node, beacon.unreachable, now_s)
        for chain, version in beacon.acknowledged:
            life.acknowledged[chain] = max(version, life.acknowledged.get(chain, version))
        self._note_lack(life, beacon.no_lease_ms / 1000, now_s)
        return Hearing.COUNTED

    def _note_lack(self, life: Life, lacking_s: float, now_s: float) -> None:
        """How long, by its own word, one of its chains has had no lease; while it was heard."""
        since_s = max(now_s - lacking_s, life.attended_s if life.attended_s is not None else now_s)
        if lacking_s <= 0:
            life.no_lease_since_s = None
        elif life.no_lease_since_s is None or since_s < life.no_lease_since_s:
            life.no_lease_since_s = since_s

    def on_evidence(
        self,
        node: NodeId,
        generation: Generation,
        what: str,
        now_s: float,
        *,
        began_s: float | None = None,
        answered: bool = True,
    ) -> bool:
        """Something speaks against a node. True: it was not suspected before.

        ``began_s``: when it was begun to look; a beacon heard since then says more. ``answered``: somebody
        there refused or reset; else nobody said anything.
        """
        life = self.lives.get(node)
        if life is None or life.generation != generation:
            return False
        if began_s is not None and life.heard_s > began_s:
            return False
        life.evidence = [*life.evidence, Evidence(now_s, what)][-EVIDENCE_MAX:]
        is_new = life.suspected_since_s is None
        life.was_answered = answered or (life.was_answered and not is_new)
        if is_new:
            life.suspected_since_s = now_s
            life.nonce = self._new_nonce()
        return is_new

    def may_grant(self, node: NodeId) -> bool:
        """Whether a beacon that counted earns a lease."""
        life = self.lives.get(node)
        return life is not None and life.suspected_since_s is None

    def is_current(self, node: NodeId, generation: Generation) -> bool:
        """Whether this is the node's present generation."""
        life = self.lives.get(node)
        return life is not None and life.generation == generation

    def verdict(self, node: NodeId, grant_until_s: float, now_s: float) -> Verdict:
        """What to think of a node whose last grant from the primary is over at ``grant_until_s``."""
        life = self.lives.get(node)
        if life is None:
            return Verdict.DEAD
        is_over = now_s >= grant_until_s
        is_deaf = self.is_deaf(now_s)
        if life.suspected_since_s is not None:
            is_of_own = is_deaf and self._is_of_own_deafness(life)
            return Verdict.DEAD if is_over and not is_of_own else Verdict.SUSPECTED
        silent_s = now_s - life.heard_s
        missed_s = (self._heard_any_s if is_deaf else now_s) - life.heard_s
        if missed_s >= self._timing.silence_s and is_over:
            return Verdict.DEAD
        if silent_s > SILENT_PERIODS * self._timing.beacon_s:
            return Verdict.SILENT
        lacking = life.no_lease_since_s
        if lacking is not None and now_s - lacking > self._timing.no_lease_s:
            return Verdict.DEAD
        return Verdict.ALIVE

    def next_change_s(self, grants_until: Callable[[NodeId, Generation], float], now_s: float) -> float:
        """When a verdict can change by time alone: that is when the next pass is due, events aside."""
        timing = self._timing
        soonest_s = math.inf
        for node, life in self.lives.items():
            moments = (
                life.heard_s + SILENT_PERIODS * timing.beacon_s,
                life.heard_s + timing.silence_s,
                grants_until(node, life.generation),
                (life.no_lease_since_s or math.inf) + timing.no_lease_s,
            )
            soonest_s = min(soonest_s, min((m for m in moments if m > now_s), default=math.inf))
        return min(soonest_s, self.links.next_change_s(now_s))

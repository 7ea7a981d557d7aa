"""Strikes a cluster again and again, from one seed: one fault, or two at a time, until all is whole again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from fs3.deploy.dev.cluster import ClusterError
from fs3.deploy.dev.table import fetch_status
from fs3.errors import Fs3Error
from fs3.rng import Rng

from .ground import Ground
from .kinds import Kind
from .machine import MachineError

OVERLAP_MAX = 2
"""Faults at the same time, each of another process: with three replicas one is left of each chain."""
OVERLAP_SHARE = 0.5
SERVING_TIMEOUT_S = 90.0
PAUSE_MAX_S = 1.0
POLL_S = 0.1


@dataclass(slots=True)
class Struck:
    """One fault, as it was."""

    kind: Kind
    name: str
    away_s: float
    began_s: float = 0.0
    ended_s: float = 0.0
    """What was broken is mended."""
    whole_s: float = 0.0
    """Every chain serves with all its members."""

    def as_row(self) -> dict[str, object]:
        """For the list of faults beside the report."""
        row = asdict(self)
        row["kind"] = self.kind.name
        return row


@dataclass(slots=True)
class Faults:
    """Strikes one cluster."""

    ground: Ground
    kinds: Sequence[Kind]
    rng: Rng
    struck: list[Struck] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    """Of each round: from the moment that everything is mended until every chain is whole."""
    problems: list[str] = field(default_factory=list)
    """What the cluster should not have done: processes that ended, chains that stay degraded."""
    _deck: list[Kind] = field(default_factory=list)

    def run(self, count: int, say: Callable[[str], None]) -> None:
        """``count`` faults, or fewer if the cluster does not become whole again, which is a problem then."""
        with ThreadPoolExecutor(OVERLAP_MAX) as threads:
            try:
                while len(self.struck) < count:
                    self._round(threads, count - len(self.struck), say)
                    if self.problems:
                        return
                    self.ground.wait(self.rng.uniform(0.0, PAUSE_MAX_S))
            finally:
                self.ground.halted.set()

    def _round(self, threads: ThreadPoolExecutor, left: int, say: Callable[[str], None]) -> None:
        faults = self._draw(min(left, OVERLAP_MAX if self.rng.random() < OVERLAP_SHARE else 1))
        self.struck += faults
        strikes = [threads.submit(self._strike, one, self.rng.randrange(1 << 63)) for one in faults]
        try:
            for strike in strikes:
                strike.result()
        except (ClusterError, Fs3Error, MachineError) as error:
            self.problems.append(f"after {_names(faults)}: {error}")
            return
        began_s = time.monotonic()
        if missing := self._until_whole():
            self.problems.append(f"after {_names(faults)}: {missing}")
        whole_s = time.monotonic()
        self.recovery_s.append(whole_s - began_s)
        for one in faults:
            one.whole_s = whole_s
        say(f"{len(self.struck)} faults, {_names(faults)}: whole after {self.recovery_s[-1]:.1f} s")

    def _draw(self, count: int) -> list[Struck]:
        """Faults of different processes; everything at once comes alone."""
        found: list[Struck] = []
        while len(found) < count:
            one = self._card()
            if found and (not one.name or one.name in [other.name for other in found]):
                self._deck.append(one.kind)
                break
            found.append(one)
            if not one.name:
                break
        return found

    def _card(self) -> Struck:
        """The next kind of a shuffled deck, so that all kinds come about as often as they weigh."""
        if not self._deck:
            self._deck = [kind for kind in self.kinds for _ in range(kind.weight)]
            self.rng.shuffle(self._deck)
        kind = self._deck.pop()
        name = ""
        if kind.roles:
            name = self.rng.choice(self._victims(kind, self.rng.choice(kind.roles)))
        return Struck(kind, name, self.rng.choice(kind.away_s))

    def _victims(self, kind: Kind, role: str) -> list[str]:
        names = self.ground.names(role)
        if kind.wants_primary:
            primary = self.ground.primary()
            return [primary] if primary else names
        if kind.file_system:
            volumes = self.ground.volumes
            assert volumes is not None
            return [name for name in names if volumes[name].kind == kind.file_system]
        return names

    def _strike(self, one: Struck, seed: int) -> None:
        one.began_s = time.monotonic()
        one.kind.strike(self.ground, one.name, one.away_s, Rng(seed))
        one.ended_s = time.monotonic()

    def _until_whole(self) -> str:
        """Wait until every chain serves with all its members; "" if they do, else what is missing."""
        deadline_s = time.monotonic() + SERVING_TIMEOUT_S
        while True:
            ended = [row.name for row in self.ground.cluster.status() if row.pid is None]
            if ended:
                return f"{', '.join(ended)} ended without being told"
            missing = self._what_is_missing()
            if not missing:
                return ""
            if time.monotonic() > deadline_s:
                return f"not whole after {SERVING_TIMEOUT_S:.0f} s: {missing}"
            self.ground.wait(POLL_S)

    def _what_is_missing(self) -> str:
        try:
            status = fetch_status(self.ground.cluster.key(), self.ground.cluster.plan(), 2.0)
        except Fs3Error as error:
            return str(error)
        if status.is_whole:
            return ""
        members = "; ".join(f"chain {m.chain} target {m.target:x} {m.state}: {m.why}" for m in status.members)
        return (
            f"{status.degraded_chain_count} chains degraded, {status.unavailable_chain_count} unavailable: "
            f"{members}"
        )


def _names(faults: Sequence[Struck]) -> str:
    return ", ".join(f"{one.kind.name} {one.name} {one.away_s:g} s".replace("  ", " ") for one in faults)

"""Faults on real processes: killed, or stopped for a while; one, several, or all at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fs3.deploy.dev.cluster import Cluster, ClusterError
from fs3.deploy.dev.process import running_pid
from fs3.deploy.dev.table import fetch_status
from fs3.errors import Fs3Error
from fs3.rng import Rng

AWAY_S = (0.2, 1.0, 4.0, 9.0)
"""How long a process is away: shorter than a lease, than a verdict, longer than both."""
OVERLAP_MAX = 2
"""Faults at the same time, each of another process."""
SERVING_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Faults:
    """Strikes one cluster, from one seed."""

    cluster: Cluster
    rng: Rng
    counts: Counter[str] = field(default_factory=Counter)
    recovery_s: list[float] = field(default_factory=list)
    """From the moment that everything runs again until every chain serves."""
    struck_s: list[float] = field(default_factory=list)
    commands: threading.Lock = field(default_factory=threading.Lock)
    """One ``fs3 dev`` command at a time, as the cluster's own lock wants it."""

    def run(self, count: int, say: Callable[[str], None]) -> None:
        """``count`` faults; afterwards everything runs and serves."""
        done = 0
        while done < count:
            if self.rng.random() < 0.04:
                self._all_at_once()
                done += 1
            else:
                victims = self._victims(min(self.rng.choice((1, 1, 1, OVERLAP_MAX)), count - done))
                threads = [threading.Thread(target=self._strike, args=victim) for victim in victims]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                done += len(victims)
            self.recovery_s.append(self._until_serving())
            say(f"{done} of {count} faults, last recovery {self.recovery_s[-1]:.1f} s")
            time.sleep(self.rng.uniform(0.0, 1.0))

    def _victims(self, count: int) -> list[tuple[str, str, float]]:
        """(process, kind, how long), of different roles: kv, mgmtd and meta are few, storage is many."""
        roles = self.rng.sample(("storage", "storage", "storage", "meta", "mgmtd", "kv"), count)
        plan = self.cluster.plan().processes
        found: dict[str, tuple[str, str, float]] = {}
        for role in roles:
            name = self.rng.choice([p.name for p in plan if p.role == role])
            kind = "kill" if self.rng.random() < 0.6 else "stop"
            found[name] = (name, f"{role} {kind}", self.rng.choice(AWAY_S))
        return list(found.values())

    def _strike(self, name: str, kind: str, away_s: float) -> None:
        self.counts[kind] += 1
        self.struck_s.append(time.monotonic())
        if kind.endswith("kill"):
            self.cluster.kill(name)
            time.sleep(away_s)
            self._restart(name)
            return
        pid = running_pid(self.cluster.files(name))
        assert pid is not None, f"{name} does not run"
        os.kill(pid, signal.SIGSTOP)
        time.sleep(away_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _restart(self, name: str) -> None:
        with self.commands:
            self.cluster.restart(name, lambda _: None)

    def _all_at_once(self) -> None:
        self.counts["everything killed"] += 1
        self.struck_s.append(time.monotonic())
        names = [p.name for p in self.cluster.plan().processes]
        for name in names:
            with contextlib.suppress(ClusterError):
                self.cluster.kill(name)
        self.cluster.up(None, lambda _: None)

    def _until_serving(self) -> float:
        """Wait until all run and every chain serves with all its members; how long that took."""
        began_s = time.monotonic()
        while True:
            for status in self.cluster.status():
                if status.pid is None:
                    self._restart(status.name)
            what = self._what_is_missing()
            if not what:
                return time.monotonic() - began_s
            if time.monotonic() - began_s > SERVING_TIMEOUT_S:
                raise AssertionError(f"not serving after {SERVING_TIMEOUT_S:.0f} s: {what}")
            time.sleep(0.1)

    def _what_is_missing(self) -> str:
        try:
            status = fetch_status(self.cluster.key(), self.cluster.plan(), 2.0)
        except Fs3Error as error:
            return str(error)
        if not status.is_whole:
            return (
                f"{status.degraded_chain_count} chains degraded, {status.unavailable_chain_count} unavailable"
            )
        return ""

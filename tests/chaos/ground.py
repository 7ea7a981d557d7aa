"""The cluster under fire, and all that a fault may lay hands on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field

from fs3.deploy.dev.cluster import Cluster, ClusterError
from fs3.deploy.dev.process import running_pid

from .network import Network
from .volumes import Volumes


class Halted(Exception):
    """The run is being broken off: a fault is not undone step by step, everything is taken down."""


@dataclass(slots=True)
class Ground:
    """One cluster, with what is around its processes."""

    cluster: Cluster
    network: Network | None
    volumes: Volumes | None
    clients: tuple[str, ...]
    """Namespaces of the workers."""
    halted: threading.Event = field(default_factory=threading.Event)
    commands: threading.Lock = field(default_factory=threading.Lock)
    """One ``fs3 dev`` command at a time, as the cluster's own lock wants it."""
    served_after_s: list[float] = field(default_factory=list)
    """Each time that everything was started again: from when all listened until every chain served."""

    def names(self, role: str) -> list[str]:
        """The processes of a role."""
        return [p.name for p in self.cluster.plan().processes if p.role == role]

    def primary(self) -> str:
        """The mgmtd that leads; "" if none says so."""
        found = [row.name for row in self.cluster.status() if row.role == "primary"]
        return found[0] if found else ""

    def others(self, name: str) -> tuple[str, ...]:
        """All other processes that have an address; no clients."""
        return tuple(p.name for p in self.cluster.plan().processes if p.port and p.name != name)

    def wait(self, seconds: float) -> None:
        """Let the fault last. Halted."""
        if self.halted.wait(seconds):
            raise Halted

    def kill(self, name: str) -> None:
        """SIGKILL, if it runs."""
        with contextlib.suppress(ClusterError):
            self.cluster.kill(name)

    def restart(self, name: str) -> None:
        """Stop it in order if it runs, and start it. Halted."""
        with self.commands:
            self.wait(0.0)
            self.cluster.start_again(name, lambda _: None)
        self.cluster.await_health(name)  # it may wait for another one that is away as well

    def start_everything(self) -> None:
        """After everything was killed. Halted; ClusterError, Fs3Error: it does not serve."""
        with self.commands:
            self.wait(0.0)
            listened_s: list[float] = []
            self.cluster.up(None, lambda _: listened_s.append(time.monotonic()))
            self.served_after_s.append(time.monotonic() - listened_s[-1])

    def stop(self, name: str) -> None:
        """Stop it in order: SIGTERM, and SIGKILL if it takes too long."""
        with self.commands:
            self.wait(0.0)
            self.cluster.stop(name, lambda _: None)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        pid = running_pid(self.cluster.files(name))
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

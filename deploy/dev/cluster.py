"""Brings a development cluster up, looks at it, takes it down.

All that a cluster is lies in its directory: the plan (``cluster.toml``), the cluster key, a settings file
and a log for each process, pid files, and the data. Nothing runs in the background for it but its own
processes: any ``fs3 dev`` command finds them again by their pid files.

Every failure is a ``ClusterError``: what, why, and what to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fs3.identity.key_file import new_cluster_key, new_cluster_name, read_cluster_key, write_cluster_key
from fs3.identity.keys import ClusterKey

from . import process as processes
from .client_file import forget_client, publish_client
from .health import fetch_health
from .plan import (
    HOST,
    ClusterPlan,
    ClusterShape,
    Place,
    ProcessPlan,
    make_plan,
    plan_from,
    plan_text,
    port_count,
)
from .plan import settings_text as settings_of
from .ports import free_ports, holder_of, is_free
from .process import ProcessFiles
from .table import create_chain_table

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 3.5
"""A daemon stops within 3 s; then it is killed, and that is said."""
POLL_S = 0.03

Say = Callable[[str], None]
"""Told of each step, for the screen."""


class ClusterError(Exception):
    """Something that the user can mend; the message is all they need."""


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One row of ``fs3 dev status``."""

    name: str
    pid: int | None
    port: int
    http_port: int
    health: dict[str, object] | None
    """None: it does not answer."""

    @property
    def state(self) -> str:
        """ "stopped", "not answering", "healthy" or "unhealthy"."""
        if self.pid is None:
            return "stopped"
        if self.health is None:
            return "not answering"
        return "healthy" if self.health.get("ok") else "unhealthy"

    @property
    def role(self) -> str:
        """Of a mgmtd that answers: "primary" or "standby"; else ""."""
        return str((self.health or {}).get("role", ""))


class Cluster:
    """The cluster in a directory, running or not."""

    def __init__(self, directory: Path, places: Mapping[str, Place] | None = None) -> None:
        self.directory = directory.absolute()
        self._places = places or {}

    @property
    def plan_file(self) -> Path:
        return self.directory / "cluster.toml"

    @property
    def exists(self) -> bool:
        """Whether there ever was an ``up`` here."""
        return self.plan_file.exists()

    def plan(self) -> ClusterPlan:
        """The plan of the cluster; ClusterError if there is none or it cannot be read."""
        try:
            return plan_from(tomllib.loads(self.plan_file.read_text())).placed(self._places)
        except FileNotFoundError:
            raise ClusterError(
                f"there is no cluster in {self.directory}: `fs3 dev up` makes one (--dir names another place)"
            ) from None
        except (ValueError, OSError) as error:
            raise ClusterError(
                f"{self.plan_file} cannot be used: {error}. Mend it, or remove {self.directory} and all data"
            ) from error

    def files(self, name: str) -> ProcessFiles:
        """Files of a process."""
        return ProcessFiles(name, self.directory)

    def key(self) -> ClusterKey:
        """The cluster key."""
        return read_cluster_key(self.directory / "cluster.key")

    # -- up

    def up(self, shape: ClusterShape | None, say: Say) -> ClusterPlan:
        """Start what does not run. ``shape`` None: as it is, or the default for a new one."""
        self._make_directory()
        with self._locked():
            plan = self._settle_plan(shape)
            starting = [p for p in plan.processes if processes.running_pid(self.files(p.name)) is None]
            if not starting:
                say(f"already up in {self.directory}")
            else:
                _check_ports(starting)
                self._start_all(plan, starting, say)
            create_chain_table(self.key(), plan, START_TIMEOUT_S)
            publish_client(self.directory, self.key(), plan)
        return plan

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            probe = self.directory / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ClusterError(
                f"{self.directory} is not writable: {error.strerror}. Choose another place with --dir"
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one ``fs3 dev`` changes a cluster at a time."""
        with (self.directory / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ClusterError(
                    f"another `fs3 dev` command is at work in {self.directory}: wait for it"
                ) from None
            yield

    def _settle_plan(self, shape: ClusterShape | None) -> ClusterPlan:
        if self.exists:
            plan = self.plan()
            if shape is not None and shape != plan.shape:
                raise ClusterError(
                    f"the cluster in {self.directory} has another shape ({plan.shape}). Start it as it is by "
                    "`fs3 dev up` without options, or make a new one elsewhere with --dir"
                )
            return plan
        shape = shape or ClusterShape()
        if problem := shape.problem():
            raise ClusterError(problem)
        try:
            ports = free_ports(port_count(shape))
        except OSError as error:
            raise ClusterError(f"{error.strerror}: stop what takes them") from error
        plan = make_plan(shape, ports).placed(self._places)
        key_file = self.directory / "cluster.key"
        if not key_file.exists():
            write_cluster_key(key_file, new_cluster_key(new_cluster_name()))
        self.plan_file.write_text(plan_text(plan))
        return plan

    def _start_all(self, plan: ClusterPlan, starting: Sequence[ProcessPlan], say: Say) -> None:
        """In the order of the plan: kv, mgmtd, then all others together."""
        for role in (("kv",), ("mgmtd",), ("meta", "storage")):
            batch = [p for p in starting if p.role in role]
            for p in batch:
                self._start(plan, p)
            for p in batch:
                self._await_health(p)
            if batch:
                say(f"started {', '.join(p.name for p in batch)}")

    def _start(self, plan: ClusterPlan, process: ProcessPlan) -> None:
        files = self.files(process.name)
        files.settings.parent.mkdir(exist_ok=True)
        files.settings.write_text(settings_of(plan, process, self.directory, (os.getuid(), os.getgid())))
        processes.start(files, process.role, process.place.before)

    def _await_health(self, process: ProcessPlan) -> None:
        files = self.files(process.name)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            health = fetch_health(process.place.host, process.http_port)
            if health is not None and health.get("ok"):
                return
            if processes.running_pid(files) is None:
                raise ClusterError(
                    f"{process.name} did not start. The end of {files.log}:\n{processes.log_tail(files)}"
                )
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{process.name} is not healthy after {START_TIMEOUT_S:.0f} s ({health}). "
                    f"The end of {files.log}:\n{processes.log_tail(files)}"
                )
            time.sleep(POLL_S)

    # -- the rest

    def status(self) -> list[ProcessStatus]:
        """A row for each process."""
        return [self._status(p) for p in self.plan().processes]

    def _status(self, process: ProcessPlan) -> ProcessStatus:
        pid = processes.running_pid(self.files(process.name))
        health = fetch_health(process.place.host, process.http_port) if pid is not None else None
        return ProcessStatus(process.name, pid, process.port, process.http_port, health)

    def down(self, say: Say) -> None:
        """Stop what runs, in reverse order; data stay. Nothing to do is no error."""
        plan = self.plan()
        with self._locked():
            for roles in (("meta", "storage"), ("mgmtd",), ("kv",)):
                self._stop([p.name for p in plan.processes if p.role in roles], say)
            forget_client(self.directory)

    def _stop(self, names: Sequence[str], say: Say) -> None:
        stopping = [n for n in names if processes.send(self.files(n), signal.SIGTERM)]
        # a stopped process (SIGSTOP) must wake up to see the signal
        for name in stopping:
            processes.send(self.files(name), signal.SIGCONT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for name in stopping:
            if not processes.wait_gone(self.files(name), max(0.0, deadline - time.monotonic())):
                processes.send(self.files(name), signal.SIGKILL)
                processes.wait_gone(self.files(name), STOP_TIMEOUT_S)
                say(f"{name} did not stop within {STOP_TIMEOUT_S} s: killed, see {self.files(name).log}")
        if stopping:
            say(f"stopped {', '.join(stopping)}")

    def stop(self, name: str, say: Say) -> None:
        """Stop a process if it runs."""
        self._known(name)
        with self._locked():
            self._stop([name], say)

    def kill(self, name: str) -> int:
        """SIGKILL a process, as if its machine had died; returns its pid. ClusterError: it does not run."""
        files = self.files(self._known(name).name)
        pid = processes.running_pid(files)
        if pid is None:
            raise ClusterError(f"{name} does not run: `fs3 dev restart {name}` starts it")
        os.kill(pid, signal.SIGKILL)
        processes.wait_gone(files, STOP_TIMEOUT_S)
        return pid

    def restart(self, name: str, say: Say) -> None:
        """Stop a process if it runs, then start it and wait until it is healthy."""
        self.start_again(name, say)
        self.await_health(name)
        say(f"started {name}")

    def start_again(self, name: str, say: Say) -> None:
        """Stop a process if it runs, and start it. It may wait for others, which can be started meanwhile."""
        process = self._known(name)
        with self._locked():
            self._stop([name], say)
            _check_ports([process])
            self._start(self.plan(), process)

    def await_health(self, name: str) -> None:
        """Wait until a process that was started is healthy. ClusterError: it is not in time, or has ended."""
        self._await_health(self._known(name))

    def _known(self, name: str) -> ProcessPlan:
        plan = self.plan()
        process = plan.process(name)
        if process is None:
            names = ", ".join(p.name for p in plan.processes)
            raise ClusterError(f"there is no process {name!r} in this cluster; it has {names}")
        return process


def _check_ports(starting: Sequence[ProcessPlan]) -> None:
    for process in starting:
        if process.place.host != HOST:
            continue  # not seen from here
        for port in filter(None, (process.port, process.http_port)):
            if not is_free(port):
                raise ClusterError(
                    f"port {port} of {process.name} is taken by {holder_of(port)}: stop that, or make a new "
                    "cluster elsewhere with --dir (a cluster keeps its ports)"
                )

"""Runs a daemon: settings → components → server → clean stop.

One path for all daemons::

    settings   read strictly; a bad one ends it here, with file and line (exit 78)
    components the machine's clock, chance, logs, metrics
    server     composed from both by the caller; start() opens it, or says why not (exit 69)
    serving    until SIGTERM or SIGINT (exit 0), or a background task fails (exit 1)
    stop()     within STOP_LIMIT_S; what hangs is shown with its stack and the process ends (exit 1)

A second signal during the stop ends the process at once. ``/healthz`` answers from the moment the settings
are read, so that "starting" and "does not answer" can be told apart. Under systemd (NOTIFY_SOCKET) readiness
is announced. uvloop is the event loop. This is a shell: nothing here runs in the simulated world, where the
servers' constructors are called by the world itself.

Source: design 1, 9.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import uvloop

import fs3
from fs3.clock import Clock, SystemClock
from fs3.config import BadSettings, Between, Check, load_settings
from fs3.errors import Fs3Error
from fs3.http import HttpEndpoint, health_page, metrics_page
from fs3.log import Level, LineWriter, Logger, SlowLog, make_logger
from fs3.metrics import CONTENT_TYPE, Metrics
from fs3.rng import Rng, system_rng
from fs3.tasks import TaskScope

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CANNOT_START = 69
"""EX_UNAVAILABLE: an address is taken, a directory or a service is missing."""
EXIT_BAD_SETTINGS = 78
"""EX_CONFIG: the settings file has to be mended; starting again will not help."""

STOP_LIMIT_S = 2.8
"""A clean stop takes less than 3 s; after this the process shows its stacks and ends."""
LAG_CHECK_S = 1.0
LAG_WARNING_S = 0.25
"""An event loop that wakes up later than this is overloaded, blocked, or was paused: leases suffer."""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """What every daemon's settings file has in its table ``[daemon]``."""

    http_host: str = "127.0.0.1"
    """Address of /metrics and /healthz; they show no data and ask for no proof of identity."""
    http_port: Annotated[int, Between(0, 65535)] = 0
    """0: any free port, named in the log line "started"."""
    log_level: Level = "info"
    slow_operation_ms: Annotated[float, Between(1, 3_600_000)] = 1000
    """Operations that take longer are logged one by one (at most ten a second)."""


class HasDaemonSettings(Protocol):
    """A daemon's settings class: any frozen dataclass with a field ``daemon``."""

    @property
    def daemon(self) -> DaemonSettings:
        """The part that all daemons share."""
        ...


@dataclass(frozen=True, slots=True)
class Components:
    """What a composition is handed besides its settings."""

    clock: Clock
    rng: Rng
    log: Logger
    metrics: Metrics
    slow: SlowLog
    fail: Callable[[str, BaseException], None]
    """``on_failure`` of the servers' task scopes: logs the task's error and stops the daemon (exit 1)."""


class Server(Protocol):
    """A composed daemon."""

    async def start(self) -> None:
        """Open everything; returns when it serves. Fs3Error or OSError: it cannot, the message says why."""
        ...

    async def stop(self) -> None:
        """Close everything, in about a second. Works after a start that failed or was cancelled half-way."""
        ...

    def health(self) -> dict[str, object]:
        """State for ``/healthz``; ``{"ok": False, …}`` if it should get no requests. Quick, never fails."""
        ...


S = TypeVar("S", bound=HasDaemonSettings)
Compose = Callable[[S, Components], Server]


def run_daemon(
    name: str, kind: type[S], settings_path: Path, compose: Compose[S], check: Check[S] | None = None
) -> int:
    """Run daemon ``name`` until it is told to stop; returns the exit code. Only for the main thread."""
    try:
        settings = load_settings(kind, settings_path, check)
    except BadSettings as error:
        sys.stderr.write(f"fs3 {name}: bad settings: {error}\n")
        return EXIT_BAD_SETTINGS
    daemon = _Daemon(name, settings.daemon)
    _raise_descriptor_limit()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(daemon.run(lambda components: compose(settings, components)))
    finally:
        faulthandler.cancel_dump_traceback_later()


def _raise_descriptor_limit() -> None:
    """As many descriptors as the machine allows: each client holds connections, each target files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Daemon:
    """One run: what signals, failing tasks and the health page share."""

    def __init__(self, name: str, settings: DaemonSettings) -> None:
        self._name = name
        self._settings = settings
        self._clock = SystemClock()
        self._lines = LineWriter(lambda data: os.write(2, data))
        self._log = make_logger(
            self._lines, self._clock, level=settings.log_level, human=sys.stderr.isatty(), daemon=name
        )
        self._metrics = Metrics()
        self._slow = SlowLog(self._log, self._clock, settings.slow_operation_ms / 1000)
        self._state = "starting"
        self._exit_code = EXIT_OK
        self._server: Server | None = None
        self._stopping = asyncio.Event()
        self._lag_timer: asyncio.TimerHandle | None = None
        self._describe()

    def _describe(self) -> None:
        metrics = self._metrics
        metrics.gauge("fs3_daemon_info", daemon=self._name, version=fs3.__version__).value = 1
        metrics.gauge("fs3_daemon_start_time_seconds").value = self._clock.wall_ns() / 1e9
        metrics.computed("fs3_daemon_slow_operations_total", lambda: self._slow.slow_count)
        metrics.computed("fs3_daemon_log_lines_lost_total", lambda: self._lines.lost_count)
        self._task_failures = metrics.counter("fs3_daemon_task_failures_total")
        self._loop_lag = metrics.gauge("fs3_daemon_loop_lag_seconds")

    async def run(self, compose: Callable[[Components], Server]) -> int:
        """Everything between settings and exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        http = HttpEndpoint(
            {
                "/metrics": metrics_page(lambda: self._metrics.exposition(with_process=True), CONTENT_TYPE),
                "/healthz": health_page(self._health),
            },
            self._settings.http_host,
            self._settings.http_port,
        )
        components = Components(
            self._clock, system_rng(), self._log, self._metrics, self._slow, self._on_failure
        )
        try:
            async with TaskScope(self._name, self._on_failure) as scope:
                await http.start()
                self._server = compose(components)
                await self._serve(self._server, http, scope)
        except BadSettings as error:
            self._log.error("bad settings", reason=str(error))
            self._exit_code = EXIT_BAD_SETTINGS
        except (Fs3Error, OSError) as error:
            self._log.error("cannot start" if self._state == "starting" else "failed", reason=str(error))
            self._exit_code = EXIT_CANNOT_START if self._state == "starting" else EXIT_FAILED
        finally:
            await self._stop(http)
        return self._exit_code

    async def _serve(self, server: Server, http: HttpEndpoint, scope: TaskScope) -> None:
        """Start, then wait for the end. A signal during the start cancels it."""
        stopped = scope.start("stop signal", self._stopping.wait())
        starting = scope.start("start", server.start())
        await asyncio.wait((stopped, starting), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        await starting
        self._state = "serving"
        gc.collect()
        gc.freeze()  # what lives as long as the process is not looked at again by the collector
        self._expect_tick()
        self._log.info("started", version=fs3.__version__, pid=os.getpid(), http_port=http.port)
        _notify_supervisor("READY=1")
        await stopped

    async def _stop(self, http: HttpEndpoint) -> None:
        self._state = "stopping"
        faulthandler.dump_traceback_later(STOP_LIMIT_S, exit=True)
        _notify_supervisor("STOPPING=1")
        if self._lag_timer is not None:
            self._lag_timer.cancel()
        if self._server is not None:
            await self._server.stop()
        await http.stop()
        self._log.info("stopped", exit_code=self._exit_code)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            os._exit(128 + number)
        self._log.info("stopping", signal=number.name)
        self._stopping.set()

    def _on_failure(self, task: str, error: BaseException) -> None:
        self._task_failures.value += 1
        self._log.error("task failed", task=task, exc_info=error)
        self._exit_code = EXIT_FAILED
        self._stopping.set()

    def _health(self) -> dict[str, object]:
        found: dict[str, object] = {
            "ok": self._state == "serving",
            "state": self._state,
            "daemon": self._name,
        }
        if self._server is not None and self._state == "serving":
            found |= self._server.health()
        return found

    def _expect_tick(self) -> None:
        """Measure once a second how late the loop comes."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + LAG_CHECK_S

        def tick() -> None:
            lag_s = loop.time() - due_s
            self._loop_lag.value = lag_s
            if lag_s > LAG_WARNING_S:
                self._log.warning("event loop was late", lag_ms=round(lag_s * 1000))
            self._expect_tick()

        self._lag_timer = loop.call_at(due_s, tick)


def _notify_supervisor(state: str) -> None:
    """Tell systemd, if it started us and asks for it (sd_notify's protocol); no answer is expected."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address[0] == "@":
        address = "\0" + address[1:]  # a name in the abstract name space
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_supervisor:
        to_supervisor.sendto(state.encode(), address)

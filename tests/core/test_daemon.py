"""Daemons as real processes: exit codes, signals, the stop's limit, HTTP, the supervisor's socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fs3 import daemon

ROOT = Path(__file__).parents[2]


@contextmanager
def program(tmp_path: Path, settings: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    path = tmp_path / "settings.toml"
    path.write_text(settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.core.daemon_program", str(path)],
        cwd=ROOT,
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, object]:
    """The fields of the next log line with this event; fails at the end of the log."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        fields = json.loads(line)
        assert isinstance(fields, dict)
        if fields["event"] == event:
            return fields
    raise AssertionError(f"no {event!r} in:\n{seen}")


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, log = process.communicate(timeout=20)
    return process.returncode, log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_and_stops_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with program(tmp_path, "") as process:
        started = wait_for(process, "started")
        with urllib.request.urlopen(f"http://127.0.0.1:{started['http_port']}/healthz", timeout=10) as answer:
            health = json.load(answer)
        assert health == {"ok": True, "state": "serving", "daemon": "program", "tasks_count": 0}
        with urllib.request.urlopen(f"http://127.0.0.1:{started['http_port']}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert 'fs3_daemon_info{daemon="program"' in text
        assert "process_resident_memory_bytes" in text
        before_s = time.monotonic()
        process.send_signal(number)
        code, log = end(process)
        assert time.monotonic() - before_s < 3
        assert code == daemon.EXIT_OK
        assert '"event": "stopped"' in log


def test_a_bad_setting_is_refused_with_its_line(tmp_path: Path) -> None:
    with program(tmp_path, 'start = "ok"\nstopp = "ok"\n') as process:
        code, log = end(process)
    assert code == daemon.EXIT_BAD_SETTINGS
    assert "settings.toml:2: unknown key 'stopp'; did you mean 'stop'?" in log


def test_a_start_that_is_refused_says_why(tmp_path: Path) -> None:
    with program(tmp_path, 'start = "refuse"') as process:
        code, log = end(process)
    assert code == daemon.EXIT_CANNOT_START
    assert "the store at /x does not answer" in log
    assert "Traceback" not in log


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with program(tmp_path, f"[daemon]\nhttp_port = {port}") as process:
            code, log = end(process)
    assert code == daemon.EXIT_CANNOT_START
    assert "address already in use" in log


def test_a_signal_during_the_start_ends_it(tmp_path: Path) -> None:
    with program(tmp_path, 'start = "hang"') as process:
        wait_for(process, "hanging")
        process.terminate()
        code, log = end(process)
    assert code == daemon.EXIT_OK
    assert '"event": "stopped"' in log


def test_health_is_refused_while_starting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with program(tmp_path, f'start = "hang"\n[daemon]\nhttp_port = {port}') as process:
        wait_for(process, "hanging")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10)
        with caught.value as answer:
            assert answer.code == 503
            assert json.load(answer)["state"] == "starting"


def test_a_failing_background_task_stops_the_daemon(tmp_path: Path) -> None:
    with program(tmp_path, 'serving = "fail"') as process:
        code, log = end(process)
    assert code == daemon.EXIT_FAILED
    assert "ValueError: planted" in log
    assert "program/bad task" in log


@pytest.mark.parametrize("how", ["hang", "block"])
def test_a_stop_that_hangs_shows_its_stack_and_ends_in_time(tmp_path: Path, how: str) -> None:
    with program(tmp_path, f'stop = "{how}"') as process:
        wait_for(process, "started")
        before_s = time.monotonic()
        process.terminate()
        code, log = end(process)
        assert time.monotonic() - before_s < 3.5
    assert code == daemon.EXIT_FAILED
    assert "Timeout (0:00:02.8" in log
    assert how == "hang" or "in stop" in log


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with program(tmp_path, 'stop = "hang"') as process:
        wait_for(process, "started")
        process.terminate()
        wait_for(process, "stopping")
        process.terminate()
        assert end(process)[0] == 128 + signal.SIGTERM


def test_the_supervisor_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(20)
        with program(tmp_path, "", NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert supervisor.recv(100) == b"READY=1"
            process.terminate()
            assert supervisor.recv(100) == b"STOPPING=1"
            assert end(process)[0] == 0


def test_optimized_python_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", "import fs3"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "run it without -O" in done.stderr

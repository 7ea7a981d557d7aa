"""``fs3 kv`` as a real process: serves, exports what it counts, refuses a second owner, stops cleanly."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from fs3 import daemon
from fs3.clock import SystemClock
from fs3.kv.lmdb_client import LmdbKv, LmdbSettings

ROOT = Path(__file__).parents[2]


def start(tmp_path: Path) -> subprocess.Popen[str]:
    settings = tmp_path / "kv.toml"
    settings.write_text('directory = "store"\n')
    command = [sys.executable, "-m", "fs3.deploy.main", "kv", "--config", str(settings)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def started_port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        fields = json.loads(line)
        if fields["event"] == "started":
            return int(fields["http_port"])
    raise AssertionError("did not start")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    assert isinstance(text, str)
    return text


async def test_serves_and_exports(tmp_path: Path) -> None:
    process = start(tmp_path)
    try:
        port = started_port(process)
        kv = LmdbKv(LmdbSettings(tmp_path / "store"), clock=SystemClock())
        transaction = kv.transaction()
        transaction.set(b"a", b"1")
        await transaction.commit()
        await kv.aclose()
        text = get(f"http://127.0.0.1:{port}/metrics")
        assert 'fs3_kv_owner_commits_total{verdict="committed"} 1.0' in text
        second = start(tmp_path)
        _, log = second.communicate(timeout=20)
        assert second.returncode == daemon.EXIT_CANNOT_START
        assert "has an owner already" in log
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == daemon.EXIT_OK
    finally:
        process.kill()
        process.communicate()

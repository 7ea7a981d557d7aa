"""A development cluster for tests, driven by the ``fs3`` command as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class DevCluster:
    """A directory with a cluster in it, and a configuration directory of its own."""

    home: Path

    @property
    def directory(self) -> Path:
        return self.home / "a cluster"  # a path with a space is a path like any other

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FS3_CONFIG_DIR": str(self.home / "config")}

    def fs3(self, *words: str, user_input: str = "") -> Done:
        """Run ``fs3 WORDS``."""
        done = subprocess.run(
            [sys.executable, "-m", "fs3.deploy.main", *words],
            input=user_input,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=COMMAND_TIMEOUT_S,
            cwd=self.home,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def dev(self, *words: str) -> Done:
        """Run ``fs3 dev WORDS --dir …``."""
        return self.fs3("dev", *words, "--dir", str(self.directory))

    def ok(self, *words: str) -> Done:
        """Run ``fs3 WORDS``, which must succeed."""
        done = self.fs3(*words)
        assert done.code == 0, (words, done)
        return done

    def status(self) -> dict[str, Any]:
        """What ``fs3 dev status --json`` says."""
        found = json.loads(self.dev("status", "--json").out)
        assert isinstance(found, dict)
        return found

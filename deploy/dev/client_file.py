"""Where clients find a development cluster: a file with seeds and a token, readable by its user only.

Written into the cluster's directory, and as cluster ``dev`` into the user's configuration directory, so that
``fs3 ls fs3://dev/`` works at once. The token is an administrator's for the user who started the cluster.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from fs3.identity.keys import ClusterKey
from fs3.identity.token import TokenClaims, make_token

from .plan import ClusterPlan

NAME = "dev"
TOKEN_NONCE_BYTES = 16


def configuration_directory() -> Path:
    """``$FS3_CONFIG_DIR``, else ``~/.config/fs3``."""
    named = os.environ.get("FS3_CONFIG_DIR")
    return Path(named) if named else Path.home() / ".config" / "fs3"


def publish_client(directory: Path, key: ClusterKey, plan: ClusterPlan) -> None:
    """Write both files; a token that is there already is kept."""
    own = directory / "client.toml"
    if not own.exists():
        claims = TokenClaims(
            cluster=key.cluster,
            key_id=key.key_id,
            uid=os.getuid(),
            gid=os.getgid(),
            is_admin=True,
            nonce=secrets.token_bytes(TOKEN_NONCE_BYTES),
        )
        token = make_token(key, claims).to_text()
        _write(own, _text(key.cluster, plan.mgmtds(), token))
    shared = configuration_directory() / f"{NAME}.toml"
    shared.parent.mkdir(parents=True, exist_ok=True)
    _write(shared, own.read_text())


def forget_client(directory: Path) -> None:
    """Remove the user's file if it is this cluster's."""
    shared, own = configuration_directory() / f"{NAME}.toml", directory / "client.toml"
    if shared.exists() and own.exists() and shared.read_text() == own.read_text():
        shared.unlink()


def _text(cluster: str, seeds: tuple[str, ...], token: str) -> str:
    return f"cluster_id = {json.dumps(cluster)}\nseeds = {json.dumps(seeds)}\ntoken = {json.dumps(token)}\n"


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)

"""The file that holds the cluster key, and what comes from the operating system's entropy.

Text, one ``name = value`` a line: ``cluster``, ``key_id`` and ``secret`` (64 hex digits). It must not be
readable by others (mode 0600 or stricter).
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from .keys import NONCE_BYTES, SECRET_BYTES, ClusterKey


class KeyFileError(Exception):
    """The key file is missing, readable by others, or no key file; the message says what to do."""


def new_cluster_key(cluster: str, key_id: int = 1) -> ClusterKey:
    """A fresh key from the operating system's entropy."""
    return ClusterKey(cluster, key_id, secrets.token_bytes(SECRET_BYTES))


def new_cluster_name() -> str:
    """A cluster id that nobody else has: 16 hex digits."""
    return secrets.token_hex(8)


def system_nonce() -> bytes:
    """A nonce from the operating system: what daemons hand in as ``make_nonce``."""
    return secrets.token_bytes(NONCE_BYTES)


def write_cluster_key(path: Path, key: ClusterKey) -> None:
    """Create the key file, mode 0600. FileExistsError if there is one: a key is never overwritten."""
    text = f"cluster = {key.cluster}\nkey_id = {key.key_id}\nsecret = {key.secret.hex()}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_cluster_key(path: Path) -> ClusterKey:
    """The key in a file. KeyFileError with the file named and what to do about it."""
    try:
        with open(path, encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(4096)
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"cannot read the cluster key {path}: {error}") from error
    if mode & 0o077:
        raise KeyFileError(f"{path} can be read by others (mode {mode:04o}): chmod 600 it")
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        values[name.strip()] = value.strip()
    try:
        return ClusterKey(values["cluster"], int(values["key_id"]), bytes.fromhex(values["secret"]))
    except (KeyError, ValueError, AssertionError) as error:
        raise KeyFileError(f"{path} is no cluster key file: {error!r}") from error

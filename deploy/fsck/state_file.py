"""The file in which a check keeps how far it has come, for ``--resume``."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from fs3.meta.fsck.check import STATE_VERSION, State


class StateFileError(Exception):
    """The file cannot be used; the message says why and what to do."""


def load_state(path: Path) -> State | None:
    """What an earlier run kept; None: there is nothing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateFileError(f"{path}: {error.strerror}") from error
    try:
        state = msgspec.json.decode(data, type=State)
    except msgspec.DecodeError as error:
        raise StateFileError(
            f"{path} holds no state of fs3 fsck ({error}): remove it to start anew"
        ) from error
    if state.version != STATE_VERSION:
        raise StateFileError(f"{path} is of another version of fs3: remove it to start anew")
    return state


def save_state(path: Path, state: State) -> None:
    """Replace the file as a whole."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StateFileError(f"{path}: {error.strerror}") from error

"""What an open mode string asks for. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class OpenFlags:
    """The meaning of ``"rb"``, ``"r+b"``, ``"wb"``, ``"xb"``, ``"ab"`` and their ``+`` forms."""

    readable: bool
    writable: bool
    append: bool = False
    creates: bool = False
    exclusive: bool = False
    truncates: bool = False


@lru_cache(maxsize=64)
def parse_mode(mode: str) -> OpenFlags:
    """ValueError for what is no binary mode; text is for ``open_text``."""
    kinds = [letter for letter in mode if letter in "rwxa"]
    if len(kinds) != 1 or set(mode) - set("rwxab+") or len(set(mode)) != len(mode):
        raise ValueError(f"not a mode: {mode!r} (one of rb, wb, xb, ab, perhaps with +)")
    if "b" not in mode:
        raise ValueError(f"mode {mode!r} is for text: open as {mode + 'b'!r}, or use open_text")
    kind, plus = kinds[0], "+" in mode
    return OpenFlags(
        readable=kind == "r" or plus,
        writable=kind != "r" or plus,
        append=kind == "a",
        creates=kind != "r",
        exclusive=kind == "x",
        truncates=kind == "w",
    )

"""The content of a small file while it is written: what it was, and the edits since. PURE.

Edits are kept beside their outcome, so that they can be made again on another base, when somebody else has
written the file meanwhile (design 3.9: a writer names the content version that it started from).
"""

from __future__ import annotations

from typing import NamedTuple

from fs3.rpc.service import Buffer

EDITS_MAX = 1024
"""Edits kept; whoever has more stores the content first."""


class Edit(NamedTuple):
    """One change. ``offset_bytes`` None: at the end, wherever that is; ``data`` None: cut to the offset."""

    offset_bytes: int | None
    data: bytes | None


def _apply(content: bytearray, edit: Edit) -> None:
    offset, data = edit
    if data is None:
        assert offset is not None
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    at = len(content) if offset is None else offset
    if at > len(content):
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


class SmallContent:
    """Content with the edits that are not stored yet."""

    def __init__(self, base: bytes = b"") -> None:
        self.content = bytearray(base)
        self._edits: list[Edit] = []

    def __len__(self) -> int:
        return len(self.content)

    @property
    def is_dirty(self) -> bool:
        """There are edits that are not stored."""
        return bool(self._edits)

    @property
    def has_many_edits(self) -> bool:
        """Time to store them."""
        return len(self._edits) >= EDITS_MAX

    def end_after(self, offset_bytes: int | None, length_bytes: int) -> int:
        """How long the content would be after a write."""
        at = len(self.content) if offset_bytes is None else offset_bytes
        return max(len(self.content), at + length_bytes) if length_bytes else len(self.content)

    def write(self, offset_bytes: int | None, data: Buffer) -> int:
        """Write at an offset, or append (None); returns the end of what was written."""
        at = len(self.content) if offset_bytes is None else offset_bytes
        kept = bytes(data)
        if kept:
            self._note(Edit(offset_bytes, kept))
        return at + len(kept)

    def truncate(self, length_bytes: int) -> None:
        """Cut or extend with zeros."""
        self._note(Edit(length_bytes, None))

    def _note(self, edit: Edit) -> None:
        self._edits.append(edit)
        _apply(self.content, edit)

    def rebase(self, base: bytes) -> None:
        """Make the edits again on what somebody else has written meanwhile."""
        self.content = bytearray(base)
        for edit in self._edits:
            _apply(self.content, edit)

    def take_edits(self) -> list[Edit]:
        """The edits, to be made elsewhere."""
        edits, self._edits = self._edits, []
        return edits

    def stored(self) -> None:
        """The content as it is now is stored."""
        self._edits.clear()

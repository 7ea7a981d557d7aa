"""What servers and clients of a world may show because of faults that nothing can make good at once."""

from __future__ import annotations

import math


class Allowed:
    """Noted by the faults, asked by those who judge."""

    def __init__(self) -> None:
        self.full: dict[str, None] = {}
        """Hosts whose disks something else has filled."""
        self.full_until_s = -math.inf
        """The last of them had room again then; inf: one is full now."""
        self.spoiled: dict[str, None] = {}
        """Hosts whose disks hold bytes that were changed behind the back of their servers."""
        self.no_right_bytes_s = -math.inf
        """Until then one of them may have been a chain's only serving member."""
        self.may_fence: dict[str, None] = {}
        """Hosts whose clocks were made wrong: their servers are expected to end."""
        self.fenced: dict[str, None] = {}
        """Those that did."""

    def may_be_full(self, since_s: float) -> bool:
        """Whether a disk was full at some time since then: a client may have been told so (ENOSPC)."""
        return since_s <= self.full_until_s

    def may_lack_right_bytes(self, since_s: float) -> bool:
        """Whether a member with spoiled bytes was alone at some time since then: a reader may have been told
        that there are none that match their sums (EIO)."""
        return since_s <= self.no_right_bytes_s

    def may_go_offline(self, host: str, reason: str) -> bool:
        """Whether a target may go out of use: its disk was made to fail, or a pending version was spoiled."""
        return reason.startswith("disk:") or (host in self.spoiled and reason.startswith("pending version"))

"""Settings of a client, and what it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fs3.clock import Clock
from fs3.rng import Rng
from fs3.rpc.service import Caller
from fs3.rpc.thread_calls import ThreadCall
from fs3.stubs.storage import RoutingSource

MIB = 1 << 20
UNTIL_DONE_S = math.inf
"""As a time limit: there is none."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a user may turn.

    By default calls wait until they are done, as on a hard mount: a cluster that is away makes programs wait
    and not fail. ``deadline`` bounds single calls; ``BOUNDED`` has limits for all.
    """

    meta_timeout_s: float = UNTIL_DONE_S
    """Of one operation on names and attributes, all retries included."""
    read_timeout_s: float = UNTIL_DONE_S
    """Of one read or batch."""
    write_timeout_s: float = UNTIL_DONE_S
    """Of one write to a chain; a chain whose member is away makes writes wait (design 8)."""
    bytes_in_flight_max: int = 64 * MIB
    """Bytes of reads under way in the process; further requests wait."""
    writes_in_flight_max: int = 8
    """Chunk writes under way in the process (design 5.3: more gains nothing)."""
    readahead_bytes_max: int = 8 * MIB
    """Of one sequentially read file; 0: none."""
    write_behind_bytes_max: int = 8 * MIB
    """Of one file: bytes that ``write`` has taken and the chains have not; 0: each write waits."""
    hedge: bool = True
    """Ask a second replica when the first takes long (design 6.2)."""
    description: str = ""
    """Shown in the list of sessions."""


BOUNDED = ClientSettings(meta_timeout_s=30.0, read_timeout_s=60.0, write_timeout_s=300.0)
"""As on a soft mount: what the cluster does not do in time fails with ETIMEDOUT. For commands and probes;
longer than a chain needs to leave a dead member behind."""


class BulkThreadCaller(Protocol):
    """What a thread may call without the event loop (``BulkClient``, ``ThreadCaller``)."""

    def call_all(self, calls: Sequence[ThreadCall], timeout_s: float) -> None: ...


@dataclass(slots=True)
class Components:
    """What a client is made of; a simulated world hands in its own."""

    caller: Caller
    routing: RoutingSource
    clock: Clock
    rng: Rng
    make_nonce: Callable[[], bytes]
    """16 unpredictable bytes each time."""
    host: str = ""
    """This machine's name, shown in the list of sessions."""
    blocking: BulkThreadCaller | None = None
    """For threads that do large reads themselves; None: everything goes through the loop."""
    threads: BulkThreadCaller | None = None
    """For threads that do small reads themselves; None: everything goes through the loop."""

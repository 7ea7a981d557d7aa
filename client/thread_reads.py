"""Reads in the calling thread, past the event loop: about 100 µs less for each large read ([dp D]).

Only what is simple goes this way: one request, to one server that knows the capability, for bytes of files
that lie in chunks. Everything else, and whatever fails here, takes the ordinary way, which knows about
retries; a request that is late is given up here after the hedge time and asked of another replica there.

Shared state is only read here, or written in ways that a thread may (a turn, a sample, a counter).
"""

from __future__ import annotations

from collections.abc import Sequence

from fs3.errors import Fs3Error, StaleRouting, Unavailable
from fs3.wire.storage import READ

from .core import ClientCore, Wanted
from .file import AsyncFile
from .open_files import OpenFile
from .plan import BULK_BYTES_MIN, Batch
from .reader import ATTEMPT_TIMEOUT_S
from .receiving import ReadSink
from .settings import BlockingCaller


def read_here(
    core: ClientCore, ranges: Sequence[tuple[AsyncFile, int, int]], views: Sequence[memoryview]
) -> list[int] | None:
    """Fill the views and say how many bytes each got; None: do it the ordinary way."""
    if not ranges or ranges[0][2] < BULK_BYTES_MIN:
        return None  # small ones go together, over the small plane
    wanted: list[Wanted] = []
    for (file, offset, _), view in zip(ranges, views, strict=True):
        open_file = None if file.closed else file.open_file
        if open_file is None or offset < 0 or open_file.is_inline:
            return None
        if core.is_length_doubtful(open_file, offset + len(view)):
            return None
        wanted.append((open_file, offset, view))
    if any(file.session is not wanted[0][0].session for file, _, _ in wanted):
        return None
    counts = [0] * len(wanted)
    pieces = core.pieces_of(wanted, range(len(wanted)), counts)
    if not pieces:
        return counts
    try:
        batches = core.reader.plan(pieces)
    except StaleRouting:
        return None
    if len(batches) != 1 or not batches[0].is_bulk:
        return None
    return counts if _call(core, batches[0]) else None


def _call(core: ClientCore, batch: Batch[OpenFile]) -> bool:
    """Send the one request; whether everything came."""
    caller = core.components.blocking
    session = batch.pieces[0].file.session
    known = session.capabilities.is_presented
    if caller is None or not all(known(batch.address, piece.file.capability) for piece in batch.pieces):
        return False
    return _exchange(core, caller, batch)


def _exchange(core: ClientCore, caller: BlockingCaller, batch: Batch[OpenFile]) -> bool:
    reader, clock = core.reader, core.clock
    sink = ReadSink(batch.pieces)
    timeout_s = min(core.settings.read_timeout_s, ATTEMPT_TIMEOUT_S)
    hedge_s = reader.latencies.hedge_after_s(batch.bytes)
    if core.settings.hedge and reader.hedges.has_token:
        timeout_s = min(timeout_s, hedge_s)
    started_s = clock.boot_s()
    reader.hedges.earn()
    try:
        request = reader.request(batch.pieces[0].file.session, batch.pieces)
        caller.call_blocking(batch.address, READ, request, timeout_s=timeout_s, sink=sink)
    except Fs3Error as error:
        if clock.boot_s() - started_s >= hedge_s or isinstance(error, Unavailable):
            reader.hedges.spend()
            reader.replicas.suspect(batch.address, clock.boot_s())
        return False
    if sink.missing():
        return False
    reader.note(batch, clock.boot_s() - started_s)
    return True

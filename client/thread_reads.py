"""Reads in the calling thread, past the event loop: about 100 µs less for each ([dp A, D]).

Only what is simple goes this way: small requests, or one large one to a server that knows the capability,
for bytes of files that lie in chunks. Everything else, and whatever fails here, takes the ordinary way,
which knows about retries; a request that is late is given up here after the hedge time and asked of another
replica there.

Shared state is only read here, or written in ways that a thread may (a turn, a sample, a counter).
"""

from __future__ import annotations

from collections.abc import Sequence

from fs3.errors import CapabilityExpired, Fs3Error, MaybeApplied, StaleRouting, Unavailable
from fs3.rpc.thread_calls import ThreadCall
from fs3.wire.storage import PRESENT, READ

from .core import ClientCore, Wanted
from .deadlines import time_left_s
from .file import AsyncFile
from .open_files import OpenFile
from .plan import Batch
from .reader import ATTEMPT_TIMEOUT_S
from .receiving import ReadSink
from .selection import SILENT_S
from .settings import BulkThreadCaller
from .small_plan import plan_small


def read_here(
    core: ClientCore, ranges: Sequence[tuple[AsyncFile, int, int]], views: Sequence[memoryview]
) -> list[int] | None:
    """Fill the views and say how many bytes each got; None: do it the ordinary way."""
    try:
        batches = plan_small(core, ranges, views)
    except StaleRouting:
        return None
    if not batches:
        return _read_any_here(core, ranges, views)
    return [len(view) for view in views] if _exchange(core, core.components.threads, batches) else None


def _read_any_here(
    core: ClientCore, ranges: Sequence[tuple[AsyncFile, int, int]], views: Sequence[memoryview]
) -> list[int] | None:
    wanted: list[Wanted] = []
    for (file, offset, _), view in zip(ranges, views, strict=True):
        open_file = None if file.closed else file.open_file
        if open_file is None or offset < 0 or open_file.is_inline:
            return None
        if core.is_length_doubtful(open_file, offset + len(view)):
            return None
        wanted.append((open_file, offset, view))
    if not wanted or any(file.session is not wanted[0][0].session for file, _, _ in wanted):
        return None
    counts = [0] * len(wanted)
    pieces = core.pieces_of(wanted, range(len(wanted)), counts)
    if not pieces:
        return counts
    try:
        batches = core.reader.plan(pieces)
    except StaleRouting:
        return None
    return counts if _read_all(core, batches) else None


def _read_all(core: ClientCore, batches: Sequence[Batch[OpenFile]]) -> bool:
    """Send the requests of each plane at once, large ones first; whether everything came."""
    components = core.components
    bulk = [batch for batch in batches if batch.is_bulk]
    small = [batch for batch in batches if not batch.is_bulk]
    if components.blocking is None and bulk:
        return False
    return (not bulk or _exchange(core, components.blocking, bulk)) and (
        not small or _exchange(core, components.threads, small)
    )


def _exchange(core: ClientCore, caller: BulkThreadCaller | None, batches: Sequence[Batch[OpenFile]]) -> bool:
    """Send all requests at once; whether everything came."""
    reader, threads = core.reader, core.components.threads
    if caller is None or threads is None:
        return False
    session = batches[0].pieces[0].file.session
    sinks = [ReadSink(batch.pieces) for batch in batches]
    timeout_s, hedge_s = _times(core, batches)
    try:
        _present(threads, batches, timeout_s)
        calls = [
            ThreadCall(batch.address, READ, reader.request(session, batch.pieces), sink)
            for batch, sink in zip(batches, sinks, strict=True)
        ]
        caller.call_all(calls, timeout_s)
    except Fs3Error:
        return False
    for batch, call, sink in zip(batches, calls, sinks, strict=True):
        if sink.failed:
            reader.doubt(batch, sink)
            _forget_expired(batch, sink)
        if call.error is None:
            reader.note(batch, call.took_s)
        elif call.took_s >= hedge_s or isinstance(call.error, Unavailable | MaybeApplied):
            _suspect(core, batch)
    return not any(call.error or sink.missing() for call, sink in zip(calls, sinks, strict=True))


def _forget_expired(batch: Batch[OpenFile], sink: ReadSink[OpenFile]) -> None:
    """Capabilities that the server does not know any more are presented before they are named again."""
    for at, error in sink.failed.items():
        if isinstance(error, CapabilityExpired):
            file = batch.pieces[at].file
            file.session.capabilities.forget(batch.address, file.capability)


def _present(caller: BulkThreadCaller, batches: Sequence[Batch[OpenFile]], timeout_s: float) -> None:
    """Tell the servers the capabilities that they do not know yet. CapabilityExpired; Busy."""
    calls: list[ThreadCall] = []
    capabilities = batches[0].pieces[0].file.session.capabilities
    for batch in batches:
        numbers = dict.fromkeys([piece.file.capability for piece in batch.pieces])
        requests = capabilities.to_present(batch.address, numbers)
        calls += [ThreadCall(batch.address, PRESENT, request) for request in requests]
    if not calls:
        return
    caller.call_all(calls, timeout_s)
    for call in calls:
        if call.error is None:
            capabilities.was_presented(call.address, call.request)


def _times(core: ClientCore, batches: Sequence[Batch[OpenFile]]) -> tuple[float, float]:
    """How long to wait for these requests here, and from when on another replica would be asked."""
    reader = core.reader
    timeout_s = min(core.settings.read_timeout_s, ATTEMPT_TIMEOUT_S)
    left_s = time_left_s()
    if left_s is not None:
        timeout_s = max(0.001, min(timeout_s, left_s))
    hedge_s = max([reader.latencies.hedge_after_s(batch.bytes) for batch in batches])
    for _ in batches:
        reader.hedges.earn()
    if core.settings.hedge:  # without a token: the ordinary way sees whether the server is slow or silent
        timeout_s = min(timeout_s, hedge_s if reader.hedges.has_token else max(hedge_s, SILENT_S))
    return timeout_s, hedge_s


def _suspect(core: ClientCore, batch: Batch[OpenFile]) -> None:
    core.reader.hedges.spend()
    core.reader.replicas.suspect(batch.address, core.clock.boot_s())

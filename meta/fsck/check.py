"""The check: names, inodes with their chunks, sessions, intents; in bounded memory, resumable.

Inode space is walked in parts (``names``). Of each part all entries are counted, then its inodes are read in
windows, each at one read version, together with the chunks of the same numbers on all chains. What changes
of the moment may explain is looked at again before it is reported:

=================  ===========================================================================
names              counted again twice, then judged at one read version
chunks             unchanged before and after their inode was read again
replicas           two looks at one chain version, of which nothing but the difference remains
intents            the same after ``patience_s``
=================  ===========================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from fs3.clock import Clock
from fs3.errors import Fs3Error, Unavailable
from fs3.ids import ChainId, ChunkId, InodeId
from fs3.kv.schema import range_of
from fs3.stubs.storage import for_each
from fs3.tasks import TaskScope
from fs3.wire.meta import Storage

from ..allocate import Placement
from ..inode import Inode, inode_count
from ..intents import CUTS, REMOVALS, SETTLEMENTS, SPILLS
from . import inodes
from .chunks import Row, differences, judge_chunk, judge_end, present_length
from .findings import Finding, Kind
from .inodes import NEEDS_NAMES, inode_in
from .names import INODE_SPACE, Names, parts
from .replicas import ChainReader, Lister, look, settled
from .sessions import PREFIXES
from .walk import Entry, Seen, Walk, confirmed

CHAINS_AT_ONCE = 32
RECOUNTS = 2
INTENTS_MAX = 100_000
INTENT_POLL_S = 1.0
STATE_VERSION = 1


class State(msgspec.Struct, kw_only=True):
    """How far a check has come: what a later run needs to go on."""

    version: int = STATE_VERSION
    inode_count: int = 0
    """When it began: decides the parts."""
    next_inode: int = 0
    """All inodes below were checked."""
    inodes: int = 0
    entries: int = 0
    chunks: int = 0
    findings: list[Finding] = []
    unconfirmed: list[Finding] = []
    """Of the part that it is in: names that are to be counted again."""
    problems: list[str] = []
    """What could not be checked."""

    @property
    def share(self) -> float:
        """Part of inode space that was checked, 0 … 1."""
        return self.next_inode / INODE_SPACE


@dataclass(frozen=True, slots=True)
class CheckParts:
    """What a check works with."""

    walk: Walk
    lister: Lister
    placement: Placement
    all_chains: Callable[[], Sequence[ChainId]]
    clock: Clock
    scope: TaskScope
    save: Callable[[State], None]
    """Called after each window: keep the state, show progress."""
    patience_s: float = 30.0
    """How long an intent may stay as it is before it is reported."""


class Check:
    """One check, from the beginning or from where an earlier one ended."""

    def __init__(self, made_of: CheckParts, state: State) -> None:
        self._made_of = made_of
        self.state = state
        self._known = {finding.identity: None for finding in state.findings}

    async def run(self) -> State:
        """Check everything; the state holds what was found. Fs3Error: the KV store cannot be reached."""
        parts_of, state = self._made_of, self.state
        began_s = parts_of.clock.boot_s()
        intents = await self._intents()
        if not state.inode_count:
            state.inode_count = max(1, await parts_of.walk.transact(inode_count))
        for part in parts(state.inode_count):
            if state.next_inode < part.end:
                await self._part(part.holds, part.end - 1)
        for prefix in PREFIXES:
            await parts_of.walk.session_records(prefix, self._report)
        await self._old_intents(intents, began_s)
        parts_of.save(state)
        return state

    def _report(self, finding: Finding) -> None:
        if finding.identity not in self._known:
            self._known[finding.identity] = None
            self.state.findings.append(finding)

    # -- inodes

    async def _part(self, holds: Callable[[int], bool], last: int) -> None:
        state, walk = self.state, self._made_of.walk
        names = Names(holds)
        entries = await walk.entries(lambda one: names.add(one.directory, one.entry), self._report)
        state.entries = max(state.entries, entries)
        low = state.next_inode
        behind = ChunkId(InodeId(low - 1), 0xFFFFFFFF) if low else None
        readers = [ChainReader(self._made_of.lister, c, behind) for c in self._made_of.all_chains()]
        while low <= last:
            low = await self._window(names, readers, low, last)
            if low > last:
                await self._confirm_names()
                state.problems += [problem for reader in readers for problem in reader.problems]
            state.next_inode = low
            self._made_of.save(state)

    async def _window(self, names: Names, readers: list[ChainReader], low: int, last: int) -> int:
        """Check the next inodes; where the ones behind them begin."""
        seen = await self._made_of.walk.window(low, last)
        judged = inodes.judge(seen.window, names)
        found = [*judged.findings, *inodes.missing(names, seen.window, low, seen.high)]
        for finding in found:
            if finding.kind in NEEDS_NAMES:
                self.state.unconfirmed.append(finding)
            else:
                self._report(finding)
        await self._chunks(readers, seen, judged.records)
        self.state.inodes += len(seen.window.inodes)
        return seen.high + 1

    async def _confirm_names(self) -> None:
        """Count the names of what was found again: only what stays wrong is reported."""
        state, walk = self.state, self._made_of.walk
        for turn in range(RECOUNTS):
            if not state.unconfirmed:
                return
            wanted: dict[int, list[Entry]] = {finding.inode: [] for finding in state.unconfirmed}

            def take(one: Entry, wanted: dict[int, list[Entry]] = wanted) -> None:
                if one.entry.inode in wanted:
                    wanted[one.entry.inode].append(one)

            await walk.entries(take, self._report)
            left: list[Finding] = []
            for finding in state.unconfirmed:
                names = wanted[finding.inode]
                again = await walk.transact(lambda txn, f=finding, n=names: confirmed(txn.snapshot, f, n))  # type: ignore[misc]
                if again is not None:
                    left.append(again)
            state.unconfirmed = left
            if turn == RECOUNTS - 1:
                for finding in left:
                    self._report(finding)
        state.unconfirmed = []

    # -- chunks

    async def _chunks(
        self, readers: list[ChainReader], seen: Seen, records: dict[InodeId, Inode | None]
    ) -> None:
        """Everything that the chains have of a window's inodes."""
        ends: dict[InodeId, int] = {}

        async def one(reader: ChainReader) -> None:
            for chunk, row in await reader.through(InodeId(seen.high)):
                self.state.chunks += 1
                await self._chunk(reader, chunk, row, seen, records, ends)

        await for_each(self._made_of.scope, "chains", one, readers, at_once=CHAINS_AT_ONCE)
        if any(reader.is_incomplete for reader in readers):
            return  # what was not read is not missing
        for inode, record in records.items():
            if record is None or not record.is_file:
                continue
            is_open = inode in seen.opened
            if any(judge_end(record, ends.get(inode, 0), is_open=is_open)):
                await self._confirm_end(inode)

    async def _chunk(
        self,
        reader: ChainReader,
        chunk: ChunkId,
        row: Row,
        seen: Seen,
        records: dict[InodeId, Inode | None],
        ends: dict[InodeId, int],
    ) -> None:
        if differences(reader.chain, chunk, row):
            row, found, problem = await settled(self._made_of.lister, reader.chain, chunk, row)
            for finding in found:
                self._report(finding)
            if problem:
                self.state.problems.append(problem)
        length_bytes = present_length(row)
        if length_bytes is None:
            return
        record = records.get(chunk.inode)
        if record is None and chunk.inode in records:
            return  # its inode cannot be read: that is reported
        if record is not None and record.layout is not None:
            end = chunk.chunk_index * record.layout.chunk_size_bytes + length_bytes
            ends[chunk.inode] = max(end, ends.get(chunk.inode, 0))
        if self._judge(reader.chain, chunk, length_bytes, record, chunk.inode in seen.opened):
            await self._confirm_chunk(reader.chain, chunk)

    def _judge(
        self, chain: ChainId, chunk: ChunkId, length_bytes: int, record: Inode | None, is_open: bool
    ) -> list[Finding]:
        chains: tuple[ChainId, ...] = ()
        if record is not None and record.layout is not None:
            try:
                chains = self._made_of.placement.chains_of(record.layout)
            except Unavailable:
                chains = ()  # its table is in no routing: where it lies is not known
        return list(judge_chunk(chain, chunk, length_bytes, record, chains, is_open=is_open))

    async def _confirm_chunk(self, chain: ChainId, chunk: ChunkId) -> None:
        """The chunk, its inode, the chunk again: what is the same before and after was so in between."""
        lister, walk = self._made_of.lister, self._made_of.walk
        try:
            before = await look(lister, chain, chunk)
            seen = await walk.window(chunk.inode, chunk.inode)
            after = await look(lister, chain, chunk)
        except Fs3Error as error:
            self.state.problems.append(f"chain {chain}, chunk {chunk} was not looked at again: {error}")
            return
        length_bytes = present_length(after)
        if before != after or length_bytes is None:
            return  # it is being written or removed
        record = inodes.judge(seen.window, None).records.get(chunk.inode)
        if record is None and chunk.inode in seen.window.inodes:
            return
        for finding in self._judge(chain, chunk, length_bytes, record, chunk.inode in seen.opened):
            self._report(finding)

    async def _confirm_end(self, inode: InodeId) -> None:
        """Where the chunks of a file end, with the same inode before and after."""
        walk = self._made_of.walk
        before = await walk.window(inode, inode)
        record = inodes.judge(before.window, None).records.get(inode)
        if record is None or record.layout is None or record.storage is not Storage.CHUNKED:
            return
        size = record.layout.chunk_size_bytes
        end = 0
        try:
            for chain in sorted(dict.fromkeys(self._made_of.placement.chains_of(record.layout))):
                reader = ChainReader(self._made_of.lister, chain, _first_behind(inode))
                for chunk, row in await reader.through(inode):
                    end = max(end, chunk.chunk_index * size + (present_length(row) or 0))
                if reader.is_incomplete:
                    return
        except Fs3Error:
            return
        after = await walk.window(inode, inode)
        if after.window == before.window and not (before.opened or after.opened):
            for finding in judge_end(record, end, is_open=False):
                self._report(finding)

    # -- intents

    async def _intents(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for prefix in (CUTS, SPILLS, SETTLEMENTS, REMOVALS):
            begin, end = range_of(prefix)
            found.update(await self._made_of.walk.page(begin, end, INTENTS_MAX))
        return found

    async def _old_intents(self, first: dict[bytes, bytes], began_s: float) -> None:
        """Those that are still as they were when the check began, ``patience_s`` ago at least."""
        clock, patience_s = self._made_of.clock, self._made_of.patience_s
        while True:
            now = await self._intents()
            first = {key: value for key, value in first.items() if now.get(key) == value}
            if not first or clock.boot_s() - began_s >= patience_s:
                break
            await asyncio.sleep(min(INTENT_POLL_S, max(0.01, began_s + patience_s - clock.boot_s())))
        wrong = {finding.key: None for finding in self.state.findings}
        for key in sorted(first):
            inode = inode_in(key)
            if inode is None or key in wrong:
                continue
            seen = await self._made_of.walk.window(inode, inode)
            if seen.opened or inode not in seen.window.inodes:
                continue  # a removal waits for its writers; one of no inode is reported as a stray record
            age_s = clock.boot_s() - began_s
            self._report(
                Finding(
                    kind=Kind.OLD_INTENT,
                    where=f"record {key[:4].decode()} of inode {inode:x}",
                    detail=f"as it was {age_s:.0f} s ago",
                    inode=inode,
                    key=key,
                )
            )


def _first_behind(inode: InodeId) -> ChunkId | None:
    return ChunkId(InodeId(inode - 1), 0xFFFFFFFF) if inode else None

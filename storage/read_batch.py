"""One batch read: which version each item gets, and the parts of the answer (design 4.4, 4.8, 5.1).

First *all* versions are chosen, then leases are checked, then bytes are read: a read linearizes where its
version was chosen and the lease was checked, however long the sending takes. So parts are built from exactly
the identities that were chosen; one that was overwritten twice meanwhile is answered Busy.

Runs in threads of the bulk plane, too: it calls the store (thread-safe) and reads the target's standing,
which is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from fs3.errors import Busy, CorruptData, Fs3Error, InvalidRequest, StaleFile, StaleRouting, to_wire
from fs3.identity.capability import Rights
from fs3.ids import ChainId, ChainVersion, ChunkId, Epoch, InodeId
from fs3.rpc.service import Buffer, FileRegion, PeerIdentity, Reply
from fs3.wire.chunk import CHUNK_BYTES_MAX, Identity
from fs3.wire.storage import READ_ITEMS_MAX, ReadItem, ReadRequest, ReadResponse, ReadResult

from .disk import DiskFailed
from .engine.versions import ReadHandle
from .node import StorageNode
from .reading import Ask, Serve, Stale, choose_after_answer, choose_at_once
from .runner import TargetRunner

PART_BYTES = 1 << 20
"""Payload of one part of an answer: at most this, or one item."""
BATCH_BYTES_MAX = 256 << 20
"""Bytes that one request may ask for."""
SEND_FILE_BYTES = 32 * 1024
"""From this length on bytes go from the page cache to the socket; below, a copy costs less."""

Choice = Serve | Ask | Fs3Error


class WouldWait(Exception):
    """Bytes are not in the page cache: build the part where waiting is allowed."""


class ReadBatch:
    """The items of a request, in its order."""

    def __init__(self, node: StorageNode, peer: PeerIdentity, request: ReadRequest) -> None:
        """InvalidRequest when the numbers cannot be."""
        _validate(request)
        self._node = node
        self._peer = peer
        self._request = request
        self._items = request.items
        self.choices: list[Choice] = []
        self._runners: list[TargetRunner | None] = []
        self._allowed: dict[tuple[int, InodeId], Fs3Error | None] = {}
        self._epochs: dict[tuple[int, InodeId], Epoch] = {}
        self._choose_all()

    # -- choosing

    def _choose_all(self) -> None:
        chains: dict[tuple[ChainId, ChainVersion], TargetRunner] = {}
        for item in self._items:
            runner = self._node.targets.by_chain.get(item.chain)
            self._runners.append(runner)
            if runner is None:
                self.choices.append(StaleRouting(f"no target of chain {item.chain} is here"))
            elif (refusal := self._refusal(item)) is not None:
                self.choices.append(refusal)
            else:
                chains[item.chain, item.chain_version] = runner
                self.choices.append(self._choose(runner, item))
        any_member = self._request.by_sums and self._peer.role == "node"
        for (chain, version), runner in chains.items():
            gate = runner.replica.gate
            problem = gate.problem(version) if any_member else gate.read_problem(version)
            if problem is not None:
                self._refuse(chain, version, problem)

    def _refusal(self, item: ReadItem) -> Fs3Error | None:
        """Whether the capability allows it; a node of the cluster needs none (it repairs a chunk)."""
        if self._peer.role == "node":
            return None
        key = (item.capability, item.chunk.inode)
        if key not in self._allowed:
            try:
                session = self._request.session
                capability = self._node.access.check(
                    self._peer, session, item.capability, item.chunk.inode, Rights.READ
                )
                self._epochs[key] = capability.epoch
                self._allowed[key] = None
            except Fs3Error as error:
                self._allowed[key] = error
        return self._allowed[key]

    def _choose(self, runner: TargetRunner, item: ReadItem) -> Choice:
        replica = runner.replica
        state = runner.store.versions(item.chunk)
        if state.pending is None:
            return Serve(state.committed.identity if state.committed is not None else None)
        if self._request.pending and self._peer.role == "node":
            return Serve(state.pending.version.identity)
        standing = replica.gate.standing
        last_serving = standing is not None and standing.is_last_serving
        if last_serving and replica.must_settle(item.chunk):
            return Ask()
        return choose_at_once(state, last_serving=last_serving, relaxed=self._request.relaxed)

    def _refuse(self, chain: ChainId, version: ChainVersion, problem: Fs3Error) -> None:
        for index, item in enumerate(self._items):
            if (item.chain, item.chain_version) == (chain, version):
                self.choices[index] = problem

    # -- asking

    def to_ask(self) -> dict[tuple[ChainId, ChainVersion], list[ChunkId]]:
        """The chunks that something is pending of, by chain."""
        found: dict[tuple[ChainId, ChainVersion], dict[ChunkId, None]] = {}
        for item, choice in zip(self._items, self.choices, strict=True):
            if isinstance(choice, Ask):
                found.setdefault((item.chain, item.chain_version), {})[item.chunk] = None
        return {key: list(chunks) for key, chunks in found.items()}

    def answered(
        self, chain: ChainId, version: ChainVersion, committed: dict[ChunkId, Identity | None]
    ) -> None:
        """The last serving member (or this one, after settling) said what is committed: choose."""
        runner = self._node.targets.by_chain.get(chain)
        for index, item in enumerate(self._items):
            if not isinstance(self.choices[index], Ask) or (item.chain, item.chain_version) != (
                chain,
                version,
            ):
                continue
            if runner is None:
                self.choices[index] = StaleRouting(f"no target of chain {chain} is here")
                continue
            chosen = choose_after_answer(runner.store.versions(item.chunk), committed[item.chunk])
            if isinstance(chosen, Stale):
                self.choices[index] = StaleRouting(f"chunk {item.chunk} is behind")
            else:
                self.choices[index] = chosen
        problem = runner.replica.gate.read_problem(version) if runner is not None else None
        if problem is not None:
            self._refuse(chain, version, problem)

    def failed(self, chain: ChainId, version: ChainVersion, error: Fs3Error) -> None:
        """Nobody could say what is committed."""
        for index, item in enumerate(self._items):
            if isinstance(self.choices[index], Ask) and (item.chain, item.chain_version) == (chain, version):
                self.choices[index] = error

    # -- parts

    def ready_ranges(self) -> tuple[list[range], list[range]]:
        """Parts that can be built now, and those that wait for an answer; both in order of items."""
        ready: list[range] = []
        waiting: list[range] = []
        start, size_bytes = 0, 0
        for index, item in enumerate(self._items):
            kind_changes = index > start and isinstance(self.choices[index], Ask) != isinstance(
                self.choices[start], Ask
            )
            if index > start and (kind_changes or size_bytes + item.length_bytes > PART_BYTES):
                self._put(range(start, index), ready, waiting)
                start, size_bytes = index, 0
            size_bytes += item.length_bytes
        self._put(range(start, len(self._items)), ready, waiting)
        return ready, waiting

    def _put(self, part: range, ready: list[range], waiting: list[range]) -> None:
        (waiting if isinstance(self.choices[part.start], Ask) else ready).append(part)

    def build(self, part: range, *, wait: bool) -> Reply[ReadResponse]:
        """The answer to the items of ``part``. WouldWait: bytes must come from the disk."""
        if self._request.verify and not wait:
            raise WouldWait
        held: list[ReadHandle] = []
        payload: list[Buffer | FileRegion] = []
        try:
            results = tuple(self._read(index, held, payload, wait=wait) for index in part)
        except BaseException:
            _release(held)
            raise
        response = ReadResponse(first=part.start, results=results)
        return Reply(response, payload, (lambda: _release(held)) if held else None)

    def _read(
        self, index: int, held: list[ReadHandle], payload: list[Buffer | FileRegion], *, wait: bool
    ) -> ReadResult:
        item, choice, runner = self._items[index], self.choices[index], self._runners[index]
        counts = self._node.counts
        if isinstance(choice, Fs3Error):
            counts.refused.value += 1
            return _error_result(choice)
        assert isinstance(choice, Serve) and runner is not None, (item, choice)
        if choice.identity is None:
            return self._nothing(runner, item)
        bad: list[int] = []
        try:
            if self._request.verify:
                counts.verified.value += 1
                bad = runner.store.verify_range(
                    item.chunk, choice.identity, item.offset_bytes, item.length_bytes
                )
            if bad:
                raise CorruptData(f"chunk {item.chunk}: blocks {bad} fail their sums")
            if item.length_bytes >= SEND_FILE_BYTES and self._node.sends_files:
                if not wait:
                    raise WouldWait
                result = self._from_file(runner, item, choice.identity, held, payload)
            else:
                result = self._copied(runner, item, choice.identity, payload, wait=wait)
        except CorruptData as error:
            counts.corrupt.value += 1
            runner.report_corrupt(item.chunk, max(1, len(bad)))
            return _error_result(error)
        except DiskFailed as error:
            runner.report_disk_failed(str(error))
            return _error_result(error)
        except Busy as error:
            return _error_result(error)
        if not result.length_bytes:
            return self._nothing(runner, item)
        counts.ok.value += 1
        counts.read_bytes(runner.target).value += result.length_bytes
        return result

    def _nothing(self, runner: TargetRunner, item: ReadItem) -> ReadResult:
        """A hole; or the file was removed or cut since the reader opened it: zeros would be wrong data.

        A file's epoch is raised before its chunks are cut (design 4.9), so a reader of that epoch sees them.
        """
        known = self._epochs.get((item.capability, item.chunk.inode))
        in_force = runner.store.epoch(item.chunk.inode)
        if known is not None and known < in_force:
            self._node.counts.refused.value += 1
            return _error_result(StaleFile(f"epoch {known} is over, {in_force} is in force"))
        self._node.counts.ok.value += 1
        return ReadResult()

    def _from_file(
        self,
        runner: TargetRunner,
        item: ReadItem,
        identity: Identity,
        held: list[ReadHandle],
        payload: list[Buffer | FileRegion],
    ) -> ReadResult:
        handle = runner.store.read(item.chunk, identity, item.offset_bytes, item.length_bytes)
        held.append(handle)
        for region in handle.regions:
            _append(payload, FileRegion(region.file.fileno(), region.offset_bytes, region.length_bytes))
        return ReadResult(0, handle.length_bytes, handle.sums, identity.update_version)

    def _copied(
        self,
        runner: TargetRunner,
        item: ReadItem,
        identity: Identity,
        payload: list[Buffer | FileRegion],
        *,
        wait: bool,
    ) -> ReadResult:
        buffer = memoryview(bytearray(item.length_bytes))
        found = runner.store.read_into(item.chunk, identity, item.offset_bytes, buffer, wait=wait)
        if found is None:
            raise WouldWait
        if found.length_bytes:
            payload.append(buffer[: found.length_bytes])
        return ReadResult(0, found.length_bytes, found.sums, identity.update_version)


def _append(payload: list[Buffer | FileRegion], region: FileRegion) -> None:
    """Add a region; neighbours in a file leave as one: a system call a chunk, not one a range."""
    last = payload[-1] if payload else None
    if (
        isinstance(last, FileRegion)
        and last.fd == region.fd
        and last.offset_bytes + last.length_bytes == region.offset_bytes
    ):
        payload.pop()
        region = FileRegion(last.fd, last.offset_bytes, last.length_bytes + region.length_bytes)
    payload.append(region)


def _release(held: Sequence[ReadHandle]) -> None:
    for handle in held:
        handle.release()


def _error_result(error: Fs3Error) -> ReadResult:
    code, _, message, _ = to_wire(error)
    return ReadResult(code=code, message=message[:500])


def _validate(request: ReadRequest) -> None:
    if not 1 <= len(request.items) <= READ_ITEMS_MAX:
        raise InvalidRequest(f"a batch of {len(request.items)} items")
    if any(_is_impossible(item) for item in request.items):
        raise InvalidRequest("a range outside of a chunk")
    if sum(item.length_bytes for item in request.items) > BATCH_BYTES_MAX:
        raise InvalidRequest(f"more than {BATCH_BYTES_MAX} bytes in one batch")


def _is_impossible(item: ReadItem) -> bool:
    return (
        item.offset_bytes < 0
        or item.length_bytes < 0
        or item.offset_bytes + item.length_bytes > CHUNK_BYTES_MAX
        or not 0 <= item.chunk.chunk_index < 1 << 32
    )

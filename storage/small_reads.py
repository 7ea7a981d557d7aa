"""Many small reads at once, in the usual case: all of it is here, committed, allowed and in the page cache.

One pass over the items, one look at each chain's lease, one at each capability, one lock for all chunks of
a target, one buffer for all bytes. Whatever is unusual about a single item (a pending version, a hole, an
error, bytes that must come from the disk) sends the whole request the general way, ``ReadBatch``, which
finds it again: nothing has been answered by then.

The order is that of ``ReadBatch``: versions are chosen, then the lease is checked, then bytes are read.

Source: design 4.4, 4.8, 5.3; [dp F].
"""

from __future__ import annotations

from collections.abc import Sequence

from fs3.errors import CorruptData, Fs3Error
from fs3.identity.capability import Rights
from fs3.ids import ChainId, ChainVersion, ChunkId
from fs3.rpc.service import PeerIdentity, Reply
from fs3.wire.storage import READ_ITEMS_MAX, ReadItem, ReadRequest, ReadResponse, ReadResult

from .disk import DiskFailed
from .node import StorageNode
from .read_batch import PART_BYTES, SEND_FILE_BYTES
from .runner import TargetRunner


class _OfChain:
    """The items of one chain."""

    __slots__ = ("chunks", "indexes", "runner", "version")

    def __init__(self, runner: TargetRunner, version: ChainVersion) -> None:
        self.runner = runner
        self.version = version
        self.indexes: list[int] = []
        self.chunks: list[ChunkId] = []


def read_small(node: StorageNode, peer: PeerIdentity, request: ReadRequest) -> Reply[ReadResponse] | None:
    """The whole answer; None: something is unusual. Does not wait."""
    if request.verify:
        return None
    items = request.items
    sizes = [item.length_bytes for item in items]
    if not 1 <= len(items) <= READ_ITEMS_MAX or min(sizes) <= 0 or max(sizes) >= SEND_FILE_BYTES:
        return None
    total_bytes = sum(sizes)
    if total_bytes > PART_BYTES:
        return None
    chains = _by_chain(node, items)
    if chains is None or not _are_allowed(node, peer, request):
        return None
    room = memoryview(bytearray(total_bytes))
    views: list[memoryview] = []
    at = 0
    for size_bytes in sizes:
        views.append(room[at : at + size_bytes])
        at += size_bytes
    results: list[ReadResult | None] = [None] * len(items)
    for chain in chains:
        if not _read(chain, items, views, results):
            return None
    node.counts.ok.value += len(items)
    for chain in chains:
        node.counts.read_bytes(chain.runner.target).value += sum([sizes[index] for index in chain.indexes])
    found = tuple([result for result in results if result is not None])
    assert len(found) == len(items), (len(found), len(items))
    return Reply(ReadResponse(first=0, results=found), (room,))


def _by_chain(node: StorageNode, items: Sequence[ReadItem]) -> Sequence[_OfChain] | None:
    chains: dict[ChainId, _OfChain] = {}
    for index, item in enumerate(items):
        chain = chains.get(item.chain)
        if chain is None:
            runner = node.targets.by_chain.get(item.chain)
            if runner is None:
                return None
            chain = chains[item.chain] = _OfChain(runner, item.chain_version)
        elif chain.version != item.chain_version:
            return None
        if item.offset_bytes < 0:
            return None
        chain.indexes.append(index)
        chain.chunks.append(item.chunk)
    return list(chains.values())


def _are_allowed(node: StorageNode, peer: PeerIdentity, request: ReadRequest) -> bool:
    """Whether capabilities allow all of it; a node of the cluster needs none."""
    if peer.role == "node":
        return True
    check, session = node.access.check, request.session
    try:
        for number, inode in dict.fromkeys([(item.capability, item.chunk[0]) for item in request.items]):
            check(peer, session, number, inode, Rights.READ)
    except Fs3Error:
        return False
    return True


def _read(
    chain: _OfChain,
    items: Sequence[ReadItem],
    views: Sequence[memoryview],
    results: list[ReadResult | None],
) -> bool:
    """Read the items of one chain into their views; whether all could be."""
    held = chain.runner.store.hold_committed(chain.chunks)
    if held is None:
        return False
    try:
        if chain.runner.replica.gate.read_problem(chain.version) is not None:
            return False
        read, versions = held.read, held.versions
        for number, index in enumerate(chain.indexes):
            view = views[index]
            sums = read(number, items[index].offset_bytes, view)
            if sums is None:
                return False
            identity = versions[number].info.identity
            results[index] = ReadResult(0, len(view), sums, identity.update_version)
    except (CorruptData, DiskFailed):
        return False  # the general way finds it again, and reports it
    finally:
        held.release()
    return True

"""SPACE: bytes used and left of this node's targets."""

from __future__ import annotations

from fs3.ids import ChainId
from fs3.rpc.service import Call
from fs3.wire.storage import SpaceRequest, SpaceResponse, TargetSpace

from ..node import StorageNode


def space(node: StorageNode, call: Call, request: SpaceRequest) -> SpaceResponse:
    """Of every target that is in use here."""
    call.peer.require_node()
    found = []
    for runner in node.targets.online():
        figures = runner.store.space()
        found.append(
            TargetSpace(
                target=runner.target,
                chain=runner.chain if runner.chain is not None else ChainId(0),
                capacity_bytes=figures.capacity_bytes,
                used_bytes=figures.used_bytes,
                chunk_count=figures.chunk_count,
            )
        )
    return SpaceResponse(tuple(found))

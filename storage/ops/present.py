"""PRESENT: a client shows a capability once."""

from __future__ import annotations

from fs3.rpc.service import Call
from fs3.wire.storage import PresentRequest, PresentResponse

from ..node import StorageNode

_DONE = PresentResponse()


def present(node: StorageNode, call: Call, request: PresentRequest) -> PresentResponse:
    """Keep the capability under its number. Raises as ``Access.present``."""
    node.access.present(call.peer, request.session, request.number, request.capability)
    return _DONE

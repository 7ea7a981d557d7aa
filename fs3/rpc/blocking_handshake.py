"""The handshake of a client's blocking connection, the same for both planes (docs/wire.md)."""

from __future__ import annotations

from ..identity.handshake import ClientHandshake
from .blocking import FrameSocket
from .dispatch import error_of
from .framing import HANDSHAKE_BYTES_MAX, FrameError, Kind, encode_frame


def shake_hands(sock: FrameSocket, handshake: ClientHandshake) -> None:
    """Prove who we are, and have the server do so. Raises what it refuses with; FrameError, PeerClosed,
    Stalled."""
    sock.send(encode_frame(Kind.HELLO, handshake.hello()))
    proof = handshake.on_challenge(_expect(sock, Kind.CHALLENGE))
    sock.send(encode_frame(Kind.PROOF, proof))
    handshake.on_welcome(_expect(sock, Kind.WELCOME))


def _expect(sock: FrameSocket, kind: Kind) -> bytes:
    """The message of the next frame, which must be of this kind; raises what the server refuses with."""
    frame = sock.read(_bounds)
    if frame.kind == Kind.ERROR:
        raise error_of(frame.message)
    if frame.kind != kind:
        raise FrameError(f"frame of kind {frame.kind}, not {kind.name}")
    return frame.message


def _bounds(kind: int, method: int) -> tuple[int, int]:
    return HANDSHAKE_BYTES_MAX, 0

"""Where one target stands in its chain, computed once for each chain record. PURE.

A target is a member only in the generation that the record names (design 2.7): of another generation it
neither serves, stages nor acknowledges. Updates travel over the *writable* members (SERVING, then SYNCING)
in chain order; the last *SERVING* one answers what is committed (design 4.3, 4.4).
"""

from __future__ import annotations

from dataclasses import dataclass

from fs3.ids import ChainId, ChainVersion, Generation, TargetId
from fs3.routing import ChainInfo, Member, TargetState


@dataclass(frozen=True, slots=True)
class Standing:
    """A target's place in one version of its chain. Immutable, so threads may read it without a lock."""

    chain: ChainId
    version: ChainVersion
    state: TargetState | None
    """None: no member, or a member in another generation."""
    predecessor: Member | None
    """The writable member before this one; None: this is the head, or not writable."""
    successor: Member | None
    """The writable member behind this one; None: this is the last, or not writable."""
    last_serving: Member | None
    """Whom to ask what is committed; None: nobody serves."""
    is_head: bool
    """Gives versions their identity: the first writable member, and SERVING."""
    is_last_serving: bool

    @property
    def serving(self) -> bool:
        """Whether the target may answer readers (under a lease)."""
        return self.state is TargetState.SERVING

    @property
    def writable(self) -> bool:
        """Whether the target stages updates."""
        return self.state is TargetState.SERVING or self.state is TargetState.SYNCING


def standing_of(info: ChainInfo, target: TargetId, generation: Generation) -> Standing:
    """The standing of ``target``, run by a node of ``generation``, under a chain record."""
    writable = info.writable
    place = next((i for i, m in enumerate(writable) if m.target == target), None)
    if place is not None and writable[place].generation != generation:
        place = None
    serving = info.serving
    last_serving = serving[-1] if serving else None
    state = next((m.state for m in info.members if m.target == target and m.generation == generation), None)
    return Standing(
        chain=info.chain,
        version=info.version,
        state=state,
        predecessor=writable[place - 1] if place else None,
        successor=writable[place + 1] if place is not None and place + 1 < len(writable) else None,
        last_serving=last_serving,
        is_head=place == 0 and state is TargetState.SERVING,
        is_last_serving=place is not None and last_serving is not None and last_serving.target == target,
    )

"""What a member does about a numbered update of its predecessor, under the chunk's lock. PURE.

Live updates move a chunk from each number to the next; a resync brings what is *committed* at the
predecessor, whatever the receiver has. Numbers never go back, with one exception: the source names the very
version whose place is to be taken (design 4.6), which a member left out by force may bring along.
"""

from __future__ import annotations

import enum

from fs3.errors import Fs3Error, StaleRouting, Unavailable
from fs3.wire.chunk import Identity, UpdateKind, VersionInfo

from .effects import UpdateAsk

WHOLE = (UpdateKind.REPLACE, UpdateKind.REMOVE)
"""Kinds that do not build on the version before."""


class Turn(enum.Enum):
    """What is to be done."""

    STAGE = 1
    JOIN = 2
    """It is pending here: wait for it."""
    DONE = 3
    """It is committed here."""
    LATER = 4
    """An older one is pending, which was committed upstream before this one was numbered."""
    BROKEN = 5
    """Another version is committed under its number: the target must not be used any more."""


def judge_update(
    ask: UpdateAsk, committed: VersionInfo | None, pending: Identity | None, *, is_syncing: bool
) -> Turn | Fs3Error:
    """The turn of an update, or why it is refused. ``is_syncing``: what is here may be of another history."""
    identity = ask.update.identity
    number = identity.update_version
    if committed is not None and committed.identity == identity:
        return Turn.DONE
    if pending == identity:
        return Turn.JOIN
    if ask.resync is not None and ask.resync.forgets:
        return _judge_forgetting(ask.resync.replaces, committed, pending)
    if pending is not None:
        if pending.update_version > number:
            return StaleRouting(f"version {number} is over, {pending} is pending")
        if pending.update_version < number and ask.resync is None:
            return Turn.LATER
    return _judge_number(ask, committed, is_syncing=is_syncing)


def _judge_forgetting(
    named: Identity | None, committed: VersionInfo | None, pending: Identity | None
) -> Turn | Fs3Error:
    if pending is not None or committed is None or committed.identity != named:
        return StaleRouting(f"{named} is not what is here")
    return Turn.STAGE


def _judge_number(ask: UpdateAsk, committed: VersionInfo | None, *, is_syncing: bool) -> Turn | Fs3Error:
    number, is_whole = ask.update.identity.update_version, ask.update.kind in WHOLE
    if committed is None:
        return Turn.STAGE
    if is_whole and ask.resync is not None and ask.resync.replaces == committed.identity:
        return Turn.STAGE
    have = committed.identity.update_version
    if have == number and not is_syncing:
        return Turn.BROKEN
    if have >= number:
        return StaleRouting(f"version {number} is over, {committed.identity} is committed")
    if number > have + 1 and not is_whole:
        return Unavailable(f"versions {have + 1} to {number - 1} are missing here")
    return Turn.STAGE

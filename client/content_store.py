"""How a small file's content gets to the cluster: stored beside the inode, or moved out into chunks.

A file of at most ``inline_limit_bytes`` lives in the metadata store (design 3.9). Written as a whole it takes
one request, name and all (``create_with_content``). One that outgrows the limit moves out, never back.
Somebody else may write or move the same file meanwhile: StaleFile; the edits are then made again on what
they left.
"""

from __future__ import annotations

import enum

from fs3.errors import StaleFile
from fs3.wire.meta import (
    CREATE,
    SPILL,
    WRITE_INLINE,
    CreateRequest,
    Mutation,
    OpenMode,
    OpenResponse,
    Path,
    SpillRequest,
    Storage,
    WriteInlineRequest,
)

from .core import ClientCore
from .open_files import OpenFile
from .session import Session
from .small_content import SmallContent

STALE_TRIES = 64
"""Other writers that one flush gives way to."""


async def create_with_content(core: ClientCore, path: Path, content: bytes, permissions: int) -> bool:
    """Create or replace a small file in one request. False: it exists and lies in chunks."""

    def build(mutation: Mutation) -> CreateRequest:
        return CreateRequest(
            path=path,
            mutation=mutation,
            permissions=permissions,
            mode=OpenMode(0),
            content=content,
        )

    try:
        await core.mutate(CREATE, build)
    except StaleFile:
        return False
    return True


async def create(
    core: ClientCore, path: Path, mode: OpenMode, permissions: int, *, exclusive: bool, truncate: bool
) -> tuple[Session, OpenResponse]:
    """Create a file, or open the one that is there."""

    def build(mutation: Mutation) -> CreateRequest:
        return CreateRequest(
            path=path,
            mutation=mutation,
            permissions=permissions,
            mode=mode,
            exclusive=exclusive,
            truncate=truncate,
        )

    return await core.mutate_in(CREATE, build)


class Outcome(enum.Enum):
    """Where the edits of a small file are."""

    STORED = 1
    """Beside the inode."""
    MOVED = 2
    """In chunks, with all of the content."""
    OVERTAKEN = 3
    """Nowhere: somebody else has moved the file into chunks; they are still to be made there."""


async def store(core: ClientCore, file: OpenFile, small: SmallContent, limit_bytes: int) -> Outcome:
    """Store the edited content beside the inode, or move it out if others made it longer than the limit."""
    for _ in range(STALE_TRIES):
        if not file.is_inline:
            return Outcome.OVERTAKEN
        content = bytes(small.content)
        if len(content) > limit_bytes:
            return await move_out(core, file, small)

        def build(mutation: Mutation, content: bytes = content) -> WriteInlineRequest:
            version = file.attributes.content_version
            return WriteInlineRequest(
                inode=file.inode, mutation=mutation, content_version=version, content=content
            )

        try:
            answer = await core.mutate_file(file, WRITE_INLINE, build)
        except StaleFile:
            await _see_others(core, file, small)
            continue
        core.files.learn(file, answer.attributes)
        file.content = content
        small.stored()
        return Outcome.STORED
    raise StaleFile(f"file {file.inode:x} was written by others {STALE_TRIES} times meanwhile")


async def _see_others(core: ClientCore, file: OpenFile, small: SmallContent) -> None:
    await core.files.refresh(file, core.settings.meta_timeout_s)
    if file.is_inline and file.content is not None:
        small.rebase(file.content)


async def move_out(core: ClientCore, file: OpenFile, small: SmallContent) -> Outcome:
    """Move the file into chunks, with all edits."""
    for _ in range(STALE_TRIES):
        if not file.is_inline:
            return Outcome.OVERTAKEN
        try:
            await _move(core, file, small)
        except StaleFile:
            await _see_others(core, file, small)
            continue
        small.stored()
        return Outcome.MOVED
    raise StaleFile(f"file {file.inode:x} was written by others {STALE_TRIES} times meanwhile")


async def _move(core: ClientCore, file: OpenFile, small: SmallContent) -> None:
    version = file.attributes.content_version

    def start(mutation: Mutation) -> SpillRequest:
        return SpillRequest(inode=file.inode, mutation=mutation, content_version=version)

    def finish(mutation: Mutation) -> SpillRequest:
        return SpillRequest(inode=file.inode, mutation=mutation, content_version=version, finish=True)

    answer = await core.mutate_file(file, SPILL, start)
    small.rebase(answer.content)
    file.chains = await core.files.chains_of(answer.attributes.layout)
    core.files.learn(file, answer.attributes)
    if small.content:
        # all of it in one go: until the move is finished, readers see the old content
        await core.writer.write(file, 0, [bytes(small.content)], core.settings.write_timeout_s)
    if answer.attributes.storage is Storage.SPILLING:
        core.files.learn(file, (await core.mutate_file(file, SPILL, finish)).attributes)
    file.content = None

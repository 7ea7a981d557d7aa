"""What the faces of the client share: one process's connection to one cluster.

``ClientCore`` is made of components and settings and has no sockets, threads or clocks of its own, so that
the simulated world runs the same client.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from fs3.errors import MaybeApplied, SessionLost, StaleFile, fs_error
from fs3.ids import ROOT_INODE, ChunkId
from fs3.rpc.service import Method
from fs3.stubs.meta import MetaStub
from fs3.tasks import TaskScope
from fs3.wire.meta import PATH_BYTES_MAX, Mutation, OpenMode, Path

from .open_files import SAME_TRIES, FileTable, OpenFile, stale_pause_s
from .plan import Piece, cut
from .reader import Reader
from .receiving import fill_zeros
from .session import Session, SessionKeeper
from .settings import ClientSettings, Components
from .writer import Writer

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

STALE_TRIES = 8
"""Times that one read re-reads an inode that keeps changing."""
LENGTH_AGE_S = 1.0
"""A read at the end of the file believes a length for this long; then it asks (close-to-open, and a bit)."""

Wanted = tuple[OpenFile, int, memoryview]
"""A range to read: file, offset, and where the bytes go."""


class ClientCore:
    """See the module's text. ``scope`` owns its background work and is closed by ``close``."""

    def __init__(
        self,
        components: Components,
        settings: ClientSettings,
        scope: TaskScope,
        close_components: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.components = components
        self._close_components = close_components
        self.settings = settings
        self.scope = scope
        self.clock = components.clock
        self.meta = MetaStub(components.routing, components.caller, components.clock, components.rng)
        self.sessions = SessionKeeper(components, self.meta, settings, scope)
        self.files = FileTable(components, self.meta, settings)
        self.reader = Reader(components, settings, scope)
        self.writer = Writer(components, self.files, settings, scope)

    async def close(self) -> None:
        """End the session and all background work."""
        try:
            await self.sessions.close()
            await self.scope.aclose()
        finally:
            if self._close_components is not None:
                await self._close_components()

    # --- metadata ---

    async def ask(self, method: Method[Q, R], request: Q) -> R:
        """A request that changes nothing."""
        return await self.meta.call(method, request, timeout_s=self.settings.meta_timeout_s)

    async def mutate(self, method: Method[Q, R], build: Callable[[Mutation], Q]) -> R:
        """A mutation under the present session; under a new one if that turns out to be over."""
        _, answer = await self.mutate_in(method, build)
        return answer

    async def mutate_in(self, method: Method[Q, R], build: Callable[[Mutation], Q]) -> tuple[Session, R]:
        """``mutate``, and the session that it was done under."""
        session = await self.sessions.current()
        try:
            return session, await self._mutate(session, method, build)
        except SessionLost:
            # refused as a whole: nothing was applied, so it may be asked again under another identity
            session = await self.sessions.current()
            return session, await self._mutate(session, method, build)

    async def mutate_file(self, file: OpenFile, method: Method[Q, R], build: Callable[[Mutation], Q]) -> R:
        """A mutation of an open file: under the session that it was opened in, or not at all."""
        try:
            return await self._mutate(file.session, method, build)
        except MaybeApplied as error:
            if file.session.is_lost:
                raise SessionLost(str(error)) from error
            raise

    async def _mutate(self, session: Session, method: Method[Q, R], build: Callable[[Mutation], Q]) -> R:
        try:
            return await self.meta.mutate(
                session.slots, method, build, timeout_s=self.settings.meta_timeout_s
            )
        except (SessionLost, MaybeApplied) as error:
            session.is_lost |= isinstance(error, SessionLost) or isinstance(error.__cause__, SessionLost)
            raise

    # --- reading ---

    async def read(self, wanted: Sequence[Wanted]) -> list[int]:
        """Fill the views as far as the files reach; how many bytes each got.

        StaleFile: a file was removed or cut again and again while it was read; SessionLost: a file was open
        for writing in a session that is over; and what ``Reader`` raises.
        """
        deadline_s = self.clock.boot_s() + self.settings.read_timeout_s
        await self._leave_lost_sessions(wanted)
        await self._learn_lengths(wanted)
        counts = [0] * len(wanted)
        left: Sequence[int] = range(len(wanted))
        change_count = same_count = 0
        while change_count < STALE_TRIES:
            pieces = self.pieces_of(wanted, left, counts)
            if not pieces:
                return counts
            timeout_s = max(0.0, deadline_s - self.clock.boot_s())
            stale = await self.reader.read(pieces[0].file.session, pieces, timeout_s)
            if not stale:
                return counts
            again = {id(file) for file in stale}
            left = [at for at in left if id(wanted[at][0]) in again]
            if await self._read_inodes(stale):
                change_count += 1
                continue
            # A cut is under way: its epoch is in force on the chains before it is in the inode.
            pause_s = stale_pause_s(same_count)
            same_count += 1
            if same_count > SAME_TRIES or self.clock.boot_s() + pause_s > deadline_s:
                inode, epoch = stale[0].inode, stale[0].epoch
                raise StaleFile(f"file {inode:x} is not at epoch {epoch} for its chains")
            await asyncio.sleep(pause_s)
        raise StaleFile("a file changed again and again while it was read")

    async def _leave_lost_sessions(self, wanted: Sequence[Wanted]) -> None:
        """Files that are open for reading go on in the present session."""
        last: OpenFile | None = None
        for file, _, _ in wanted:
            if file is last or not file.session.is_lost:
                continue
            last = file
            if file.mode & OpenMode.WRITE:
                raise SessionLost(f"client session {file.session.id:x} is over")
            await self.files.move(file, await self.sessions.current(), self.settings.meta_timeout_s)

    async def _read_inodes(self, files: Sequence[OpenFile]) -> bool:
        """Read the files' inodes again; whether that changed the epoch of one."""
        is_changed = False
        for file in files:
            epoch = file.epoch
            await self.files.refresh(file, self.settings.meta_timeout_s)
            is_changed |= file.epoch != epoch
        return is_changed

    def pieces_of(
        self, wanted: Sequence[Wanted], numbers: Sequence[int], counts: list[int]
    ) -> list[Piece[OpenFile]]:
        """The pieces of ``wanted[number]`` for each number, cut to the files' lengths; fills ``counts``, and
        the views of small files."""
        pieces: list[Piece[OpenFile]] = []
        append = pieces.append
        last: OpenFile | None = None
        session: Session | None = None
        length_bytes = chunk_bytes = 0
        for number in numbers:
            file, offset_bytes, view = wanted[number]
            if file is not last:
                last, length_bytes = file, file.length_bytes
                chunk_bytes = 0 if file.is_inline else file.chunk_size_bytes
                session = _same_session(file, session)
            size_bytes = len(view)
            if offset_bytes + size_bytes > length_bytes:
                size_bytes = max(0, length_bytes - offset_bytes)
                view = view[:size_bytes]
            counts[number] = size_bytes
            if not chunk_bytes:
                read_content(file, offset_bytes, view)
                continue
            # the loop over small reads: one piece each, nothing called twice
            index, within = divmod(offset_bytes, chunk_bytes)
            if within + size_bytes > chunk_bytes:
                cut(file, file.inode, chunk_bytes, file.chains, offset_bytes, view, pieces)
            elif size_bytes:
                chains = file.chains
                chunk = ChunkId(file.attributes.inode, index)
                append(Piece(file, chains[index % len(chains)], chunk, within, size_bytes, view))
        return pieces

    def is_length_doubtful(self, file: OpenFile, end_bytes: int) -> bool:
        """A read up to ``end_bytes`` would be cut short by a length that may be old."""
        return end_bytes > file.length_bytes and self.clock.boot_s() - file.known_s > LENGTH_AGE_S

    async def _learn_lengths(self, wanted: Sequence[Wanted]) -> None:
        last: OpenFile | None = None
        length_bytes = 0
        for file, offset_bytes, view in wanted:
            if file is not last:
                last, length_bytes = file, file.length_bytes
            end_bytes = offset_bytes + len(view)
            if end_bytes > length_bytes and self.is_length_doubtful(file, end_bytes):
                await self.files.look_again(file, self.settings.meta_timeout_s)
                last = None


def _same_session(file: OpenFile, session: Session | None) -> Session:
    if session is not None and file.session is not session:
        raise SessionLost("files of one batch were opened in different sessions: open the older again")
    return file.session


def read_content(file: OpenFile, offset_bytes: int, view: memoryview) -> None:
    """Fill ``view`` from a small file's content."""
    content = file.content or b""
    part = content[offset_bytes : offset_bytes + len(view)]
    view[: len(part)] = part
    if len(part) < len(view):
        fill_zeros(view[len(part) :])


def wire_path(path: str | bytes) -> Path:
    """A path of the file system, from its root, as it is sent. FsError: EINVAL, ENAMETOOLONG."""
    text = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    if b"\0" in text:
        raise fs_error(errno.EINVAL, "a path contains no zero byte", text.replace(b"\0", b"\\0"))
    text = text.lstrip(b"/")
    if len(text) > PATH_BYTES_MAX:
        raise fs_error(errno.ENAMETOOLONG, f"a path has at most {PATH_BYTES_MAX} bytes", text[:80])
    return Path(text, ROOT_INODE)

"""Open files: what the client knows of a file while it has it open.

``FileTable`` makes them from the metadata service's answers, keeps their chains, and re-reads an inode whose
epoch or layout has changed (StaleFile). Reader and writer work on ``OpenFile``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from fs3.errors import InvalidRequest, MaybeApplied, SessionLost, StaleFile, StaleRouting
from fs3.ids import ChainId, Epoch, InodeId
from fs3.layout import Layout, file_chains
from fs3.stubs.meta import MetaStub
from fs3.wire.meta import (
    CLOSE,
    OPEN,
    STAT,
    Attributes,
    CloseRequest,
    InodeKind,
    Mutation,
    OpenMode,
    OpenRequest,
    OpenResponse,
    Path,
    StatRequest,
    Storage,
)

from .session import Session
from .settings import ClientSettings, Components

LAYOUTS_MAX = 4096
"""Layouts whose chains are remembered; files of one directory differ in seed, so there are many."""


STALE_PAUSE_S = 0.01
STALE_PAUSE_MAX_S = 0.2
SAME_TRIES = 600
"""Looks at an inode whose epoch the chains call old: two minutes, and the time that the answers take. A cut
is finished by whoever lives; if this one is not, the file is of no use."""


def stale_pause_s(same_count: int) -> float:
    """How long to wait between two looks at an inode of which the chains know a later epoch: a cut is under
    way, and its epoch is in force on the chains before it is in the inode."""
    return min(STALE_PAUSE_MAX_S, STALE_PAUSE_S * 2.0 ** min(same_count, 8))


class OpenFile:
    """One open file of one session. Changed only by the loop that owns it."""

    __slots__ = (
        "attributes", "capability", "chains", "content", "is_closed", "known_s", "mode", "path",
        "session", "written_end_bytes",
    )  # fmt: skip

    def __init__(self, path: str, session: Session, mode: OpenMode) -> None:
        self.path = path
        self.session = session
        self.mode = mode
        self.attributes: Attributes
        self.capability = 0
        """Its number in ``session.capabilities``."""
        self.chains: tuple[ChainId, ...] = ()
        self.content: bytes | None = None
        """Of an inline file."""
        self.known_s = 0.0
        """When the attributes were learnt (boot clock)."""
        self.written_end_bytes = 0
        """Greatest end of a write that the chains acknowledged in this epoch."""
        self.is_closed = False

    @property
    def inode(self) -> InodeId:
        return self.attributes.inode

    @property
    def epoch(self) -> Epoch:
        return self.attributes.epoch

    @property
    def chunk_size_bytes(self) -> int:
        assert self.attributes.layout is not None, self.attributes
        return self.attributes.layout.chunk_size_bytes

    @property
    def is_inline(self) -> bool:
        """The content lies beside the inode, or is moving out from there (design 3.9)."""
        return self.attributes.storage is not Storage.CHUNKED

    @property
    def length_bytes(self) -> int:
        """As far as this client knows."""
        if self.is_inline and self.content is not None:
            return len(self.content)
        return max(self.attributes.length_bytes, self.written_end_bytes)


def closing(file: OpenFile, written_end_bytes: int, *, keep_open: bool) -> Callable[[Mutation], CloseRequest]:
    """Builds the request that ends, or syncs, an open record."""
    return lambda mutation: CloseRequest(
        inode=file.inode,
        mutation=mutation,
        epoch=file.epoch,
        written_end_bytes=written_end_bytes,
        keep_open=keep_open,
    )


class SharedEnd:
    """Where the next append of this client to a file goes, over all its handles."""

    __slots__ = ("end_bytes", "user_count")

    def __init__(self) -> None:
        self.end_bytes = 0
        self.user_count = 0


class FileTable:
    """Makes and refreshes open files."""

    def __init__(self, components: Components, meta: MetaStub, settings: ClientSettings) -> None:
        self._components = components
        self._clock = components.clock
        self._routing = components.routing
        self._meta = meta
        self._settings = settings
        self._chains: dict[Layout, tuple[ChainId, ...]] = {}
        self._ends: dict[InodeId, SharedEnd] = {}
        self._left: dict[InodeId, tuple[int, Epoch]] = {}
        """Ends that nobody uses: how many openings had begun when the last user left, and the epoch then."""
        self._opening: dict[int, None] = {}
        self._openings_begun = 0

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """While a file is opened: until whoever opens it has taken its shared end.

        The answer may have been given before another handle appended and was closed, and come after that.
        """
        self._openings_begun += 1
        number = self._openings_begun
        self._opening[number] = None
        try:
            yield
        finally:
            del self._opening[number]
            self._forget_ends()

    async def opened(self, path: str, session: Session, mode: OpenMode, answer: OpenResponse) -> OpenFile:
        """The file that an OPEN or CREATE answered with."""
        file = OpenFile(path, session, mode)
        file.capability = session.capabilities.add(answer.capability)
        try:
            await self._take(file, answer.attributes, answer.content)
        except BaseException:
            session.capabilities.drop(file.capability)
            raise
        return file

    def close(self, file: OpenFile) -> None:
        """Forget what was kept for it."""
        file.is_closed = True
        file.session.capabilities.drop(file.capability)

    async def refresh(self, file: OpenFile, timeout_s: float) -> None:
        """Read the inode again, by its number, with a new capability. ESTALE and StaleFile: it is gone;
        SessionLost: the session is over, whether or not an answer was lost before."""
        session = file.session
        if not file.mode & OpenMode.WRITE:
            request = OpenRequest(
                path=Path(base=file.inode), mode=file.mode, mutation=Mutation(session.id, 0, 0)
            )
            await self._renewed(file, await self._meta.call(OPEN, request, timeout_s=timeout_s))
            return
        try:
            await self._renewed(
                file, await self._meta.mutate(session.slots, OPEN, self._again(file), timeout_s=timeout_s)
            )
            # the file is open twice now: one close of it changes nothing but that
            await self._meta.mutate(session.slots, CLOSE, self._once_less(file), timeout_s=timeout_s)
        except MaybeApplied as error:
            if isinstance(error.__cause__, SessionLost):
                raise error.__cause__ from error  # whatever was done went with the session
            raise

    async def move(self, file: OpenFile, session: Session, timeout_s: float) -> None:
        """Open a file for reading once more, under another session."""
        if file.session is session:
            return
        file.session.capabilities.drop(file.capability)
        file.session, file.capability = session, session.capabilities.add(b"")
        await self.refresh(file, timeout_s)

    @staticmethod
    def _again(file: OpenFile) -> Callable[[Mutation], OpenRequest]:
        return lambda mutation: OpenRequest(path=Path(base=file.inode), mode=file.mode, mutation=mutation)

    @staticmethod
    def _once_less(file: OpenFile) -> Callable[[Mutation], CloseRequest]:
        return lambda mutation: CloseRequest(inode=file.inode, mutation=mutation, epoch=file.epoch)

    async def _renewed(self, file: OpenFile, answer: OpenResponse) -> None:
        if answer.attributes.epoch != file.attributes.epoch:
            file.written_end_bytes = 0  # it was cut: what was written before may be gone
        file.session.capabilities.replace(file.capability, answer.capability)
        await self._take(file, answer.attributes, answer.content)

    def share_end(self, file: OpenFile) -> SharedEnd:
        """The shared end of a file that is open for writing in chunks; ``unshare_end`` when done."""
        end = self._ends.setdefault(file.inode, SharedEnd())
        _, epoch = self._left.pop(file.inode, (0, file.epoch))
        if epoch != file.epoch:
            end.end_bytes = 0  # it was cut meanwhile
        end.end_bytes = max(end.end_bytes, file.length_bytes)
        end.user_count += 1
        return end

    def unshare_end(self, file: OpenFile) -> None:
        """A handle less uses it."""
        end = self._ends[file.inode]
        end.user_count -= 1
        if not end.user_count:
            self._left[file.inode] = self._openings_begun, file.epoch
            self._forget_ends()

    def _forget_ends(self) -> None:
        """Those that no opening under way can need."""
        oldest = next(iter(self._opening), self._openings_begun + 1)
        for inode, (begun, _) in list(self._left.items()):
            if begun >= oldest:
                break
            del self._left[inode], self._ends[inode]

    async def look_again(self, file: OpenFile, timeout_s: float) -> None:
        """Learn the length that others have given the file since."""
        answer = await self._meta.call(STAT, StatRequest(path=Path(base=file.inode)), timeout_s=timeout_s)
        if file.is_inline:
            await self.refresh(file, timeout_s)
        else:
            await self.follow(file, answer.attributes, timeout_s)

    async def follow(self, file: OpenFile, attributes: Attributes, timeout_s: float) -> None:
        """Learn attributes of any epoch and storage: another one needs a capability of its own."""
        before = file.attributes
        if attributes.epoch != before.epoch or attributes.storage is not before.storage:
            await self.refresh(file, timeout_s)
        else:
            self.learn(file, attributes)

    def learn(self, file: OpenFile, attributes: Attributes) -> None:
        """Attributes that came with another answer, of the same epoch and storage."""
        file.attributes = attributes
        file.known_s = self._clock.boot_s()

    async def _take(self, file: OpenFile, attributes: Attributes, content: bytes | None) -> None:
        if attributes.kind is not InodeKind.FILE:
            raise StaleFile(f"inode {attributes.inode:x} is no file")
        self.learn(file, attributes)
        file.content = content if file.is_inline else None
        if not file.is_inline:
            file.chains = await self.chains_of(attributes.layout)

    async def chains_of(self, layout: Layout | None) -> tuple[ChainId, ...]:
        """The chains that a layout spreads a file over. StaleRouting: its table is not known (yet)."""
        if layout is None:
            raise InvalidRequest("a file without a layout")
        found = self._chains.get(layout)
        if found is not None:
            return found
        table = self._routing.routing.table(layout.table, layout.table_version)
        if table is None:
            await self._routing.refresh()
            table = self._routing.routing.table(layout.table, layout.table_version)
        if table is None or not table.chains:
            raise StaleRouting(f"chain table {layout.table} version {layout.table_version} is not in routing")
        chains = file_chains(layout, table.chains)
        if len(self._chains) >= LAYOUTS_MAX:
            self._chains.clear()
        self._chains[layout] = chains
        return chains

"""What led to a failure: the seed is run again, and all that befell the chunk or inode is told in order.

What clients asked and saw, how its chain changed, which faults struck hosts of the chain, what its replicas
staged and committed. A second run goes the same way as the first, so the first needs no record.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fs3.ids import ChainId, ChunkId, InodeId, TargetId
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import StageItem, StageOutcome

from .cluster import World
from .loop import START_S
from .network import SimInternet
from .outcome import Outcome
from .process import owner_of
from .scenario import run_seed
from .seen import Problem, Seen

LINES_MAX = 400
"""The last so many lines are told: what matters is near the end."""


NOISE = ("scrubbed", "member held")
"""Events that come all the time."""


class Told(NamedTuple):
    """Something that happened."""

    at_s: float
    order: int
    host: str
    text: str
    chunk: ChunkId | None = None
    target: TargetId | None = None
    chain: ChainId | None = None


class Recorder:
    """Notes what happens in a world."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.world: World | None = None
        self.seen: Seen | None = None

    def look(self, world: World, seen: Seen) -> None:
        """A run begins."""
        self.world, self.seen = world, seen

    def note(self, host: str, text: str, **about: Any) -> None:
        """It happens now."""
        at_s = asyncio.get_running_loop().time()
        self.told.append(Told(at_s, len(self.told), host, text, **about))

    def staged(
        self, outcomes: list[StageOutcome], store: ChunkStore, items: Iterable[StageItem], **_: object
    ) -> None:
        """A store has staged."""
        for item, outcome in zip(items, outcomes, strict=True):
            update = item.update
            what = f"{update.kind.name} {update.identity} at {update.offset_bytes} + {update.length_bytes}"
            become = f"failed: {outcome.error}" if outcome.error is not None else "staged"
            self.note(_here(), f"{become} {what}", chunk=update.chunk, target=store.target)

    def committed(self, done: bool, store: ChunkStore, chunk: ChunkId, identity: object) -> None:
        """A store has committed."""
        self.note(_here(), f"{'' if done else 'not '}committed {identity}", chunk=chunk, target=store.target)

    def dropped(self, _: None, store: ChunkStore) -> None:
        """A store has dropped its pending versions."""
        self.note(_here(), "dropped all pending versions", target=store.target)

    def logged(self, _: None, __: World, event: dict[str, object]) -> None:
        """A server has logged something."""
        if event.get("level") == "debug" or event.get("event") in NOISE:
            return
        fields = {key: value for key, value in event.items() if key not in ("host", "event", "level")}
        chain = event.get("chain")
        about = {"chain": ChainId(chain)} if isinstance(chain, int) else {}
        self.note(str(event.get("host", "")), f"{event.get('event')} {_shown(fields)}", **about)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of everything as long as this lasts."""
        places: list[tuple[type[Any], str, Callable[..., None]]] = [
            (ChunkStore, "stage", self.staged),
            (ChunkStore, "commit", self.committed),
            (ChunkStore, "drop_pendings", self.dropped),
            (World, "crash", lambda _, __, host, **how: self.note(host, f"crashes {_shown(how)}")),
            (World, "told", self.logged),
            (World, "boot", lambda _, __, host: self.note(host, "is booted")),
            (SimInternet, "cut", self._cut),
            (SimInternet, "mend", lambda _, __, a, b: self._cut(_, __, a, b, mended=True)),
        ]
        originals = [getattr(owner, name) for owner, name, _ in places]
        for (owner, name, hear), original in zip(places, originals, strict=True):
            setattr(owner, name, _heard(original, hear))
        try:
            yield
        finally:
            for (owner, name, _), original in zip(places, originals, strict=True):
                setattr(owner, name, original)

    def _cut(self, _: None, __: SimInternet, source: str, destination: str, **how: object) -> None:
        for host in (source, destination):
            self.note(host, f"link {source} to {destination} {_shown(how) or 'cut'}")


def _here() -> str:
    """The host whose process runs now."""
    process = owner_of(contextvars.copy_context())
    return process.name if process is not None else ""


def _shown(fields: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in fields.items())


def _heard(original: Callable[..., Any], hear: Callable[..., None]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        hear(result, *arguments, **named)
        return result

    return call


def tell(outcome: Outcome) -> tuple[str, ...]:
    """The story of the first problem that names something, else of everything."""
    problem = next((p for p in outcome.problems if p.chunk or p.inode or p.chain), outcome.problems[0])
    recorder = Recorder()
    with recorder.listening():
        run_seed(outcome.seed, recorder.look)
    return (f"the story of {problem}:", *lines(problem, recorder))


def lines(problem: Problem, recorder: Recorder) -> list[str]:
    """What of all that was noted belongs to a problem, in order of time."""
    world, seen = recorder.world, recorder.seen
    assert world is not None and seen is not None
    inode = problem.chunk.inode if problem.chunk is not None else problem.inode
    targets = {told.target for told in recorder.told if told.chunk and _is_of(told.chunk, problem, inode)}
    chains = {problem.chain} if problem.chain is not None else _chains_of(world, targets)
    hosts = _hosts_of(world, chains)
    found = [
        (told.at_s, told.order, f"{told.host or '-'}: {told.text}")
        for told in recorder.told
        if _matters(told, problem, inode, targets, chains, hosts)
    ]
    for history in seen.histories.values():
        if _is_of(history.chunk, problem, inode):
            found += [(op.start_s, -1, f"client: {op}") for op in history.ops]
    found.sort()
    shown = [f"{at_s - START_S:10.6f} {text}" for at_s, _, text in found]
    left_out = [f"({len(shown) - LINES_MAX} lines before are left out)"] if len(shown) > LINES_MAX else []
    return left_out + shown[-LINES_MAX:]


def _is_of(chunk: ChunkId, problem: Problem, inode: InodeId | None) -> bool:
    return chunk == problem.chunk if problem.chunk is not None else chunk.inode == inode


def _matters(
    told: Told,
    problem: Problem,
    inode: InodeId | None,
    targets: set[TargetId | None],
    chains: set[ChainId],
    hosts: set[str],
) -> bool:
    if told.chunk is not None:
        if problem.chunk is None and inode is None:
            return problem.chain is None or told.host in hosts
        return _is_of(told.chunk, problem, inode)
    if told.target is not None:
        return told.target in targets
    if told.chain is not None:
        return not chains or told.chain in chains
    return not hosts or told.host in hosts or told.host.startswith("mgmtd")


def _chains_of(world: World, targets: set[TargetId | None]) -> set[ChainId]:
    chains = world.clients[0].core.components.routing.routing.chains
    return {chain for chain, info in chains.items() if any(m.target in targets for m in info.members)}


def _hosts_of(world: World, chains: set[ChainId]) -> set[str]:
    routing = world.clients[0].core.components.routing.routing
    addresses = [
        routing.address_of(member.target)
        for chain in chains
        if chain in routing.chains
        for member in routing.chains[chain].members
    ]
    return {address.partition(":")[0] for address in addresses if address is not None}

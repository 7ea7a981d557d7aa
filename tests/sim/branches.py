"""Rare branches of the product, by name, and how often a run took each.

Counted from outside: from events that the servers log, and by wrapping functions, so that the product carries
nothing for it. Each name says what happened. Functions stay wrapped once a seed has run in a process:
``begin`` forgets what other worlds have done since.

Left out: the chain rule ``repair``, which only an operator asks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import fs3.kv.run
import fs3.meta.driver
import fs3.storage.read_batch
import fs3.storage.replica
import fs3.storage.resync.source
from fs3.client.reader import Reader
from fs3.errors import Fs3Error, MaybeApplied, SessionLost, StaleFile, StaleRouting
from fs3.ids import HEAD_SESSION
from fs3.meta.finisher import Finisher
from fs3.meta.workers.leftovers import TruncateWorker
from fs3.meta.workers.sessions import SessionWorker
from fs3.storage.arrival import Turn
from fs3.storage.effects import Answer, Fail
from fs3.storage.engine.store import ChunkStore
from fs3.storage.epochs import Decrees
from fs3.storage.gate import Gate
from fs3.storage.reading import Serve, Stale
from fs3.storage.replica import Replica
from fs3.storage.resync.job import Job, Phase

from .cluster import World

RULES = ("resume", "lost", "leave", "renew", "in_force", "join", "fall_back", "enter")
HITS: Counter[str] = Counter()
"""Of the seed that runs."""
NAMES: dict[str, None] = {
    **{f"chain rule {rule}": None for rule in RULES},
    "mgmtd: a standby took the lease over": None,
    "mgmtd: a primary stepped down": None,
    "node: silent": None,
    "node: suspected by evidence": None,
    "store: opened with pending versions": None,
    "store: pending versions dropped on entering SYNCING": None,
    "craq: pending version rolled forward under a new chain version": None,
    "craq: retry answered from its record": None,
    "craq: retry answered after a change of the chain": None,
    "craq: retry waits for its pending version": None,
    "craq: pending version replaced by the predecessor's": None,
    "craq: numbered update was committed already": None,
    "craq: numbered update joins what is pending": None,
    "craq: numbered update has to wait for an older one": None,
    "craq: new tail settles what it brought along": None,
    "read: answered from a pending version after the tail's word": None,
    "read: the tail's word fits nothing here": None,
    "read: refused, no lease": None,
    "write: refused, not at the chain's version": None,
    "write: refused, epoch is over": None,
    "write: refused, session is over": None,
    "decree: a hop failed and was repeated": None,
    "resync: more than one page": None,
    "resync: only what changed is compared": None,
    "resync: records of channels taken over": None,
    "kv: result of a commit unknown": None,
    "meta: answered again from a slot": None,
    "meta: lost session declared over": None,
    "meta: file of an ended session settled": None,
    "meta: old cut found and finished": None,
    "client: read hedged": None,
    "client: hedge won": None,
    "client: write met a later epoch": None,
}


def _hit(name: str, count: int = 1) -> None:
    assert name in NAMES, name
    if count:
        HITS[name] += count


def _after(owner: Any, name: str, look: Callable[..., object]) -> None:
    """Call ``look(result, *arguments)`` after each call of ``owner.name``."""
    original = getattr(owner, name)

    @wraps(original)
    def call(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        look(result, *arguments)
        return result

    setattr(owner, name, call)


def _before(owner: Any, name: str, look: Callable[..., object]) -> None:
    """Call ``look(*arguments)`` before each call of ``owner.name`` (also of a coroutine function)."""
    original = getattr(owner, name)

    @wraps(original)
    def call(*arguments: Any, **named: Any) -> Any:
        look(*arguments)
        return original(*arguments, **named)

    setattr(owner, name, call)


def _after_awaited(
    owner: Any,
    name: str,
    look: Callable[[Any], object],
    failed: Callable[[Exception], object] = lambda error: None,
) -> None:
    """The same for a coroutine function: ``look(result)``, or ``failed(error)``."""
    original = getattr(owner, name)

    @wraps(original)
    async def call(*arguments: Any, **named: Any) -> Any:
        try:
            result = await original(*arguments, **named)
        except Exception as error:
            failed(error)
            raise
        look(result)
        return result

    setattr(owner, name, call)


_installed: list[bool] = []


def begin() -> None:
    """A seed begins: count from nothing."""
    HITS.clear()
    if _installed:
        return
    _installed.append(True)
    _install_replica()
    _install_storage()
    _install_meta()


def _install_replica() -> None:
    _before(Replica, "on_routing", _on_routing)
    _after(Replica, "__init__", lambda _, self, *__: _opened(self))
    _after(Replica, "_replay", _replayed)
    _before(Replica, "_give_way", _gives_way)
    _after(Replica, "_take_write", _took_write)
    _after(Replica, "on_write", _got_write)
    _before(Replica, "on_settle", _settles)
    _after(fs3.storage.replica, "judge_update", _judged)
    _after(fs3.storage.read_batch, "choose_after_answer", _chose)
    _after(Gate, "_lease_problem", lambda error, *_: _hit("read: refused, no lease", error is not None))
    _after(Gate, "write_problem", _write_problem)
    _after(Decrees, "on_step_failed", lambda *_: _hit("decree: a hop failed and was repeated"))


def _on_routing(replica: Replica, info: Any, now_s: float) -> None:
    standing = replica.gate.standing
    if standing is not None and info.version > standing.version:
        _hit("craq: pending version rolled forward under a new chain version", replica.pending_count)


def _opened(replica: Replica) -> None:
    _hit("store: opened with pending versions", replica.pending_count)


def _replayed(effects: list[Any], replica: Replica, work: Any, job: Any, result: Any) -> None:
    if not effects:
        _hit("craq: retry waits for its pending version")
    elif isinstance(effects[0], Answer):
        _hit("craq: retry answered from its record")
        standing = replica.gate.standing
        if standing is not None and result.identity.chain_version < standing.version:
            _hit("craq: retry answered after a change of the chain")


def _gives_way(replica: Replica, work: Any, identity: Any) -> None:
    if work.pending is not None and work.pending.version.identity != identity:
        _hit("craq: pending version replaced by the predecessor's")


def _took_write(effects: list[Any] | None, replica: Replica, work: Any, job: Any, ask: Any) -> None:
    if effects and isinstance(effects[0], Fail) and ask.writer.session != HEAD_SESSION:
        _hit("write: refused, epoch is over", isinstance(effects[0].error, StaleFile))


def _got_write(effects: list[Any], *_: object) -> None:
    if effects and isinstance(effects[0], Fail) and isinstance(effects[0].error, SessionLost):
        _hit("write: refused, session is over")


def _settles(replica: Replica, ticket: int, chunks: Iterable[Any], deadline_s: float) -> None:
    if any(replica.must_settle(chunk) for chunk in chunks):
        _hit("craq: new tail settles what it brought along")


def _judged(turn: Turn | Fs3Error, *_: object) -> None:
    names = {
        Turn.DONE: "craq: numbered update was committed already",
        Turn.JOIN: "craq: numbered update joins what is pending",
        Turn.LATER: "craq: numbered update has to wait for an older one",
    }
    if isinstance(turn, Turn) and turn in names:
        _hit(names[turn])


def _chose(chosen: Serve | Stale, state: Any, answered: Any) -> None:
    if isinstance(chosen, Stale):
        _hit("read: the tail's word fits nothing here")
    elif state.pending is not None and state.pending.version.identity == chosen.identity:
        _hit("read: answered from a pending version after the tail's word")


def _write_problem(error: Fs3Error | None, *_: object) -> None:
    _hit("write: refused, not at the chain's version", isinstance(error, StaleRouting))


def _install_storage() -> None:
    _before(ChunkStore, "drop_pendings", _drops)
    _before(
        ChunkStore,
        "merge_dedup",
        lambda _, records: _hit("resync: records of channels taken over", len(records)),
    )
    _before(Job, "on_page", _paged)
    _after(
        fs3.storage.resync.source,
        "base_change",
        lambda base, *_: _hit("resync: only what changed is compared", base > 0),
    )


def _drops(store: ChunkStore) -> None:
    _hit("store: pending versions dropped on entering SYNCING", len(store.pendings()))


def _paged(job: Job, after: object) -> None:
    _hit("resync: more than one page", job.phase is Phase.CHUNKS and after is not None)


def _install_meta() -> None:
    _after_awaited(
        fs3.meta.driver, "stored_answer", lambda a: _hit("meta: answered again from a slot", a is not None)
    )
    _after_awaited(
        SessionWorker, "_declare_lost", lambda r: _hit("meta: lost session declared over", r is not None)
    )
    _before(TruncateWorker, "_finish", lambda *_: _hit("meta: old cut found and finished"))
    _before(Finisher, "_settle_once", lambda *_: _hit("meta: file of an ended session settled"))
    _after_awaited(fs3.kv.run, "_attempt", lambda _: None, failed=_attempt_failed)


def _attempt_failed(error: Exception) -> None:
    _hit("kv: result of a commit unknown", isinstance(error, MaybeApplied))


def _from_events(world: World) -> None:
    for event in world.events:
        what = event.get("event")
        if what == "chain changed" and event["rule"] in RULES:
            _hit(f"chain rule {event['rule']}")
        elif what == "node is silent":
            _hit("node: silent")
        elif what == "node is suspected":
            _hit("node: suspected by evidence")
        elif what == "primary":
            _hit("mgmtd: a standby took the lease over", int(event["term"] != 1))
        elif what == "not primary any more" and event["reason"] != "stopped":
            _hit("mgmtd: a primary stepped down")


def _from_clients(world: World) -> None:
    for client in world.clients:
        reader: Reader = client.core.reader
        _hit("client: read hedged", reader.counters.hedges)
        _hit("client: hedge won", reader.counters.hedges_won)
        _hit("client: write met a later epoch", client.core.writer.counters.stale_files)


def taken(world: World) -> tuple[tuple[str, int], ...]:
    """How often the seed that has just run took each branch."""
    _from_events(world)
    _from_clients(world)
    return tuple(sorted(HITS.items()))

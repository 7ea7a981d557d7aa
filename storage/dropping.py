"""Drops records whose retention is over: the head's rounds, and each member's part of a hop (design 4.9).

Once in ``round_s`` every head walks its store page by page, and has what is old enough dropped by its chain:
DROP_EXPIRED goes from member to member, the last drops first, each after its successor's answer, the head
last. It goes only while every member of the chain serves, so that all have the records and none returns
later with one. A hop that fails leaves the members behind it without records that those before still have;
the next round asks again, and who has dropped already says so. What to drop is ``retention.py``'s to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fs3.errors import Fs3Error, StaleRouting, Unavailable
from fs3.ids import ChainVersion
from fs3.log import Logger
from fs3.metrics import Metrics
from fs3.routing import ChainInfo, TargetState
from fs3.rpc.service import Caller
from fs3.wire.storage import DROP_EXPIRED, EXPIRED_MAX, DropExpiredRequest, Expired

from .engine.store import ChunkStore
from .lanes import READS, Lanes
from .membership import Membership
from .retention import (
    RETENTION_MS,
    Cutoff,
    Verdict,
    judge,
    old_epochs,
    old_sessions,
    old_tombstones,
)
from .runner import TargetRunner

K = TypeVar("K")  # what records are ordered by
V = TypeVar("V")  # a record of any kind


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How long records are kept and how fast they are looked for."""

    retention_ms: int = RETENTION_MS
    """Cluster time. Less than the default lets writers of before a truncate in again."""
    round_s: float = 600.0
    """From the end of one round over all targets to the next."""
    page_count: int = 256
    """Records looked at in one go: about a millisecond. At most EXPIRED_MAX."""
    pause_s: float = 0.05
    """Between pages, so that a round over millions of chunks is not felt."""
    hop_timeout_s: float = 5.0
    """Longest wait for the chain behind to drop a page."""


RETENTION = RetentionSettings()


class Dropping:
    """One storage process's part in forgetting. Event loop only."""

    def __init__(
        self,
        membership: Membership,
        caller: Caller,
        lanes: Lanes,
        log: Logger,
        metrics: Metrics,
        settings: RetentionSettings,
    ) -> None:
        assert 0 < settings.page_count <= EXPIRED_MAX, settings
        self._membership = membership
        self._caller = caller
        self._lanes = lanes
        self._log = log
        self._settings = settings
        self._known_since_ms: int | None = None
        name = "fs3_storage_dropped_records_total"
        self._tombstones = metrics.counter(name, kind="tombstone")
        self._epochs = metrics.counter(name, kind="epoch")
        self._sessions = metrics.counter(name, kind="session")

    async def run(self, targets: Callable[[], Sequence[TargetRunner]]) -> None:
        """Rounds over the process's targets, for ever."""
        while True:
            await asyncio.sleep(self._settings.round_s)
            for runner in targets():
                try:
                    await self.sweep(runner)
                except Fs3Error as error:
                    # a member is away, the chain changes, the disk is over: the next round tries again
                    self._log.debug("records kept", target=f"{runner.target:x}", reason=str(error))

    async def sweep(self, runner: TargetRunner) -> None:
        """One round over a target: nothing, unless it is the head of a chain whose members all serve.

        Raises StaleRouting, Unavailable, MaybeApplied, Busy, DeadlineExceeded: some records stay for now.
        """
        store = runner.store
        await self._walk(runner, store.list_chunks, lambda entry: entry[0], old_tombstones)
        await self._walk(runner, store.epochs, lambda record: record.inode, old_epochs)
        await self._walk(runner, store.ended_sessions, lambda entry: entry[0], old_sessions)

    async def _walk(
        self,
        runner: TargetRunner,
        page_of: Callable[[K | None, int], list[V]],
        key_of: Callable[[V], K],
        old_of: Callable[[Sequence[V], Cutoff], Expired],
    ) -> None:
        settings = self._settings
        after: K | None = None
        while (info := self._chain_to_drop_at(runner)) is not None:
            page = await self._lanes.run(READS, partial(page_of, after, settings.page_count))
            if not page:
                return
            after = key_of(page[-1])
            old = old_of(page, self._cutoff())
            if len(old):
                await self._begin(runner, info.version, old)
            await asyncio.sleep(settings.pause_s)

    async def _begin(self, runner: TargetRunner, version: ChainVersion, records: Expired) -> None:
        timeout_s = self._settings.hop_timeout_s
        try:
            async with asyncio.timeout(2 * timeout_s):  # as long for the own disk as for all behind
                await self.drop(runner, version, records, timeout_s)
        except TimeoutError:
            raise Unavailable(f"target {runner.target:x} has not dropped its records in time") from None

    def _chain_to_drop_at(self, runner: TargetRunner) -> ChainInfo | None:
        """The chain's record, if this is its head under a lease and all its members serve."""
        info = self._membership.routing.chains.get(runner.chain) if runner.chain is not None else None
        if info is None or runner.replica.gate.write_problem(info.version) is not None:
            return None
        all_serve = all(member.state is TargetState.SERVING for member in info.members)
        return info if all_serve else None

    def _cutoff(self) -> Cutoff:
        """By this node's view of cluster time; Unavailable: it knows none yet."""
        now_ms = self._membership.cluster_time_ms()
        if self._known_since_ms is None:
            self._known_since_ms = now_ms
        return Cutoff(now_ms - self._settings.retention_ms, self._known_since_ms)

    async def drop(
        self, runner: TargetRunner, version: ChainVersion, records: Expired, timeout_s: float
    ) -> Expired:
        """Have the members behind drop records, then drop them here; what somebody still needs is returned.

        Raises what stopped it here or behind: then this member has dropped nothing. Given up while the disk
        is slow, it drops a little later: those behind have done so already.
        """
        _require_member(runner, version)
        kept_behind = await self._drop_behind(runner, version, records, timeout_s)
        _require_member(runner, version)  # the chain may have changed meanwhile: another may be behind now
        work = partial(_drop_here, runner.store, records, kept_behind, self._cutoff())
        verdict = await runner.committer.wait(work)
        assert isinstance(verdict, Verdict), verdict
        self._tombstones.value += len(verdict.tombstones)
        self._epochs.value += len(verdict.epochs)
        self._sessions.value += len(verdict.sessions)
        return verdict.kept

    async def _drop_behind(
        self, runner: TargetRunner, version: ChainVersion, records: Expired, timeout_s: float
    ) -> Expired:
        standing = runner.replica.gate.standing
        assert standing is not None and standing.version == version, (standing, version)
        if standing.successor is None:
            return Expired()
        address = self._membership.routing.address_of(standing.successor.target)
        if address is None:
            raise Unavailable(f"the node of target {standing.successor.target:x} is not in routing")
        request = DropExpiredRequest(chain=standing.chain, chain_version=version, records=records)
        answer = await self._caller.call(address, DROP_EXPIRED, request, timeout_s=timeout_s)
        return answer.kept


def _require_member(runner: TargetRunner, version: ChainVersion) -> None:
    if (error := runner.replica.gate.decree_problem(version)) is not None:
        raise error
    standing = runner.replica.gate.standing
    if standing is None or not standing.serving:
        raise StaleRouting(f"target {runner.target:x} does not serve at {version}: it may lack records yet")


def _drop_here(store: ChunkStore, records: Expired, kept_behind: Expired, cutoff: Cutoff) -> Verdict:
    """In the committer's lane: no stage, raise or end comes between the look and the drop."""
    verdict = judge(records, kept_behind, store.versions, store.epoch_record, store.session_ended_ms, cutoff)
    if verdict.number_floor > store.number_floor:
        store.raise_floor(verdict.number_floor)
    if verdict.tombstones:
        store.drop_tombstones(verdict.tombstones)
    if verdict.epochs:
        store.drop_epochs(verdict.epochs)
    if verdict.sessions:
        store.drop_sessions(verdict.sessions)
    return verdict

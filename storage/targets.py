"""The targets of a storage node: which chain each serves, what is reported of them, which are over.

A failed write or sync is a failed disk: all targets on it go OFFLINE at once and are reported (design 4.7).
An invariant that does not hold takes its target alone. One bad routing entry is left out, never the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fs3.ids import ChainId, ChainVersion, TargetId
from fs3.log import Logger
from fs3.metrics import Metrics
from fs3.routing import ChainInfo, LocalState, RoutingInfo
from fs3.wire.mgmtd import TargetReport

from .disk import Disk
from .disks import OpenedTarget
from .engine.versions import SpaceInfo
from .membership import Membership
from .runner import TargetRunner

MakeRunner = Callable[[OpenedTarget, "Callable[[TargetRunner, str], None]"], TargetRunner]
NO_STORE = bytes(16)


class Targets:
    """All targets of this process. Threads read ``by_chain``, which is replaced as a whole."""

    def __init__(
        self,
        opened: Sequence[OpenedTarget],
        make_runner: MakeRunner,
        membership: Membership,
        log: Logger,
        metrics: Metrics,
    ) -> None:
        self.by_chain: dict[ChainId, TargetRunner] = {}
        self.copy_step_count: Callable[[TargetId], int] = lambda source: 0
        """Of the copying to the successor of a target; set by who copies."""
        self._membership = membership
        self._log = log
        self._opened = list(opened)
        self._offline: dict[TargetId, str] = {}
        self._seen: dict[ChainId, ChainInfo] = {}
        self._named: dict[ChainId, list[TargetRunner]] = {}
        self._runners: dict[TargetId, TargetRunner] = {}
        for one in opened:
            if one.store is None:
                self._offline[one.target] = one.reason
                log.error("target not opened", target=f"{one.target:x}", reason=one.reason)
            else:
                self._runners[one.target] = make_runner(one, self._went_offline)
                self._export(self._runners[one.target], metrics)
        self._disk_errors = {
            one.target: metrics.counter("fs3_storage_disk_errors_total", target=f"{one.target:x}")
            for one in opened
        }

    def _export(self, runner: TargetRunner, metrics: Metrics) -> None:
        label = f"{runner.target:x}"

        def space(pick: Callable[[SpaceInfo], int]) -> Callable[[], float]:
            return lambda: pick(runner.store.space()) if runner.target not in self._offline else 0

        metrics.computed("fs3_storage_capacity_bytes", space(lambda s: s.capacity_bytes), target=label)
        metrics.computed("fs3_storage_used_bytes", space(lambda s: s.used_bytes), target=label)
        metrics.computed("fs3_storage_chunks", space(lambda s: s.chunk_count), target=label)
        metrics.computed("fs3_storage_pending_updates", lambda: runner.pending_count, target=label)
        metrics.computed(
            "fs3_storage_target_online", lambda: runner.target not in self._offline, target=label
        )

    def start(self) -> None:
        """Begin to work, and follow routing."""
        for runner in self._runners.values():
            runner.start()
        self._membership.subscribe(self.on_routing)
        self.on_routing(self._membership.routing)
        self.report()

    def stop(self) -> None:
        """Answer everybody who waits."""
        for runner in self._runners.values():
            runner.stop()

    def close(self) -> None:
        """Close the stores; all tasks have ended."""
        for runner in self._runners.values():
            runner.close()

    def online(self) -> list[TargetRunner]:
        """Those in use, by id."""
        return [self._runners[t] for t in sorted(self._runners) if t not in self._offline]

    def by_disk(self) -> list[tuple[Disk, str, list[TargetRunner]]]:
        """Each disk that has targets in use, its directory, and those."""
        disks: dict[str, tuple[Disk, str, list[TargetRunner]]] = {}
        for one in self._opened:
            if one.target in self._runners and one.target not in self._offline:
                found = disks.setdefault(one.directory, (one.disk, one.directory, []))
                found[2].append(self._runners[one.target])
        return list(disks.values())

    def on_routing(self, routing: RoutingInfo) -> None:
        """A newer picture: tell each target of its chain."""
        by_chain: dict[ChainId, TargetRunner] = {}
        news: list[tuple[TargetRunner, ChainInfo]] = []
        taken: dict[TargetId, ChainId] = {}
        for chain, mine in self._named_in(routing.chains).items():
            if len(mine) > 1 or any(runner.target in taken for runner in mine):
                self._log.error(
                    "chain left out: it names two targets of this node, or one twice", chain=chain
                )
                continue
            for runner in mine:
                taken[runner.target] = chain
                by_chain[chain] = runner
                news.append((runner, routing.chains[chain]))
        self.by_chain = by_chain
        for runner, info in news:
            runner.on_chain(info)
        self.report()

    def _named_in(self, chains: Mapping[ChainId, ChainInfo]) -> dict[ChainId, list[TargetRunner]]:
        """The targets here that chains name. Only new records are looked at: there may be 16,000 others."""
        for chain, info in chains.items():
            if self._seen.get(chain) is not info:
                self._seen[chain] = info
                if found := [self._runners[m.target] for m in info.members if m.target in self._runners]:
                    self._named[chain] = found
                else:
                    self._named.pop(chain, None)
        if len(self._seen) > len(chains):
            for gone in [chain for chain in self._seen if chain not in chains]:
                del self._seen[gone]
                self._named.pop(gone, None)
        return self._named

    def _went_offline(self, runner: TargetRunner, reason: str) -> None:
        """One target is over; with it, if the disk failed, all on that disk."""
        self._offline[runner.target] = reason
        disk = next(one.disk for one in self._opened if one.target == runner.target)
        if disk.failure is not None:
            self._disk_errors[runner.target].value += 1
            for one in self._opened:
                if one.disk is disk and one.target not in self._offline:
                    self._runners[one.target].go_offline(f"disk: {disk.failure}")
        self.report()

    def report(self) -> None:
        """Hand the state of all targets to membership, which reports what changed."""
        self._membership.set_targets([self._report_of(one) for one in self._opened])

    def _report_of(self, one: OpenedTarget) -> TargetReport:
        reason = self._offline.get(one.target)
        runner = self._runners.get(one.target)
        store_id = one.store.store_id.to_bytes(16, "big") if one.store is not None else NO_STORE
        chain = runner.chain if runner is not None and runner.chain is not None else ChainId(0)
        if reason is not None or runner is None:
            return TargetReport(
                target=one.target,
                state=LocalState.OFFLINE,
                store_id=store_id,
                clean=False,
                chain=chain,
                reason=(reason or "")[:500],
            )
        standing = runner.replica.gate.standing
        is_complete = runner.replica.gate.is_complete
        space = runner.store.space()
        return TargetReport(
            target=one.target,
            state=LocalState.UPTODATE if is_complete else LocalState.ONLINE,
            store_id=store_id,
            clean=True,
            chain=chain,
            chain_version=standing.version if is_complete and standing is not None else ChainVersion(0),
            capacity_bytes=space.capacity_bytes,
            used_bytes=space.used_bytes,
            acknowledge_us=runner.committer.acknowledge_us(),
            copy_step_count=self.copy_step_count(one.target),
        )

    def health(self) -> dict[str, object]:
        """For ``/healthz``."""
        return {
            "targets": len(self._opened),
            "offline": {f"{target:x}": reason for target, reason in sorted(self._offline.items())},
            "pending": sum(runner.pending_count for runner in self._runners.values()),
        }

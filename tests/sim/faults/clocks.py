"""Time: wall clocks are set, clocks change their rates, stand still; processes and machines are stopped."""

from __future__ import annotations

import asyncio
from typing import Any

from fs3.member.cluster_offset import ClusterOffset
from fs3.member.timing import TIMING

from .family import Family

FENCED_WITHIN_S = 10.0
LOSS_S = (0.3, 5.0)
"""More than the 100 ms that fence a node, and what a delay may hide of them."""
CERTAIN_S = TIMING.clock_loss_s + 0.2
"""A loss of which the primary's answers prove as much is noticed: the rest is for the rates of clocks."""


class WallClocks(Family):
    """Somebody sets the time of a host: nothing but the times shown to people may change."""

    kinds: tuple[str, ...] = ("wall clock set",)

    async def run(self) -> None:
        world = self.world
        hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts]
        while await self.quiet(0.5, 10):
            self.struck("wall clock set")
            jump_s = self.rng.choice((-1, 1)) * self.rng.choice((1, 60, 86_400 * 365))
            world.clock(self.rng.choice(hosts)).wall_jump_ns += jump_s * 1_000_000_000


class Rates(Family):
    """Clocks change how fast they go, within what is allowed (±0.9 %)."""

    kinds: tuple[str, ...] = ("clock rate changed",)

    async def run(self) -> None:
        world = self.world
        hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts, *world.client_hosts]
        while await self.quiet(0.5, 6):
            self.struck("clock rate changed")
            drift = self.rng.choice((-0.009, 0.009, self.rng.uniform(-0.009, 0.009)))
            world.clock(self.rng.choice(hosts)).drift(drift)


class Pauses(Family):
    """A process is stopped (SIGSTOP) while its clock goes on, and let go on: any server."""

    kinds: tuple[str, ...] = tuple(f"{kind} paused" for kind in ("mgmtd", "meta", "storage"))

    async def run(self) -> None:
        world = self.world
        hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts]
        while await self.quiet(0.5, 12):
            with self.take(hosts) as host:
                if host is None:
                    continue
                kind = host.rstrip("0123456789")
                self.struck(f"{kind} paused")
                process = world.processes[host]
                process.pause()
                await asyncio.sleep(
                    self.rng.choice((0.1, 1.0, self.rng.uniform(1, 3), self.rng.uniform(3, 12)))
                )
                process.resume()


class Proof:
    """How much of a loss the primary's answers prove, counted apart from the node."""

    def __init__(self, offset: ClusterOffset) -> None:
        """From the last answer before this moment on."""
        self.lost_s = 0.0
        told, before, term_before = offset.lost_s, offset._lost._last, offset._lost._run
        rates = (1 + TIMING.clock_rate_error) / (1 - TIMING.clock_rate_error)

        def seen(term: int, cluster_ms: int, sent_s: float, received_s: float) -> float:
            if before is not None and term == term_before:
                passed_s = (cluster_ms - before.other_ms - 1) / 1000
                self.lost_s = max(self.lost_s, passed_s - (received_s - before.sent_s) * rates)
            return told(term, cluster_ms, sent_s, received_s)

        watched: Any = offset
        watched.lost_s = seen


class LostTime(Family):
    """A storage node's clock loses time: it must notice, fence itself and enter as a new generation.

    While a clock is wrong and nobody has noticed, leases mean nothing: that is the one stated assumption
    (design 2.2). So clients do not reach the node for the while: they would see what the assumption excludes.
    """

    kinds: tuple[str, ...] = ("clock lost time", "machine frozen", "fenced", "not fenced in time")

    async def run(self) -> None:
        while await self.quiet(1, 15):
            with self.take(self.world.storage_hosts) as host:
                if host is not None:
                    await self._once(host)

    async def _once(self, host: str) -> None:
        world = self.world
        lost_s, is_frozen = self.rng.uniform(*LOSS_S), self.rng.random() < 0.5
        self.struck("machine frozen" if is_frozen else "clock lost time")
        world.net.seclude(host, "mgmtd", "storage")
        world.may_fence[host] = None
        agent = world.storages[host].agent
        proof = Proof(agent._offset) if agent is not None else None
        goes_on_s = world.loop.time() + lost_s
        world.clock(host).stand_still(lost_s)
        if is_frozen:
            await self._pause(host, lost_s)
        is_fenced = await self.until(lambda: host in world.fenced, FENCED_WITHIN_S)
        self.struck("fenced" if is_fenced else "not fenced in time")
        if not is_fenced and proof is not None and proof.lost_s > CERTAIN_S:
            world.failures.append(f"{host}: by the primary's answers its clock lost {proof.lost_s:.3f} s")
        world.crash(host)
        world.net.readmit(host)
        await asyncio.sleep(max(0.0, goes_on_s - world.loop.time()))  # else the next run loses the rest
        world.fenced.pop(host, None)
        del world.may_fence[host]
        await self.outage()
        await world.boot(host)

    async def _pause(self, host: str, seconds: float) -> None:
        process = self.world.processes[host]
        process.pause()
        await asyncio.sleep(seconds)
        process.resume()

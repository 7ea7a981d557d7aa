"""Faults aimed at what chance alone hardly ever meets: leases, joins and primaries at their weakest moments.

Each is a schedule under which one particular rule of membership is the only thing that stands between a
reader and a stale value; ``docs/simulator.md`` names the rule of each.
"""

from __future__ import annotations

import asyncio

from fs3.routing import ChainInfo, TargetState

from ..standing import newest_chains
from .family import Family

SILENT_S = (5.1, 6.5)
"""After this the primary takes those whom it does not hear for dead, and counts on whoever is heard again."""


class Aimed(Family):
    """What the aimed families share: chains, and the hosts of their members."""

    def members(self, info: ChainInfo, *, serving: bool = True) -> list[str]:
        """The hosts of a chain's members, of the serving ones or of the others, in order."""
        found = [m for m in info.members if (m.state is TargetState.SERVING and not m.joining) == serving]
        return [self.world.storage_host(m.node) for m in found]

    def a_chain(self) -> ChainInfo | None:
        """A chain with at least two serving members, all free."""
        chains = [info for _, info in sorted(newest_chains(self.world).items())]
        good = [c for c in chains if len(hosts := self.members(c)) >= 2 and self.free(hosts) == hosts]
        return self.rng.choice(good) if good else None

    def cut_from_primaries(self, hosts: list[str]) -> None:
        """The hosts and all mgmtds do not reach each other; else everybody reaches everybody."""
        for host in hosts:
            for mgmtd in self.world.mgmtd_hosts:
                self.world.net.cut(host, mgmtd)

    def mend(self, hosts: list[str]) -> None:
        """Links of the hosts to the mgmtds are whole."""
        for host in hosts:
            for mgmtd in self.world.mgmtd_hosts:
                self.world.net.mend(host, mgmtd)


class CutFromPrimary(Aimed):
    """A chain is cut from the mgmtds alone and lives by its members' leases; then its first member restarts.

    Back within 0.2 s and heard by the primary, it must neither resume nor commit while the others serve under
    what its earlier generation granted them.
    """

    kinds: tuple[str, ...] = ("chain cut from the primary", "its first member restarts within 0.2 s")

    async def run(self) -> None:
        while await self.quiet(1, 12):
            info = self.a_chain()
            if info is None:
                continue
            hosts = self.members(info)
            with self.hold(*hosts):
                self.struck("chain cut from the primary")
                self.cut_from_primaries(hosts)
                if self.rng.random() < 0.6:
                    await asyncio.sleep(self.rng.uniform(*SILENT_S))
                    self.struck("its first member restarts within 0.2 s")
                    self.mend(hosts[:1])
                    await self.restart(hosts[0], after_s=self.rng.uniform(0.0, 0.2))
                    await asyncio.sleep(self.rng.uniform(1, 4))
                else:
                    await asyncio.sleep(self.rng.uniform(1, 8))
                self.mend(hosts)


class RoutingDead(Aimed):
    """Datagrams of a member pass and its connections to the mgmtds do not, while its chains change."""

    kinds: tuple[str, ...] = ("routing connection dead while datagrams pass",)

    async def run(self) -> None:
        while await self.quiet(1, 12):
            info = self.a_chain()
            if info is None:
                continue
            host, other = self.rng.sample(self.members(info), 2)
            with self.hold(host, other):
                self.struck("routing connection dead while datagrams pass")
                for mgmtd in self.world.mgmtd_hosts:
                    self.world.net.cut(host, mgmtd, plane="streams")
                kind = self.rng.choice(("other", "itself", "other cut off"))
                if kind == "other":
                    await self.restart(other)
                elif kind == "itself":  # forged evidence: it is left out, and its datagrams go on passing
                    for mgmtd in self.world.mgmtd_hosts:
                        self.world.net.refuse(mgmtd, host)
                        self.world.net.cut(host, mgmtd, both_ways=False)
                    await asyncio.sleep(self.rng.uniform(1.2, 2.5))
                    for mgmtd in self.world.mgmtd_hosts:
                        self.world.net.mend(host, mgmtd)
                        self.world.net.cut(host, mgmtd, plane="streams")
                else:
                    self.cut_from_primaries([other])
                    await asyncio.sleep(self.rng.uniform(2, 6))
                await asyncio.sleep(self.rng.uniform(0.5, 4))
                self.mend([host, other])


class LateAnswers(Aimed):
    """Answers to a member take longer than a grant runs: what it holds must be over when they come."""

    kinds: tuple[str, ...] = ("answers later than the grant",)

    async def run(self) -> None:
        while await self.quiet(1, 12):
            info = self.a_chain()
            if info is None:
                continue
            hosts = self.members(info)
            victim = self.rng.choice(hosts)
            with self.hold(victim):
                await self._once(victim, [h for h in hosts if h != victim])

    async def _once(self, victim: str, peers: list[str]) -> None:
        net, mgmtds = self.world.net, self.world.mgmtd_hosts
        granters = self.rng.choice((mgmtds, peers, [*mgmtds, *peers]))
        self.struck("answers later than the grant")
        for granter in granters:
            net.hold_back(granter, victim, "all", self.rng.uniform(1.6, 7.5))
        await asyncio.sleep(self.rng.uniform(0.3, 1.5))
        for other in (*mgmtds, *peers):  # what it asked before is still answered
            net.cut(victim, other, both_ways=False)
        await asyncio.sleep(self.rng.uniform(2, 8))
        for other in (*mgmtds, *peers):
            net.mend(victim, other)
            net.let_pass(other, victim)


class Joins(Aimed):
    """A member comes back under writes: its copying is slowed, or an older member hears late of its join."""

    kinds: tuple[str, ...] = ("resync held back", "routing of a member held back at a join")

    async def run(self) -> None:
        while await self.quiet(1, 10):
            with self.take(self.world.storage_hosts) as host:
                if host is not None:
                    await self._once(host)

    async def _once(self, host: str) -> None:
        self.world.crash(host)
        await self.until(lambda: self._enters(host) is None and not self._serves(host), 10)
        await self.world.boot(host)
        if not await self.until(lambda: self._enters(host) is not None, 20):
            return
        info = self._enters(host)
        assert info is not None
        older = self.members(info)
        if not older or self.rng.random() < 0.4:
            self.struck("resync held back")
            held = [(one, other) for peer in older for one, other in ((peer, host), (host, peer))]
            most_s = self.rng.uniform(0.2, 1.0)
        else:
            self.struck("routing of a member held back at a join")
            late = self.rng.choice(older)
            held = [(mgmtd, late) for mgmtd in self.world.mgmtd_hosts]
            held += [(peer, late) for peer in (*older, host) if peer != late and self.rng.random() < 0.5]
            most_s = self.rng.uniform(0.3, 3.0)
        for source, destination in held:
            self.world.net.hold_back(source, destination, "streams" if source in older else "all", most_s)
        await self.until(lambda: self._serves(host), 6)
        await asyncio.sleep(self.rng.uniform(0, most_s))
        for source, destination in held:
            self.world.net.let_pass(source, destination)

    def _enters(self, host: str) -> ChainInfo | None:
        """A chain in which the host is copied to, or joins."""
        for _, info in sorted(newest_chains(self.world).items()):
            for member in info.members:
                if self.world.storage_host(member.node) == host and (
                    member.state is TargetState.SYNCING or member.joining
                ):
                    return info
        return None

    def _serves(self, host: str) -> bool:
        """Whether the host serves, by the records, in any chain."""
        return any(host in self.members(info) for info in newest_chains(self.world).values())


class TakeOvers(Aimed):
    """A primary stops in order, so that its successor begins at once, while a member has just been cut off.

    The grants of the one before still run: nobody may be left out until they are over.
    """

    kinds: tuple[str, ...] = ("primary stops while a member is cut off",)

    async def run(self) -> None:
        while await self.quiet(2, 14):
            primary, info = self.world.primary(), self.a_chain()
            if primary is None or info is None or not self.free([primary]):
                continue
            victim = self.rng.choice(self.members(info))
            with self.hold(primary, victim):
                self.struck("primary stops while a member is cut off")
                for other in (*self.world.mgmtd_hosts, *self.world.storage_hosts):
                    if other != victim:
                        self.world.net.cut(victim, other)
                        self.world.net.refuse(other, victim)
                await self.world.stop(primary)
                await asyncio.sleep(self.rng.uniform(0.2, 2))
                await self.world.boot(primary)
                await asyncio.sleep(self.rng.uniform(0, 4))
                for other in (*self.world.mgmtd_hosts, *self.world.storage_hosts):
                    self.world.net.mend(victim, other)
                    self.world.net.accept(other, victim)

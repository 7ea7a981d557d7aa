"""Metadata operations a second: an owner of the embedded store, 2 services, 8 clients in 2 processes.

Everything is a process of its own and talks TCP, so all of it shares the machine's cores: that is what one
machine gives. mgmtd is played by this process (a fixed picture; it only says where the services are).

    python -m tests.bench.meta_ops [--seconds 3] [--depth 8]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from fs3.clock import SystemClock
from fs3.identity.handshake import ServerIdentity, UserCredentials
from fs3.identity.key_file import system_nonce
from fs3.identity.token import TokenClaims, make_token
from fs3.ids import Generation, NodeId
from fs3.kv.lmdb_client import LmdbKv, LmdbSettings
from fs3.log import SlowLog, silent_logger
from fs3.meta.server import MetaComponents, MetaServer, MetaSettings
from fs3.metrics import Metrics
from fs3.rng import system_rng
from fs3.routing import NodeInfo, NodeKind, RoutingDelta
from fs3.rpc.client import RpcClient
from fs3.rpc.network import SystemNetwork
from fs3.rpc.server import RpcServer
from fs3.rpc.service import Call, Method, Routes
from fs3.stubs.meta import Slots
from fs3.tasks import TaskScope
from fs3.wire import meta as wire
from fs3.wire import mgmtd as mgmtd_wire

from ..kv.owner_process import ROOT, OwnerProcess
from ..meta.world import KEY, routing
from .harness import Row, row, show

SERVICES = 2
PROCESSES = 2
CLIENTS_A_PROCESS = 4
TIMEOUT_S = 30.0
WARM_UP_S = 1.0
LIST_ENTRIES = 10_000
TARGETS = {"create": 2000.0, "stat": 10_000.0}
PHASES = ("create", "stat", "open_close", "rename", "remove", "mkdir", "list")


def failed(name: str, error: BaseException) -> None:
    sys.stderr.write(f"{name}: {error!r}\n")


async def serve_meta(directory: Path, node: int, mgmtd: str) -> None:
    """One metadata service, until SIGTERM; says its address."""
    clock = SystemClock()
    kv = LmdbKv(LmdbSettings(directory), clock=clock)
    server = MetaServer(
        MetaSettings(node=NodeId(node), listen=("127.0.0.1:0",), seeds=(mgmtd,), root_mode=0o777),
        MetaComponents(
            clock=clock,
            rng=system_rng(),
            kv=kv,
            network=SystemNetwork(),
            key=KEY,
            log=silent_logger(),
            metrics=Metrics(),
            slow=SlowLog(silent_logger(), clock, 60.0),
            make_nonce=system_nonce,
            fail=failed,
        ),
    )
    await server.start()
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    sys.stdout.write(server.addresses[0] + "\n")
    sys.stdout.flush()
    await done.wait()
    await server.stop()
    await kv.aclose()


class BenchClient:
    """One client: its own connection and session; ``depth`` requests in flight."""

    def __init__(self, address: str, name: str) -> None:
        claims = TokenClaims(
            cluster=KEY.cluster, key_id=KEY.key_id, uid=0, gid=0, groups=(), is_admin=True,
            key_generation=0, nonce=system_nonce(),
        )  # fmt: skip
        self.rpc = RpcClient(
            UserCredentials(make_token(KEY, claims)),
            SystemNetwork(),
            rng=system_rng(),
            make_nonce=system_nonce,
            on_failure=failed,
        )
        self.address = address
        self.name = name.encode()
        self.made = 0
        self.slots: Slots | None = None

    async def read(self, method: Method[Any, Any], request: Any) -> Any:
        return await self.rpc.call(self.address, method, request, timeout_s=TIMEOUT_S)

    async def mutate(self, method: Method[Any, Any], request: type[Any], **fields: Any) -> Any:
        assert self.slots is not None
        async with self.slots.mutation(TIMEOUT_S) as mutation:
            return await self.read(method, request(mutation=mutation, **fields))

    async def begin(self) -> None:
        answer = await self.read(wire.OPEN_SESSION, wire.OpenSessionRequest(host="bench"))
        self.slots = Slots(answer.session, answer.slot_count)
        await self.mutate(wire.MKDIRS, wire.MkdirsRequest, path=wire.Path(self.name))

    async def renew(self) -> None:
        """Between the phases: a busy machine may make a run longer than a session lives unseen."""
        assert self.slots is not None
        await self.read(wire.RENEW_SESSION, wire.RenewSessionRequest(session=self.slots.session))

    def path(self, number: int, suffix: bytes = b"") -> wire.Path:
        return wire.Path(b"%s/f%d%s" % (self.name, number, suffix))

    async def create(self, number: int) -> None:
        await self.mutate(
            wire.CREATE, wire.CreateRequest, path=self.path(number), mode=wire.OpenMode(0), content=b"x" * 100
        )
        self.made = max(self.made, number + 1)

    async def stat(self, number: int) -> None:
        await self.read(wire.STAT, wire.StatRequest(path=self.path(number % self.made)))

    async def open_close(self, number: int) -> None:
        opened = await self.mutate(
            wire.OPEN, wire.OpenRequest, path=self.path(number % self.made), mode=wire.OpenMode.WRITE
        )
        inode, epoch = opened.attributes.inode, opened.attributes.epoch
        await self.mutate(wire.CLOSE, wire.CloseRequest, inode=inode, epoch=epoch)

    async def rename(self, number: int) -> None:
        back, at = divmod(number, self.made)
        names = self.path(at), self.path(at, b".r")
        source, target = names if back % 2 == 0 else names[::-1]
        await self.mutate(wire.RENAME, wire.RenameRequest, source=source, destination=target)

    async def remove(self, number: int) -> None:
        """What is missing (renamed, or removed in an earlier round) is made first, outside of the figure."""
        await self.mutate(wire.REMOVE, wire.RemoveRequest, path=self.path(number, b".d"))

    async def mkdir(self, number: int) -> None:
        await self.mutate(wire.MKDIRS, wire.MkdirsRequest, path=self.path(number, b".m"), exist_ok=True)


async def rounds(
    clients: list[BenchClient],
    act: Callable[[BenchClient, int], Awaitable[None]],
    seconds: float,
    depth: int,
    count_max: int,
) -> float:
    """Operations a second of all clients, each with ``depth`` in flight."""
    end_s = time.perf_counter() + seconds
    done = 0
    scope = TaskScope("bench", failed)

    async def lane(client: BenchClient, numbers: list[int]) -> None:
        nonlocal done
        while time.perf_counter() < end_s and numbers[0] < count_max:
            number = numbers[0]
            numbers[0] += 1
            await act(client, number)
            done += 1

    began_s = time.perf_counter()
    lanes = []
    for client in clients:
        numbers = [0]
        lanes += [scope.start("lane", lane(client, numbers)) for _ in range(depth)]
    for task in lanes:
        await task
    return done / (time.perf_counter() - began_s)


async def run_clients(addresses: list[str], name: str, seconds: float, depth: int) -> dict[str, float]:
    """All phases of one client process, in step with the others by the clock of each phase."""
    clients = [BenchClient(addresses[n % len(addresses)], f"{name}-{n}") for n in range(CLIENTS_A_PROCESS)]
    for client in clients:
        await client.begin()
    rates: dict[str, float] = {}
    many = 1 << 40
    removable = 400
    for phase in PHASES[:-1]:
        if phase == PHASES[0]:  # connections, code and the store's first pages are not in the figures
            await rounds(clients, BenchClient.mkdir, WARM_UP_S, depth, many)
        for client in clients:
            await client.renew()
        if phase == "remove":
            for client in clients:
                for number in range(removable):
                    await client.mutate(
                        wire.CREATE,
                        wire.CreateRequest,
                        path=client.path(number, b".d"),
                        mode=wire.OpenMode(0),
                        content=b"x",
                    )
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        act = getattr(BenchClient, phase)
        rates[phase] = await rounds(clients, act, seconds, depth, removable if phase == "remove" else many)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    rates["list"] = await listing(clients[0]) if name == "0" else 0.0
    for client in clients:
        await client.rpc.aclose()
    return rates


async def listing(client: BenchClient) -> float:
    """Entries a second of listing a directory of 10,000 with attributes."""
    for number in range(client.made, LIST_ENTRIES):
        if number % 1000 == 0:
            await client.renew()
        await client.create(number)
    began_s = time.perf_counter()
    after, count, more = b"", 0, True
    while more:
        request = wire.ListRequest(path=wire.Path(client.name), after=after, limit=1000, with_attributes=True)
        page = await client.read(wire.LIST, request)
        count += len(page.entries)
        after, more = page.entries[-1].name, page.more
    return count / (time.perf_counter() - began_s)


def mgmtd_routes() -> Routes:
    """A fixed picture."""
    picture = routing()

    async def get_routing(call: Call, request: Any) -> Any:
        if request.known_version >= picture.version:
            await asyncio.sleep(min(request.wait_ms, 1000) / 1000)
            return mgmtd_wire.GetRoutingResponse(cluster_time_ms=int(time.time() * 1000))
        node = NodeInfo(
            node=NodeId(1), kind=NodeKind.META, generation=Generation(1), host="h", address="127.0.0.1:1"
        )
        delta = RoutingDelta(
            cluster_id=KEY.cluster, base_version=0, version=picture.version, nodes=(node,),
            chains=tuple(picture.chains.values()), tables=picture.tables,
        )  # fmt: skip
        return mgmtd_wire.GetRoutingResponse(delta=delta, cluster_time_ms=int(time.time() * 1000))

    async def report(call: Call, request: Any) -> Any:
        return mgmtd_wire.ReportResponse(routing_version=picture.version)

    routes = Routes()
    routes.add(mgmtd_wire.GET_ROUTING, get_routing)
    routes.add(mgmtd_wire.REPORT, report)
    return routes


def spawn(*arguments: str) -> subprocess.Popen[str]:
    """This module in another role."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.meta_ops", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def said(process: subprocess.Popen[str]) -> str:
    """The next line of a child, while this process goes on playing mgmtd."""
    assert process.stdout is not None
    line = await asyncio.get_running_loop().run_in_executor(None, process.stdout.readline)
    assert line, f"child ended: {process.args!r}"
    return line.strip()


async def measure(seconds: float, depth: int) -> dict[str, float]:
    """One run of all phases."""
    with tempfile.TemporaryDirectory(prefix="fs3-bench-meta-") as folder:
        directory = Path(folder)
        owner = OwnerProcess(directory)
        owner.start()
        mgmtd = RpcServer(
            mgmtd_routes(),
            ServerIdentity(KEY, NodeId(90), Generation(1), lambda uid: 0),
            SystemNetwork(),
            make_nonce=system_nonce,
            on_bug=lambda name, request, error: failed(name, error),
        )
        (address,) = await mgmtd.start(["127.0.0.1:0"])
        metas = [
            spawn("--meta", str(n + 1), "--directory", folder, "--mgmtd", address) for n in range(SERVICES)
        ]
        running: list[subprocess.Popen[str]] = []
        try:
            addresses = [await said(meta) for meta in metas]
            await asyncio.sleep(0.5)
            options = ("--seconds", str(seconds), "--depth", str(depth), "--addresses", *addresses)
            running = [spawn("--client", str(n), *options) for n in range(PROCESSES)]
            return await in_step(running)
        finally:
            for process in (*running, *metas):
                process.terminate()
            for process in (*running, *metas):
                process.communicate(timeout=10)
            await mgmtd.aclose()
            owner.stop()


async def in_step(running: list[subprocess.Popen[str]]) -> dict[str, float]:
    """Let all client processes begin each phase together; the sum of their rates."""
    for _ in PHASES:
        for process in running:
            assert await said(process) == "ready"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    totals = dict.fromkeys(PHASES, 0.0)
    for process in running:
        for phase, rate in json.loads(await said(process)).items():
            totals[phase] += rate
    return totals


def rows(seconds: float, depth: int, runs: int) -> list[Row]:
    """The table's lines: medians of ``runs``."""
    measured = [asyncio.run(measure(seconds, depth)) for _ in range(runs)]
    found: list[Row] = []
    for phase in PHASES:
        unit = "entries/s" if phase == "list" else "operations/s"
        value = statistics.median(one[phase] for one in measured)
        note = f"{SERVICES} services, {PROCESSES * CLIENTS_A_PROCESS} clients × {depth} in flight"
        found.append(row(f"meta {phase}", value, unit, target=TARGETS.get(phase), note=note))
    return found


def main() -> None:
    """Measure and print; or play one of the other roles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--meta", type=int)
    parser.add_argument("--client")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--mgmtd")
    parser.add_argument("--addresses", nargs="*")
    options = parser.parse_args()
    uvloop.install()
    if options.meta is not None:
        asyncio.run(serve_meta(options.directory, options.meta, options.mgmtd))
    elif options.client is not None:
        rates = asyncio.run(run_clients(options.addresses, options.client, options.seconds, options.depth))
        print(json.dumps(rates), flush=True)
    else:
        show(rows(options.seconds, options.depth, options.runs), Console())


if __name__ == "__main__":
    main()

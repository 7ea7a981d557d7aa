"""Each process in a network namespace with an address of its own, all joined by a bridge; links that are cut.

    namespace fs3chaos-hub      bridge br0
    namespace fs3chaos-NAME     eth0, joined to the bridge
    this machine                fs3chaos0, joined to the bridge: who starts and judges, never cut off

A cut is a table of the packet filter in the namespace of one process, and ends when the table is dropped.
Deleting the namespaces takes everything else along: links, filters, queues.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

from .machine import MachineError, command, succeeds

PREFIX = "fs3chaos-"
HUB = f"{PREFIX}hub"
HARNESS_LINK = "fs3chaos0"
SUBNET = "198.18.213"
"""Of the range that is set apart for benchmarks (RFC 2544): no real network has it."""
HARNESS = f"{SUBNET}.254"
FIRST_HOST = 10
SLOW = ("tbf", "rate", "8mbit", "burst", "32kb", "latency", "800ms")
DELAYED = ("netem", "delay", "120ms", "60ms", "loss", "2%")


@dataclass(frozen=True, slots=True)
class Cut:
    """What the filter at one process does with packets."""

    at: str
    peers: tuple[str, ...] = ()
    """Packets from and to these only; empty: all but the harness's."""
    incoming: bool = True
    outgoing: bool = True
    protocol: str = ""
    """ "tcp", "udp", or both."""
    percent: int = 100
    """So many of the packets."""
    reset: bool = False
    """Answer with a TCP reset instead of silence. Implies TCP."""


def filter_text(table: str, cut: Cut, hosts: dict[str, str]) -> str:
    """The table of the packet filter that makes the cut."""
    peers = ", ".join(hosts[peer] for peer in cut.peers)
    matches = ""
    if cut.reset:
        matches += " tcp flags & rst == 0"  # the resets themselves get through
    elif cut.protocol:
        matches += f" meta l4proto {cut.protocol}"
    if cut.percent < 100:
        matches += f" numgen random mod 100 < {cut.percent}"
    verdict = "reject with tcp reset" if cut.reset else "drop"
    lines = [f"table inet {table} {{"]
    for wanted, hook, side, device in (
        (cut.incoming, "input", "saddr", "iif"),
        (cut.outgoing, "output", "daddr", "oif"),
    ):
        if wanted:
            whom = f"ip {side} {{ {peers} }}" if peers else f'{device} != "lo" ip {side} != {HARNESS}'
            lines += [
                f"  chain {hook} {{",
                f"    type filter hook {hook} priority 0;",
                f"    {whom}{matches} {verdict}",
                "  }",
            ]
    return "\n".join([*lines, "}"]) + "\n"


class Network:
    """The namespaces of one run."""

    def __init__(self, names: Sequence[str]) -> None:
        self._hosts = {name: f"{SUBNET}.{FIRST_HOST + number}" for number, name in enumerate(names)}
        self._tables = count(1)
        self.has_delay = False
        """Whether the kernel can delay packets; else a link is made slow by its rate only."""

    def host(self, name: str) -> str:
        """The address of a process."""
        return self._hosts[name]

    @staticmethod
    def enter(name: str) -> tuple[str, ...]:
        """What stands before a command that is to run in the namespace of ``name``."""
        return ("nsenter", f"--net=/run/netns/{PREFIX}{name}")

    def up(self) -> None:
        """Make everything. MachineError."""
        command("ip", "netns", "add", HUB)
        command("ip", "-n", HUB, "link", "add", "br0", "type", "bridge")
        command("ip", "-n", HUB, "link", "set", "br0", "up")
        for name, host in self._hosts.items():
            space = f"{PREFIX}{name}"
            command("ip", "netns", "add", space)
            command("ip", "-n", space, "link", "set", "lo", "up")
            self._join(("ip", "-n", space), "eth0", f"v-{name}"[:15], host)
        self._join(("ip",), HARNESS_LINK, "v-harness", HARNESS)
        self.has_delay = succeeds(
            "tc", "-n", HUB, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"
        )

    @staticmethod
    def _join(ip: tuple[str, ...], link: str, end: str, host: str) -> None:
        command(*ip, "link", "add", link, "type", "veth", "peer", "name", end, "netns", HUB)
        command("ip", "-n", HUB, "link", "set", end, "master", "br0", "up")
        command(*ip, "addr", "add", f"{host}/24", "dev", link)
        command(*ip, "link", "set", link, "up")

    @contextmanager
    def cut(self, cuts: Sequence[Cut]) -> Iterator[None]:
        """The cuts hold inside."""
        with ExitStack() as undo:
            for cut in cuts:
                table = f"cut{next(self._tables)}"
                command(*self.enter(cut.at), "nft", "-f", "-", text=filter_text(table, cut, self._hosts))
                undo.callback(command, *self.enter(cut.at), "nft", "delete", "table", "inet", table)
            yield

    @contextmanager
    def slow(self, name: str) -> Iterator[None]:
        """What a process sends goes slowly, with delays and losses where the kernel has them."""
        device = ("-n", f"{PREFIX}{name}", "qdisc")
        end = ("dev", "eth0", "root")
        command("tc", *device, "replace", *end, *(DELAYED if self.has_delay else SLOW))
        try:
            yield
        finally:
            command("tc", *device, "del", *end)


def sweep() -> list[str]:
    """Remove all namespaces of this and earlier runs, with the processes in them; returns what was there."""
    found = [
        line.split()[0] for line in command("ip", "netns", "list").splitlines() if line.startswith(PREFIX)
    ]
    for space in found:
        for pid in command("ip", "netns", "pids", space).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    with contextlib.suppress(MachineError):  # it goes with the hub, if that is there
        command("ip", "link", "del", HARNESS_LINK)
    for space in found:
        command("ip", "netns", "del", space)
    return found

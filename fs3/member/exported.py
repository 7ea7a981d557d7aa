"""What a member knows of itself and its datagrams, as metrics."""

from __future__ import annotations

from collections.abc import Callable

from ..metrics import Metrics, Rows
from .agent import Agent

DATAGRAMS: Rows = {
    "sent": ("fs3_member_datagrams_total", {"what": "sent"}),
    "over_rpc": ("fs3_member_datagrams_total", {"what": "sent_over_rpc"}),
    "received": ("fs3_member_datagrams_total", {"what": "received"}),
    "refused": ("fs3_member_datagrams_total", {"what": "not_genuine"}),
    "unknown": ("fs3_member_datagrams_total", {"what": "of_unknown_node"}),
    "repeated": ("fs3_member_datagrams_total", {"what": "repeated"}),
    "unasked": ("fs3_member_datagrams_total", {"what": "unasked"}),
}


def export_agent(metrics: Metrics, agent: Agent) -> None:
    """Export an agent's counters, its lease and the routing version that it has."""
    metrics.computed_fields(agent.counters, DATAGRAMS)
    metrics.computed("fs3_member_lease_remaining_seconds", _of_health(agent, "lease_remaining_s"))
    metrics.computed("fs3_member_chains_without_lease", _of_health(agent, "chains_without_lease"))
    metrics.computed("fs3_member_routing_version", lambda: agent.routing.version)


def _of_health(agent: Agent, key: str) -> Callable[[], float]:
    def read() -> float:
        value = agent.health()[key]
        assert isinstance(value, int | float), (key, value)
        return value

    return read

"""Every time of leases, beacons and verdicts in one place. PURE.

The values belong together: a lease is safe only because the granter waits longer than the holder counts,
whatever their clocks' rates. ``problem`` refuses sets that break this; daemons ask it at their start.

Source: design 2.1–2.4, 2.10.
"""

from __future__ import annotations

from dataclasses import dataclass

SILENT_PERIODS = 3
"""Beacons missed before a node counts as silent."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds, each by the clock (``boot_s``) of the node that counts it."""

    lease_s: float = 1.5
    """L: how long a holder serves, counted from the sending of the request that was answered."""
    grant_factor: float = 1.02
    grant_margin_s: float = 0.05
    clock_rate_error: float = 0.009
    """Greatest error of a clock's rate, either way."""
    clock_loss_s: float = 0.1
    """A clock that falls behind by more than this is not to be counted on: its node fences itself."""
    beacon_s: float = 0.5
    """Period of beacons and of asks to peers."""
    repeat_s: float = 0.1
    """An unanswered request is repeated after this."""
    repeat_for_s: float = 3.0
    """Somebody silent for longer is asked once a period only."""
    rpc_after_s: float = 0.2
    """A request unanswered for this long is repeated over RPC too: the network may drop datagrams only."""
    hint_s: float = 1.0
    """A peer that has not answered for this long is named in beacons as out of reach."""
    silence_s: float = 5.0
    """A node that is merely silent counts as dead after this."""
    no_lease_s: float = 3.0
    """A node one of whose chains has had no lease of either kind for this long counts as failed."""
    link_probe_s: float = 1.5
    """A connection to each peer is tried this often; one that failed after ``beacon_s``."""
    link_broken_s: float = 3.0
    """A link that one of its ends cannot use for this long, both otherwise well, is broken."""
    link_quarantine_s: float = 30.0
    """A link that was broken has to hold for this long before its ends are in a chain together again."""
    slow_s: float = 30.0
    """A target that is far slower than its peers for this long is told of, and demoted if others suffice."""
    copy_stall_s: float = 60.0
    """A copying that stands still for this long gives its turn to another member that waits."""
    primary_s: float = 3.0
    """A standby takes over when the lease record has not changed for this long."""
    primary_margin_s: float = 0.15
    """The holder stops this much earlier."""
    renew_s: float = 0.5
    """Period of the primary's renewals, and of a standby's looks at the record."""
    report_s: float = 3.0
    """Period of full reports; a change is reported at once."""
    routing_wait_s: float = 5.0
    """How long a request for newer routing waits at the primary."""

    @property
    def grant_s(self) -> float:
        """G: how long a granter regards its grant as running, counted from its answer."""
        return self.lease_s * self.grant_factor + self.grant_margin_s

    @property
    def primary_holds_s(self) -> float:
        """How long the holder of the lease record is primary, counted from the begin of its renewal."""
        return self.primary_s - self.primary_margin_s

    def problem(self) -> str | None:
        """What does not fit together, or None."""
        return next((text for holds, text in self.rules() if not holds), None)

    def rules(self) -> tuple[tuple[bool, str], ...]:
        """What has to hold of the times together: whether it does, and what it is."""
        error = self.clock_rate_error
        slowest, fastest = 1 - error, 1 + error
        return (
            (0 < error < 0.1, "clock_rate_error must lie between 0 and 0.1"),
            (self.clock_loss_s >= 0, "clock_loss_s must not be negative"),
            (
                self.lease_s / slowest < self.grant_s / fastest,
                "a slow holder's lease_s must end before a fast granter's grant_s",
            ),
            (0 < self.repeat_s < self.beacon_s, "repeat_s must be shorter than beacon_s"),
            (
                2 * self.beacon_s + 2 * self.repeat_s < self.lease_s,
                "lease_s must outlast two periods of beacon_s and two repeats",
            ),
            (self.rpc_after_s < self.lease_s - self.beacon_s, "rpc_after_s must leave time within a lease"),
            (
                self.primary_holds_s / slowest < self.primary_s / fastest,
                "primary_margin_s must cover the clocks' rates over primary_s",
            ),
            (
                3 * self.renew_s < self.primary_holds_s,
                "primary_s must outlast three renewals of renew_s",
            ),
            (self.silence_s > self.grant_s + self.beacon_s, "silence_s must be longer than a grant"),
            (self.no_lease_s > self.lease_s, "no_lease_s must be longer than a lease"),
            (self.hint_s > self.beacon_s, "hint_s must be longer than beacon_s"),
            (
                self.beacon_s < self.link_probe_s <= self.link_broken_s,
                "link_probe_s must lie between beacon_s and link_broken_s",
            ),
            (
                self.link_broken_s > SILENT_PERIODS * self.beacon_s,
                "link_broken_s must outlast the time after which a node counts as silent",
            ),
            (self.copy_stall_s >= self.report_s, "copy_stall_s must be no shorter than report_s"),
            (self.slow_s > 2 * self.report_s, "slow_s must be longer than two reports"),
            (
                self.link_quarantine_s > self.link_probe_s + self.hint_s,
                "link_quarantine_s must be long enough to see that a link is broken still",
            ),
        )


TIMING = Timing()
"""What production runs with."""

"""Mistakes of leases, verdicts, the primary and the chain machine (design 2)."""

from __future__ import annotations

from .mistake import Edit, Mistake, Walks

LEASE_TESTS = "tests/member/test_lease.py"
MACHINE_TESTS = "tests/mgmtd/test_chain_machine.py"
LEASE = "fs3/member/lease.py"
SCENARIO = "tests/mgmtd/test_chain_scenarios.py::test_a_scenario_goes_as_written"
MACHINE = "mgmtd/chain_machine.py"

LEASES = (
    Mistake(
        "lease counted from receipt",
        "2.2 holder",
        (Edit(LEASE, "return sent_s + self._timing.lease_s", "return now_s + self._timing.lease_s"),),
        (f"{LEASE_TESTS}::test_the_primary_lease_counts_from_its_sending",),
        (
            Walks("chain", "late", 4),
            Walks("lease", "late", 4),
        ),
    ),
    Mistake(
        "new version active without waiting out grants",
        "2.2 leaving",
        (
            Edit(
                LEASE,
                "entry.valid_from_s = max(self.allowed_from_s, entry.wait_until_s)",
                "entry.valid_from_s = self.allowed_from_s",
            ),
        ),
        (f"{LEASE_TESTS}::test_own_grants_to_those_left_out_are_waited_for",),
        (
            Walks("chain", "routing", 12),
            Walks("lease", "waits", 4),
        ),
    ),
    Mistake(
        "acknowledged while own grants run",
        "2.2 joining",
        (
            Edit(
                LEASE,
                "return entry is None or now_s >= entry.wait_until_s",
                "return True",
            ),
        ),
        (f"{LEASE_TESTS}::test_own_grants_to_those_left_out_are_waited_for",),
    ),
    Mistake(
        "joiner serves before the acknowledgements",
        "2.2 joining",
        (
            Edit(
                LEASE,
                "by_primary_s = NEVER if entry.own.joining else entry.primary_until_s",
                "by_primary_s = entry.primary_until_s",
            ),
        ),
        (f"{LEASE_TESTS}::test_a_joiner_does_not_serve_by_the_primarys_word",),
        (Walks("chain", "join", 12),),
    ),
    Mistake(
        "joiner granted a lease before the acknowledgement",
        "2.2 joining",
        (
            Edit(
                LEASE,
                "if asker.joining and not (",
                "if asker is None and not (",
            ),
        ),
        (f"{LEASE_TESTS}::test_a_joiner_is_granted_what_is_acknowledged",),
    ),
    Mistake(
        "grants before the wait after a start",
        "2.7",
        (Edit(LEASE, "if self.is_fenced or now_s < self.allowed_from_s:", "if self.is_fenced:"),),
        (f"{LEASE_TESTS}::test_nothing_before_the_start_wait",),
    ),
    Mistake(
        "serves before the wait after a start",
        "2.7, V7",
        (Edit(LEASE, "self.allowed_from_s = started_s + timing.grant_s", "self.allowed_from_s = started_s"),),
        (f"{LEASE_TESTS}::test_nothing_before_the_start_wait",),
        (
            Walks("chain", "isolated", 8),
            Walks("lease", "start", 4),
        ),
    ),
    Mistake(
        "a grant counts before its routing",
        "2.2, V8",
        (Edit(LEASE, "return lease.routing_version <= self.routing_version", "return True"),),
        (f"{LEASE_TESTS}::test_a_grant_waits_for_its_routing",),
        (
            Walks("chain", "routing", 4),
            Walks("lease", "routing", 4),
        ),
    ),
    Mistake(
        "grants at older versions",
        "2.2",
        (Edit(LEASE, "elif known.version > version:", "elif known.version > version + 1:"),),
        (f"{LEASE_TESTS}::test_asked_at_another_version",),
    ),
    Mistake(
        "new primary removes at once",
        "2.4",
        (Edit("mgmtd/grants.py", "self.floor_s = began_s + timing.grant_s", "self.floor_s = began_s"),),
        (f"{SCENARIO}[primary-lost-and-kill]",),
        (
            Walks("chain", "takeover", 4),
            Walks("lease", "takeover", 4),
        ),
    ),
    Mistake(
        "reset taken as death",
        "2.2 evidence",
        (
            Edit(
                "mgmtd/chain_watch.py",
                "over_s=term.grants.until_s(member.node, member.generation, info.chain),",
                "over_s=term.grants.floor_s if life.suspected_since_s is not None"
                " else term.grants.until_s(member.node, member.generation, info.chain),",
            ),
            Edit(
                "mgmtd/liveness.py",
                "return Verdict.DEAD if is_over and not is_of_own else Verdict.SUSPECTED",
                "return Verdict.DEAD",
            ),
        ),
        (f"{SCENARIO}[forged-reset]",),
        (
            Walks("chain", "reset", 4),
            Walks("lease", "reset", 4),
        ),
    ),
    Mistake(
        "a suspected node is granted",
        "2.2 evidence",
        (
            Edit(
                "mgmtd/liveness.py",
                "return life is not None and life.suspected_since_s is None",
                "return life is not None",
            ),
        ),
        ("tests/mgmtd/test_liveness.py::test_a_suspected_node_is_granted_nothing_until_a_newer_beacon",),
    ),
    Mistake(
        "a primary counts from its success",
        "2.4",
        (
            Edit(
                "mgmtd/lease.py",
                "self._held_until_s = began_s + self._timing.primary_holds_s",
                "self._held_until_s = now_s + self._timing.primary_holds_s",
            ),
        ),
        ("tests/mgmtd/test_lease.py::test_the_holder_counts_from_the_begin_of_its_renewal",),
        (Walks("lease", "store", 4),),
    ),
    Mistake(
        "a change is written without the lease record",
        "2.4",
        (
            Edit(
                "mgmtd/store.py",
                "    await check_term(txn, record)\n    version = await _get_u64(txn, VERSION)",
                "    version = await _get_u64(txn, VERSION)",
            ),
        ),
        ("tests/mgmtd/test_store.py::test_who_has_lost_the_lease_writes_nothing",),
    ),
)

CHAINS = (
    Mistake(
        "UPTODATE carried over by the receiver",
        "2.6, V9",
        (
            Edit(
                "storage/gate.py",
                "standing.version == self.synced_version",
                "self.synced_version >= self.syncing_since",
            ),
        ),
        (
            "tests/storage/test_resync_trouble.py::test_records_that_do_not_concern_the_receiver_cost_a_message",
        ),
    ),
    Mistake(
        "UPTODATE carried over by mgmtd",
        "2.6, V9",
        (
            Edit(
                MACHINE,
                "return at.of(syncing).uptodate_at == version and at.of(source).acknowledged == version",
                "return at.of(syncing).uptodate_at > 0 and at.of(source).acknowledged == version",
            ),
        ),
        (f"{MACHINE_TESTS}::test_uptodate_at_another_version_counts_for_nothing",),
    ),
    Mistake(
        "UPTODATE without the source",
        "2.6, V9",
        (
            Edit(
                MACHINE,
                "return at.of(syncing).uptodate_at == version and at.of(source).acknowledged == version",
                "return at.of(syncing).uptodate_at == version",
            ),
        ),
        (f"{MACHINE_TESTS}::test_every_state_of_few_replicas",),
    ),
    Mistake(
        "a member that does not acknowledge blocks its own removal",
        "2.2, V3",
        (
            Edit(
                MACHINE,
                'step.held[member.target] = "joining: not all older members have acknowledged it"\n'
                "    return False",
                'step.held[member.target] = "joining: not all older members have acknowledged it"\n'
                "    return bool(joining)",
            ),
        ),
        (f"{MACHINE_TESTS}::test_a_member_that_does_not_acknowledge_is_dropped_and_the_joiner_goes_on",),
        (Walks("chain", "join", 6),),
    ),
    Mistake(
        "joiner in force before the acknowledgements",
        "2.2 joining",
        (Edit(MACHINE, "if joining and _is_acknowledged(at):", "if joining:"),),
        (f"{MACHINE_TESTS}::test_every_state_of_few_replicas",),
        (
            Walks("chain", "join", 4),
            Walks("lease", "join", 4),
        ),
    ),
    Mistake(
        "a member leaves before its grant is over",
        "2.2 leaving",
        (
            Edit(
                MACHINE,
                "if at.now_s >= max(at.of(m).over_s, at.of(m).lent_until_s)}",
                "if at.now_s >= at.of(m).lent_until_s}",
            ),
        ),
        (f"{MACHINE_TESTS}::test_every_state_of_few_replicas",),
        (Walks("chain", "reset", 4),),
    ),
    Mistake(
        "anybody resumes",
        "2.6 candidates",
        (
            Edit(
                MACHINE,
                "for target in at.info.candidates:\n        known",
                "for target in [m.target for m in reversed(at.info.members)]:\n        known",
            ),
            Edit(MACHINE, "if ready[0] != at.info.candidates[0] and", "if not ready and"),
        ),
        (f"{MACHINE_TESTS}::test_every_state_of_few_replicas",),
        (Walks("chain", "lost", 4),),
    ),
    Mistake(
        "a chain is broken by a primary that hears nobody",
        "2.2",
        (
            Edit(
                MACHINE,
                "if any(at.of(m).heard for m in at.info.serving):\n        return False",
                "return False",
            ),
        ),
        (f"{MACHINE_TESTS}::test_every_state_of_few_replicas",),
    ),
)

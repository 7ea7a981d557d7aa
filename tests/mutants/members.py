"""Mistakes in who is a chain's member: broken links, slow targets, stalled copying, clocks that lost time."""

from __future__ import annotations

from .mistake import Edit, Mistake

LINK_TESTS = "tests/mgmtd/test_links.py"
PROBE_TESTS = "tests/member/test_link_probes.py"
SLOW_TESTS = "tests/mgmtd/test_slowness.py"
INDEX_TESTS = "tests/mgmtd/test_chain_index.py"
MACHINE_TESTS = "tests/mgmtd/test_chain_machine.py"
CLOCK_TESTS = "tests/mgmtd/test_clocks.py"
SCENARIO = "tests/mgmtd/test_chain_scenarios.py::test_a_scenario_goes_as_written"
LINKS = "mgmtd/links.py"
MACHINE = "mgmtd/chain_machine.py"
INDEX = "mgmtd/chain_index.py"

MEMBERS = (
    Mistake(
        "a dead node breaks links",
        "2.3 links",
        (Edit(LINKS, "if not (is_alive(node) and is_alive(peer)):", "if not is_alive(node):"),),
        (f"{LINK_TESTS}::test_an_end_that_is_not_alive_breaks_no_link",),
    ),
    Mistake(
        "a link costs the last one in force",
        "2.3 links",
        (
            Edit(
                LINKS,
                "if not (member.state is TargetState.SERVING and in_force == [member]):",
                "if member is not None:",
            ),
        ),
        (f"{LINK_TESTS}::test_whom_a_chain_loses",),
    ),
    Mistake(
        "the predecessor goes",
        "2.3 links",
        (
            Edit(
                LINKS,
                "sorted(found, key=lambda end: end[0])",
                "sorted(found, key=lambda end: (end[0][0], -end[0][1]))",
            ),
        ),
        (f"{LINK_TESTS}::test_whom_a_chain_loses",),
    ),
    Mistake(
        "a link that breaks again is not watched anew",
        "2.3 links",
        (
            Edit(
                LINKS,
                "self._watched.update(dict.fromkeys(broken, now_s))",
                "self._watched.update(dict.fromkeys(new, now_s))",
            ),
        ),
        (f"{LINK_TESTS}::test_a_link_is_watched_until_it_has_held",),
    ),
    Mistake(
        "members enter over a link that is watched",
        "2.3 links",
        (Edit(MACHINE, "return known.bars_use() or known.barred or None", "return known.bars_use()"),),
        (f"{SCENARIO}[link-broken]",),
    ),
    Mistake(
        "one lost packet breaks a link",
        "2.3 links",
        (Edit("fs3/member/link_probes.py", "CONNECTS = 8", "CONNECTS = 1"),),
        (f"{PROBE_TESTS}::test_one_new_connection_of_many_is_enough",),
    ),
    Mistake(
        "whoever is copied to stays although it is cut off",
        "2.3 links",
        (
            Edit(
                MACHINE,
                "bars = bars or (member.state is SYNCING and bool(known.cut_off))",
                "bars = bool(bars)",
            ),
        ),
        (f"{SCENARIO}[link-to-syncing]",),
    ),
    Mistake(
        "several members go at once for links",
        "2.3 at most one member a chain",
        (Edit(MACHINE, "leaving[member.target], is_open = why, False", "leaving[member.target] = why"),),
        (f"{MACHINE_TESTS}::test_one_unfit_member_at_a_time_goes",),
    ),
    Mistake(
        "a slow target leaves one alone",
        "2.3 fail-slow",
        (Edit(MACHINE, ">= (1 if known.cut_off else 2):", ">= 1:"),),
        (f"{MACHINE_TESTS}::test_one_unfit_member_at_a_time_goes",),
    ),
    Mistake(
        "a target counts among its own peers",
        "2.3 fail-slow",
        (
            Edit(
                "mgmtd/slowness.py",
                "for time_us, other in by_time if other != node]",
                "for time_us, _ in by_time]",
            ),
        ),
        (f"{SLOW_TESTS}::test_a_nodes_own_targets_are_no_peers_of_it",),
    ),
    Mistake(
        "a stalled copying is first in turn again",
        "4.6 several",
        (
            Edit(
                MACHINE,
                "Rule.YIELD, {syncing.target: WAITING}, to_end=syncing.target)",
                "Rule.YIELD, {syncing.target: WAITING})",
            ),
        ),
        (f"{MACHINE_TESTS}::test_who_stalls_is_last_of_those_that_wait",),
    ),
    Mistake(
        "a death is missed by the index of chains",
        "2.2 the pass",
        (
            Edit(
                INDEX,
                "is_alive = term.verdicts.get(number) is Verdict.ALIVE",
                "is_alive = Verdict is not None",
            ),
        ),
        (f"{INDEX_TESTS}::test_it_finds_what_looking_at_all_chains_finds",),
    ),
    Mistake(
        "a change of a chain's record is missed by the index",
        "2.2 the pass",
        (
            Edit(
                INDEX,
                "again = dict.fromkeys(self._follow(term.routing.chains))",
                "again = dict.fromkeys(self._follow(term.routing.chains)[:0])",
            ),
        ),
        (f"{INDEX_TESTS}::test_it_finds_what_looking_at_all_chains_finds",),
    ),
    Mistake(
        "lost time is not counted",
        "2.2 clocks",
        (
            Edit(
                "fs3/member/lost_time.py",
                "return other_s - (received_s - old.sent_s) * rates",
                "return 0.0 * rates * other_s",
            ),
        ),
        (f"{CLOCK_TESTS}::test_a_clock_that_stands_still_fences_its_node",),
        seeds=4,
    ),
    Mistake(
        "a member leaves while the others' leases to it run",
        "8 a member's end",
        (Edit(MACHINE, "max(at.of(m).over_s, at.of(m).lent_until_s)", "at.of(m).over_s"),),
        ("tests/mgmtd/test_leaving.py::test_chains_are_served_while_a_member_leaves",),
    ),
    Mistake(
        "a lease that runs is said to be over",
        "8 a member's end",
        (
            Edit(
                "fs3/member/lease.py",
                "return tuple([target for target in self._leaving if target not in lent])",
                "return tuple(self._leaving)",
            ),
        ),
        ("tests/member/test_lease.py::test_nothing_is_lent_to_whoever_is_to_leave",),
    ),
)
"""Each with the test that goes straight to it."""

"""Mistakes of the CRAQ replica, its gate, reads, decrees and resync (design 4.3 to 4.6, 4.9)."""

from __future__ import annotations

from .mistake import Edit, Mistake, Walks

STEPS = "tests/storage/test_replica_steps.py"
PAPER = "tests/paper/test_craq.py"
RESYNC = "tests/storage/test_resync_steps.py"
TROUBLE = "tests/storage/test_resync_trouble.py"
SENDING = "tests/storage/test_resync_sending.py"
REPLICA = "storage/replica.py"

REPLICAS = (
    Mistake(
        "commit before staged everywhere",
        "4.3",
        (Edit(REPLICA, "if successor is None:", "if successor is None or pending.failure_count:"),),
        (f"{STEPS}::test_pendings_are_sent_again_every_300_ms",),
        (Walks("chain", "head", 4),),
        seeds=4,
    ),
    Mistake(
        "the last member commits without a lease",
        "4.3",
        (
            Edit(
                REPLICA,
                "may_commit = self.gate.is_syncing or self.gate.lease_valid(standing.version)",
                "may_commit = True",
            ),
        ),
        (f"{STEPS}::test_the_last_member_commits_under_a_lease_only",),
    ),
    Mistake(
        "a SYNCING last member needs a lease",
        "4.3, decision 14",
        (
            Edit(
                REPLICA,
                "may_commit = self.gate.is_syncing or self.gate.lease_valid(standing.version)",
                "may_commit = self.gate.lease_valid(standing.version)",
            ),
        ),
        (f"{STEPS}::test_a_syncing_last_member_commits_without_a_lease",),
        (Walks("chain", "", 4),),
        seeds=4,
    ),
    Mistake(
        "identity with the carried chain version",
        "4.3",
        (
            Edit(
                REPLICA,
                "update, pending = ask.update, work.pending",
                "replace = __import__('msgspec').structs.replace\n"
                "        identity = replace(ask.update.identity, chain_version=ask.chain_version)\n"
                "        update, pending = replace(ask.update, identity=identity), work.pending",
            ),
        ),
        (f"{STEPS}::test_an_identity_keeps_the_chain_version_of_its_assignment",),
        (Walks("chain", "head", 4),),
        seeds=4,
    ),
    Mistake(
        "chain version not checked under the lock, numbering",
        "4.3",
        (
            Edit(
                REPLICA,
                "if (error := self.gate.write_problem(ask.chain_version)) is not None:",
                "if (error := None) is not None:",
            ),
        ),
        (f"{STEPS}::test_a_waiting_write_of_an_older_version_is_refused_at_adoption",),
    ),
    Mistake(
        "chain version not checked under the lock, staging",
        "4.3",
        (
            Edit(
                REPLICA,
                "if (error := self.gate.update_problem(ask.chain_version, ask.sender)) is not None:\n"
                "            return [Fail(job.ticket, error)]",
                "if (error := None) is not None:\n            return [Fail(job.ticket, error)]",
            ),
        ),
        (f"{STEPS}::test_a_waiting_update_of_an_older_version_is_refused_at_adoption",),
    ),
    Mistake(
        "version reused",
        "4.3",
        (
            Edit(
                REPLICA,
                "if work.pending is not None:\n            return (",
                "if work.pending is not None and not work.pending.failure_count:\n            return (",
            ),
        ),
        (
            f"{PAPER}::test_section_2_5_a_new_head_rolls_forward_before_it_gives_a_number",
            f"{STEPS}::test_a_chain_that_is_stuck_holds_nobodys_buffer",
        ),
        (Walks("chain", "head", 4),),
        seeds=4,
    ),
    Mistake(
        "pending dropped on a new chain version",
        "4.3",
        (
            Edit(
                REPLICA,
                "pending.start_over(is_last_serving=standing.is_last_serving)",
                "work.pending = None",
            ),
        ),
        (f"{PAPER}::test_section_2_5_a_new_head_rolls_forward_before_it_gives_a_number",),
        (Walks("chain", "head", 6),),
        seeds=4,
    ),
    Mistake(
        "replicas are not compared",
        "4.3 divergence",
        (
            Edit(
                REPLICA,
                "if pending.version.identity == identity and content_sum_there == "
                "content_sum(pending.version.sums):",
                "if pending.version.identity == identity:",
            ),
        ),
        (f"{STEPS}::test_divergence_the_predecessor_wins_unless_its_own_bytes_are_bad",),
    ),
    Mistake(
        "another identity under a committed number passes",
        "4.3",
        (Edit("storage/arrival.py", "if have == number and not is_syncing:", "if False:"),),
        (f"{STEPS}::test_another_identity_under_a_committed_number_is_a_violation",),
    ),
    Mistake(
        "a gap is staged",
        "4.3",
        (Edit("storage/arrival.py", "if number > have + 1 and not is_whole:", "if False:"),),
        (f"{STEPS}::test_a_gap_is_refused_and_a_repetition_is_not",),
    ),
    Mistake(
        "new tail serves with an unresolved pending",
        "4.4, V2",
        (Edit(REPLICA, "return pending.inherited and standing.is_last_serving", "return False"),),
        (f"{PAPER}::test_section_2_5_the_new_tail_answers_nothing_before",),
        (Walks("chain", "tail", 6),),
    ),
    Mistake(
        "SYNCING asked as tail",
        "4.4",
        (
            Edit(
                "storage/standing.py",
                "last_serving = serving[-1] if serving else None",
                "last_serving = writable[-1] if writable else None",
            ),
        ),
        (f"{STEPS}::test_a_syncing_member_is_sent_whole_chunks_and_is_not_asked",),
    ),
    Mistake(
        "tail answer shared with a later read",
        "4.4",
        (
            Edit(
                "storage/ops/read.py",
                "    node.counts.queries.value += 1\n",
                "    now_s = node.clock.boot_s()\n"
                "    shared = _SHARED.get((runner.target, version, tuple(chunks)))\n"
                "    if shared is not None and now_s - shared[0] < 5.0:\n"
                "        return shared[1]\n"
                "    node.counts.queries.value += 1\n",
            ),
            Edit(
                "storage/ops/read.py",
                "    return answer.committed\n",
                "    _SHARED[runner.target, version, tuple(chunks)] = now_s, answer.committed\n"
                "    return answer.committed\n",
            ),
            Edit("storage/ops/read.py", "ANSWER_MARGIN_S = 0.05\n", "ANSWER_MARGIN_S = 0.05\n_SHARED = {}\n"),
        ),
        ("tests/storage/test_tail_answers.py::test_an_answer_serves_one_read_only",),
    ),
    Mistake(
        "a pending version is served unasked",
        "4.4",
        (
            Edit(
                "storage/reading.py",
                "return Serve(_identity(state.committed))\n    return Ask()",
                "return Serve(_identity(state.committed))\n    return Serve(state.pending.version.identity)",
            ),
        ),
        (f"{PAPER}::test_section_2_3_dirty_reads_ask_the_tail",),
        (Walks("chain", "busy", 4),),
    ),
    Mistake(
        "a committed version is served unasked",
        "4.4",
        (
            Edit(
                "storage/reading.py",
                "if state.pending is None or last_serving or relaxed:",
                "if True:",
            ),
        ),
        (f"{PAPER}::test_section_2_3_dirty_reads_ask_the_tail",),
        (Walks("chain", "busy", 4),),
    ),
    Mistake(
        "the lease is not looked at by readers",
        "2.2, 4.4",
        (
            Edit(
                "storage/gate.py",
                'does not serve at version {version}")\n        return self._lease_problem(version)',
                'does not serve at version {version}")\n        return None',
            ),
        ),
        ("tests/storage/test_small_reads.py::test_without_a_lease_nothing_is_read",),
        (Walks("chain", "isolated", 4),),
    ),
    Mistake(
        "a retry answered before its identity is committed",
        "4.5, V5",
        (
            Edit(
                REPLICA,
                "case Found.PENDING:\n"
                "                assert pending is not None\n"
                "                return pending.wait(job)",
                "case Found.PENDING:\n"
                "                return [Answer(job.ticket, Done(result.identity, result.length_bytes, 0))]",
            ),
        ),
        (
            f"{STEPS}::test_a_retry_is_answered_after_the_commit_only",
            f"{STEPS}::test_waiters_lose_patience_but_the_version_goes_on",
        ),
        (Walks("chain", "head", 4),),
    ),
    Mistake(
        "only the head keeps dedup records",
        "4.5",
        (
            Edit(
                REPLICA,
                "return [Stage(token, update, job.payload, work.record_of(update), from_client)]",
                "record = work.record_of(update) if isinstance(job.ask, WriteAsk) else None\n"
                "        return [Stage(token, update, job.payload, record, from_client)]",
            ),
        ),
        (f"{STEPS}::test_every_member_keeps_the_record_of_a_request",),
        (Walks("chain", "head", 4),),
    ),
    Mistake(
        "version restarts at 1",
        "4.9 tombstones",
        (
            Edit(
                "storage/effects.py",
                "last = committed.identity.update_version if committed is not None else number_floor",
                "last = committed.identity.update_version if committed is not None else 0",
            ),
        ),
        (
            "tests/storage/test_dropping.py::test_numbers_go_on_above_what_was_dropped_and_late_requests_are_refused",
        ),
    ),
    Mistake(
        "tombstone forgotten",
        "4.9 tombstones",
        (
            Edit(
                "storage/effects.py",
                "last = committed.identity.update_version if committed is not None else number_floor",
                "is_there = committed is not None and not committed.removed\n"
                "    last = committed.identity.update_version if is_there else number_floor",
            ),
        ),
        (f"{STEPS}::test_numbers_go_on_after_a_removal",),
        (Walks("chain", "", 4),),
    ),
    Mistake(
        "epoch not checked",
        "4.9",
        (Edit(REPLICA, "if ask.epoch < in_force:", "if False:"),),
        (f"{STEPS}::test_an_epoch_waits_for_what_was_numbered_and_stops_the_rest",),
        (Walks("chain", "head", 4),),
    ),
    Mistake(
        "a raise does not wait for what was numbered before",
        "4.9, V4",
        (
            Edit(
                "storage/epochs.py",
                "if standing.is_head and self._unresolved(spread.decree):",
                "if False:",
            ),
        ),
        (f"{STEPS}::test_an_epoch_waits_for_what_was_numbered_and_stops_the_rest",),
        (Walks("chain", "head", 4),),
    ),
    Mistake(
        "a raise stays at the head",
        "4.9",
        (Edit("storage/epochs.py", "if standing.successor is None:", "if True:"),),
        (f"{STEPS}::test_an_epoch_waits_for_what_was_numbered_and_stops_the_rest",),
        seeds=8,
    ),
    Mistake(
        "an ended session is not refused",
        "4.5",
        (
            Edit(
                "storage/epochs.py",
                "return (1, session) in self._spreads or self._view.session_ended(session)",
                "return False",
            ),
        ),
        (f"{STEPS}::test_a_session_that_ends_is_refused_at_once",),
    ),
)

RESYNCS = (
    Mistake(
        "dedup not resynced",
        "4.6",
        (
            Edit(
                "storage/resync/ledgers.py",
                "return ResyncRecordsRequest(source=source, channels=channels) if channels else None, behind",
                "return None, behind",
            ),
        ),
        (f"{TROUBLE}::test_requests_epochs_and_ends_of_sessions_come_along",),
    ),
    Mistake(
        "records of pending versions are resynced",
        "4.5, V5",
        (Edit("storage/resync/ledgers.py", "        if _is_committed(store, r)\n", ""),),
        (f"{SENDING}::test_the_record_of_a_pending_version_stays_here",),
    ),
    Mistake(
        "the source's pending version does not go first",
        "4.6, V6",
        (
            Edit(
                "storage/resync/plan.py",
                "if pending is not None and not _is_barred(pending, have):",
                "if False:",
            ),
        ),
        (
            f"{RESYNC}::test_an_own_pending_version_is_rolled_forward_first",
            f"{TROUBLE}::test_the_sources_own_pending_version_goes_first",
        ),
    ),
    Mistake(
        "resync removes a live chunk",
        "4.6",
        (
            Edit(
                "storage/resync/plan.py",
                "if have is not None and have.chain_version == version and have.writer != FORGOTTEN:",
                "if False:",
            ),
        ),
        (f"{RESYNC}::test_what_belongs_to_the_present_version_is_left_alone",),
    ),
    Mistake(
        "resync sends what the chunk is by then",
        "4.6 act under the lock",
        (
            Edit(
                "storage/resync/sending.py",
                "found = runner.store.read_into(chunk, put.identity, 0, view, wait=True)",
                "found = runner.store.read_into(chunk, None, 0, view, wait=True)",
            ),
        ),
        (f"{SENDING}::test_bytes_are_those_of_the_version_that_is_named",),
    ),
    Mistake(
        "equal numbers count as equal",
        "4.6",
        (
            Edit(
                "storage/resync/plan.py",
                "if own.identity == have and content_sum(own.sums) == there.content_sum:",
                "if have is not None and own.identity.update_version == have.update_version:",
            ),
        ),
        (f"{RESYNC}::test_equal_is_only_the_same_identity_with_the_same_content",),
    ),
    Mistake(
        "a version goes back unnamed",
        "4.6",
        (
            Edit(
                "storage/arrival.py",
                "if is_whole and ask.resync is not None and ask.resync.replaces == committed.identity:",
                "if is_whole and ask.resync is not None:",
            ),
        ),
        (f"{RESYNC}::test_a_number_never_goes_back_unless_it_is_named",),
    ),
    Mistake(
        "a short absence goes by the source's changes alone",
        "4.6",
        (
            Edit(
                "storage/ops/resync.py",
                "if request.changed_after else 0",
                "if request.changed_after else 0\n    base = runner.store.change",
            ),
        ),
        (f"{TROUBLE}::test_what_was_removed_and_forgotten_meanwhile_goes",),
    ),
    Mistake(
        "SYNCING keeps its pendings",
        "4.6, V1",
        (Edit("storage/engine/store.py", "self._stager.drop_pendings(batch)", "self._core.apply(batch)"),),
        ("tests/storage/test_resync.py::test_what_only_the_returning_member_staged_is_gone",),
    ),
    Mistake(
        "SYNCING keeps its dedup table",
        "4.6, V1",
        (Edit("storage/engine/store.py", "self._ledger.drop_dedup(batch)", "pass"),),
        (f"{TROUBLE}::test_a_version_that_only_the_returning_member_had_is_gone",),
    ),
)

"""Mistakes of the metadata service and the client (design 3, 6)."""

from __future__ import annotations

from .mistake import Edit, Mistake

WORKERS = "tests/meta/test_workers.py"
FILES_TESTS = "tests/meta/test_files.py"
FILES = (
    Mistake(
        "spill without intent",
        "3.9",
        (Edit("meta/ops/spill.py", "        put_spill(txn, record.inode, mine)\n", ""),),
        (f"{FILES_TESTS}::test_a_file_moves_out_in_two_steps_and_readers_see_it_whole",),
        seeds=6,
    ),
    Mistake(
        "settlement without epoch",
        "3.5, 4.9",
        (
            Edit(
                "meta/finisher.py",
                "force = await stub.raise_epoch(inode, intent.epoch, chains, "
                "timeout_s=self._step_s(deadline_s))\n        end =",
                "force = intent.epoch\n        end =",
            ),
        ),
        (f"{WORKERS}::test_a_lost_writers_late_write_does_not_appear_after_its_settlement",),
    ),
    Mistake(
        "stored answer outside the transaction",
        "3.3",
        (
            Edit(
                "meta/driver.py",
                "            store_answer(txn, mutation, method.number, msgspec.msgpack.encode(response))\n",
                "",
            ),
            Edit(
                "meta/driver.py",
                "                response: R = await self._run(op, attempt)\n",
                "                response: R = await self._run(op, attempt)\n"
                "                async def store(txn):\n"
                "                    store_answer(\n"
                "                        txn, mutation, method.number, msgspec.msgpack.encode(response)\n"
                "                    )\n"
                "                await self._run(op, store)\n",
            ),
        ),
        ("tests/meta/test_exactly_once.py::test_an_unknown_commit_result_is_resolved_by_the_slot",),
        seeds=4,
    ),
    Mistake(
        "a cut without the second epoch",
        "3.6",
        (
            Edit(
                "meta/finisher.py",
                "force = await stub.raise_epoch(inode, after, chains, timeout_s=self._step_s(deadline_s))",
                "force = after",
            ),
        ),
        (f"{FILES_TESTS}::test_a_cut_that_arrives_late_meets_no_new_bytes",),
    ),
    Mistake(
        "a length of an older epoch counts",
        "3.5",
        (
            Edit(
                "meta/ops/close.py",
                "if request.epoch == record.epoch and end_bytes > record.length_bytes:",
                "if end_bytes > record.length_bytes:",
            ),
        ),
        ("tests/meta/test_files.py::test_truncate_cuts_before_it_answers_and_fences_older_writers",),
    ),
    Mistake(
        "chunks of a removed file go while it is open",
        "3.7",
        (
            Edit(
                "meta/workers/removal.py",
                "        if is_open:\n            return False\n",
                "",
            ),
        ),
        ("tests/meta/test_workers.py::test_chunks_go_before_records_and_open_files_wait",),
    ),
    Mistake(
        "a session is lost while the store was away",
        "3.4",
        (Edit("meta/workers/sessions.py", "if now_s - self._looked_s > GAP_S:", "if False:"),),
        (f"{WORKERS}::test_nobody_is_lost_while_the_store_was_away",),
    ),
    Mistake(
        "a retry takes a new number",
        "4.5 client",
        (
            Edit(
                "client/channels.py",
                "wanted = self._doubts.get(chunk)",
                "wanted = None",
            ),
        ),
        ("tests/client/test_decisions.py::test_channels_carry_one_request_and_never_repeat_a_number",),
    ),
)

"""Mistakes of the chunk engine, the disks and the bytes on their way (design 4.1, 4.2, 4.7, 5)."""

from __future__ import annotations

from .mistake import Edit, Mistake

STORE = "tests/storage/engine/test_store.py"
CUTS = "tests/storage/engine/test_power_cuts.py"
DISK = "tests/storage/test_disk.py"
ACCESS = "tests/storage/test_access.py"
STORES = (
    Mistake(
        "in-place write under the high-water mark",
        "4.1",
        (
            Edit(
                "storage/engine/plan.py",
                "if fits and prefix == base.info.length_bytes and prefix >= base.high_water_bytes:",
                "if fits and prefix == base.info.length_bytes:",
            ),
        ),
        (
            f"{STORE}::test_an_append_goes_into_the_same_block_and_an_overwrite_does_not",
            f"{STORE}::test_a_dropped_pending_append_still_guards_its_bytes",
        ),
    ),
    Mistake(
        "block reused while being sent",
        "4.1",
        (Edit("storage/engine/allocate.py", "if block in self._readers:", "if False:"),),
        (f"{STORE}::test_a_block_is_not_used_again_while_a_reader_holds_it",),
    ),
    Mistake(
        "blocks are used again right after a start",
        "4.1",
        (
            Edit(
                "storage/engine/allocate.py",
                "if not self._cooling_count or now_s < self._cool_at_s:",
                "if not self._cooling_count:",
            ),
        ),
        (f"{STORE}::test_nothing_that_was_used_is_used_again_for_a_while_after_an_open",),
    ),
    Mistake(
        "a block is free before its commit mark is durable",
        "4.1, 4.3",
        (
            Edit(
                "storage/engine/staging.py",
                "core.freed.append(old.block)  # until the mark is durable a crash would bring it back",
                "core.allocator.give_back(old.block)",
            ),
        ),
        (f"{CUTS}::test_a_block_that_only_a_lost_commit_mark_set_free_is_not_written",),
    ),
    Mistake(
        "bytes are not synced before their record",
        "4.3 stage durably",
        (
            Edit(
                "storage/engine/staging.py",
                "for file in files.values():\n            file.sync()",
                "for file in files.values():\n            file.size_bytes()",
            ),
        ),
        (f"{CUTS}::test_a_cut_at_a_sample_of_steps",),
    ),
    Mistake(
        "stage is answered before it is durable",
        "4.3 stage durably",
        (
            Edit(
                "storage/engine/core.py",
                "self.index.apply(batch, durable=True)",
                "self.index.apply(batch, durable=False)",
            ),
        ),
        (f"{CUTS}::test_a_cut_at_a_sample_of_steps",),
        seeds=4,
    ),
    Mistake(
        "dedup not persisted",
        "4.5",
        (Edit("storage/engine/staging.py", "if item.dedup is not None:", "if False:"),),
        (f"{ACCESS}::test_a_retry_is_recognised_and_older_requests_are_refused",),
    ),
    Mistake(
        "a floor of numbers is lost",
        "4.9",
        (
            Edit(
                "storage/engine/ledger.py",
                "counters.number_floor = max(counters.number_floor, number_floor)",
                "counters.number_floor = number_floor",
            ),
        ),
        (f"{STORE}::test_the_floor_of_numbers_only_grows",),
    ),
    Mistake(
        "fsync error retried",
        "4.7",
        (
            Edit(
                "storage/disk.py",
                'raise self._failed("sync", error) from error',
                "os.fdatasync(self._cached)",
            ),
        ),
        (f"{DISK}::test_an_error_of_a_change_fails_the_disk",),
    ),
    Mistake(
        "a disk that failed goes on",
        "4.7",
        (
            Edit(
                "storage/disk.py",
                "            self._failure = reason\n        return",
                "            pass\n        return",
            ),
        ),
        (f"{DISK}::test_a_failed_disk_stays_failed",),
    ),
    Mistake(
        "a block is free when its bytes are sent, not when they are read",
        "4.1",
        (
            Edit(
                "fs3/rpc/bulk_connection.py",
                "if self._acknowledged and _unsent_bytes(self._socket) == 0:",
                "self._acknowledged = len(self._held)\n        if _unsent_bytes(self._socket) == 0:",
            ),
        ),
        ("tests/rpc/test_bulk_plane.py::test_silent_reader_is_reset_and_its_blocks_released",),
    ),
    Mistake(
        "late payload into a reused buffer",
        "5.1",
        (
            Edit(
                "fs3/rpc/bulk_attempt.py",
                "            if self._socket is not None:\n                self._socket.shut()\n"
                "            return self._socket is not None",
                "            return False",
            ),
        ),
        ("tests/rpc/test_late_answers.py::test_cancelled_in_the_middle_and_the_buffer_given_on",),
    ),
    Mistake(
        "a request's bytes are free while the disk uses them",
        "5.3",
        (Edit("storage/held.py", "while self.is_used:", "while False:"),),
        ("tests/storage/test_held.py",),
    ),
    Mistake(
        "a payload is not verified on arrival",
        "4.2",
        (
            Edit(
                "storage/ops/update.py",
                "    check_payload(payload, update.offset_bytes, update.sums)\n",
                "",
            ),
        ),
        (f"{ACCESS}::test_an_update_comes_from_the_predecessor_in_its_generation",),
    ),
)

"""The lease record's rules: who may act until when."""

from __future__ import annotations

from fs3.ids import Generation, NodeId
from fs3.member.timing import TIMING
from fs3.mgmtd.lease import LeaseRecord, PrimaryLease


def lease(node: int) -> PrimaryLease:
    return PrimaryLease(NodeId(node), Generation(1), f"m{node}:9000", TIMING)


def taken(found: PrimaryLease, at_s: float) -> LeaseRecord:
    """It takes the record that nobody has."""
    found.observe(None, at_s)
    wanted = found.next_record(at_s + TIMING.primary_s)
    assert wanted is not None
    assert found.wrote(wanted, at_s + TIMING.primary_s, at_s + TIMING.primary_s + 0.1)
    return wanted


def next_of(found: PrimaryLease, at_s: float) -> LeaseRecord:
    wanted = found.next_record(at_s)
    assert wanted is not None
    return wanted


def test_the_holder_counts_from_the_begin_of_its_renewal() -> None:
    holder = lease(1)
    taken(holder, 0.0)
    renewed = next_of(holder, 4.0)
    assert not holder.wrote(renewed, 4.0, 5.5)  # the same term
    assert holder.is_primary(4.0 + 2.84)
    assert not holder.is_primary(4.0 + 2.85)


def test_a_standby_waits_for_three_seconds_of_the_same_record() -> None:
    holder, standby = lease(1), lease(2)
    record = taken(holder, 0.0)
    standby.observe(record, 10.0)
    standby.observe(record, 12.9)
    assert standby.next_record(12.9) is None
    renewed = next_of(holder, 4.0)
    standby.observe(renewed, 12.95)
    assert standby.next_record(15.9) is None
    taking = next_of(standby, 15.95)
    assert (taking.holder, taking.start) == (2, record.start + 1)


def test_no_two_attempts_write_the_same_record() -> None:
    holder = lease(1)
    taken(holder, 0.0)
    first, second = next_of(holder, 4.0), next_of(holder, 4.5)
    assert first != second  # the first one's answer was lost: finding it is not the second one's success


def test_what_was_resigned_is_not_revived() -> None:
    holder = lease(1)
    taken(holder, 0.0)
    renewed = next_of(holder, 4.0)
    holder.resign()
    assert not holder.wrote(renewed, 4.0, 4.1)
    assert not holder.is_primary(4.2)
    assert holder.next_record(5.0) is None
    again = next_of(holder, 7.2)
    assert again.start == renewed.start + 1
    assert holder.wrote(again, 7.2, 7.3) and holder.is_primary(7.4)


def test_somebody_else_in_the_record_ends_it() -> None:
    holder, other = lease(1), lease(2)
    taken(holder, 0.0)
    holder.observe(taken(other, 0.0), 4.0)
    assert not holder.is_primary(4.0)
    assert holder.primary_address == "m2:9000"


def test_a_released_record_is_taken_at_once() -> None:
    holder, standby = lease(1), lease(2)
    taken(holder, 0.0)
    released = holder.release()
    assert released is not None and not holder.is_primary(3.2)
    standby.observe(released, 4.0)
    taking = next_of(standby, 4.0)
    assert not taking.released and taking.start == released.start + 1

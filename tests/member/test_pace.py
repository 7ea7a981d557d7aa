"""``Pace``: when the next request is due, and the time before which it need not be asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fs3.member.pace import Pace
from fs3.member.timing import TIMING

STEPS = st.lists(st.tuples(st.floats(0.001, 0.6), st.booleans()), max_size=30)


def test_one_a_period_and_repeats_while_it_is_unanswered() -> None:
    pace = Pace(TIMING)
    assert pace.is_due(5.0) and pace.earliest_s() < 0
    pace.sent(5.0)
    assert not pace.is_due(5.05) and pace.is_due(5.1)
    pace.answered()
    assert not pace.is_due(5.4) and pace.is_due(5.5)
    pace.hurry()
    assert pace.is_due(5.2) and pace.earliest_s() < 0


@given(STEPS, st.booleans())
def test_none_is_due_before_the_earliest_time(steps: list[tuple[float, bool]], repeats: bool) -> None:
    pace, now_s = Pace(TIMING, repeats=repeats), 100.0
    pace.sent(now_s)
    for passes_s, is_answered in steps:
        earliest_s = pace.earliest_s()
        now_s += passes_s
        if is_answered:
            pace.answered()
            assert pace.earliest_s() >= earliest_s
        if now_s < earliest_s:
            assert not pace.is_due(now_s)
        if pace.is_due(now_s):
            pace.sent(now_s)

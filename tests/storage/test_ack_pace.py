"""How long updates lately took to be durable."""

from __future__ import annotations

from fs3.storage.ack_pace import WINDOW_S, AckPace


def done(pace: AckPace, began_s: float, took_s: float) -> None:
    pace.began(began_s)
    pace.ended(began_s + took_s)


def test_the_median_of_late() -> None:
    pace = AckPace()
    assert pace.recent_us(0.0) == 0
    for began_s, took_s in ((0.0, 9.0), (12.0, 0.25), (13.0, 0.5), (14.0, 0.125)):
        done(pace, began_s, took_s)
    assert pace.recent_us(20.0) == 250_000  # the first is forgotten
    assert pace.recent_us(15.0 + WINDOW_S) == 0


def test_what_hangs_counts_while_it_does() -> None:
    pace = AckPace()
    done(pace, 0.0, 0.125)
    pace.began(1.0)
    assert pace.recent_us(1.0625) == 125_000
    assert pace.recent_us(31.0) == 30_000_000
    pace.ended(31.0)
    assert pace.recent_us(31.0) == 30_000_000

"""Changes on top of ordered records against a dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fs3.storage.engine.overlay import Change, Overlay, hidden_count, merge_page

KEYS = st.binary(max_size=2)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=2)), max_size=12)


@given(st.dictionaries(KEYS, st.binary(max_size=2), max_size=12), st.lists(CHANGES, max_size=4), st.data())
def test_pages_are_those_of_a_dict(
    below: dict[bytes, bytes], rounds: list[list[Change]], data: st.DataObject
) -> None:
    overlay, model = Overlay(), dict(below)
    for changes in rounds:
        overlay.update(changes)
        for key, value in changes:
            model.pop(key, None)
            if value is not None:
                model[key] = value
        start, end = sorted((data.draw(KEYS), data.draw(KEYS)))
        limit, reverse = data.draw(st.integers(1, 6)), data.draw(st.booleans())
        above = overlay.span(start, end, limit, reverse=reverse)
        records = sorted(((k, v) for k, v in below.items() if start <= k < end), reverse=reverse)
        page = merge_page(records[: limit + hidden_count(above)], above, limit, reverse=reverse)
        expected = sorted(((k, v) for k, v in model.items() if start <= k < end), reverse=reverse)
        assert page == expected[:limit]


def test_a_page_looks_at_no_more_changes_than_it_needs() -> None:
    overlay = Overlay()
    overlay.update((b"%05d" % number, b"x" if number % 2 else None) for number in range(10_000))
    assert len(overlay.span(b"00100", b"9", 16, reverse=False)) == 32
    overlay.update([(b"00100x", b"new")])
    assert overlay.span(b"00100", b"9", 1, reverse=False) == [(b"00100", None), (b"00100x", b"new")]
    assert overlay.span(b"0", b"9", 1, reverse=True) == [(b"09999", b"x")]
    assert overlay.cost_bytes > 10_000 * 150

"""Resync: a member that comes back gets what the chain has and it has not (design 4.6).

The *source* is the predecessor of a SYNCING member, if it serves; live updates reach the receiver by the
chain meanwhile, as whole chunks. ``job`` says what is sent next, ``plan`` what is to be done about a chunk,
``pace`` how fast; ``source`` does it. The receiver's part is in ``storage/ops/resync.py``, ``arrival.py`` and
``pages.py``.

Why nothing is undone. The source sends only what is committed at itself, read right before; the receiver
takes it under its chunk's lock, never in place of a higher number unless the source names that very version,
and under the exact chain version of both. What is committed at the source in the present chain version was
staged by the receiver first, so it is left alone; what is pending at the source is rolled forward first, by
way of the receiver. So neither side holds a lock while bytes travel.
"""

"""The power goes at each write and sync in turn; what comes back is a state that was promised.

Everything unsynced is lost, torn or reordered (``SimDisk``).
"""

from __future__ import annotations

import pytest

from fs3.errors import InvalidRequest
from fs3.rng import Rng, derived_rng

from ...sim.disk import PowerCut, SimDisk
from .crash_work import Run, matches
from .model import Model, check_same
from .shop import SimShop, apply, chunk, content, identity, write

STEPS = 14
LOGS = (0, 8 * 4096)
"""A simulated index; a real log in front of simulated records, so short that checkpoints are part of it."""


def work(seed: int, cut_at: int | None, log_bytes: int) -> tuple[Run, SimShop]:
    """Run a workload up to the cut (or to its end)."""
    shop = SimShop(SimDisk(derived_rng(seed, f"disk {cut_at}"), 1 << 26), log_bytes=log_bytes)
    store = shop.create()
    run = Run(seed, store, Model(), 1)
    shop.disk.step_count = 0
    shop.disk.cut_at = cut_at
    try:
        for _ in range(STEPS):
            shop.clock.now_s += 8
            run.step()
    except PowerCut:
        pass
    return run, shop


def survive(seed: int, cut_at: int, log_bytes: int) -> bool:
    """Cut, come back, check, go on and check again. False: the workload ended before the cut."""
    run, shop = work(seed, cut_at, log_bytes)
    if shop.disk.step_count < cut_at:
        return False
    for again in range(2):
        change = run.store.change
        shop.disk = shop.disk.after_power_cut()
        shop.clock.now_s += 5
        store = shop.open()
        assert store.change > change, "a change number was given twice"
        model = matches(store, run.allowed)
        run = Run(seed + 7 + again, store, model.copy(), run.tag + 100)
        for _ in range(4 + again):
            run.step()
            check_same(store, run.model)
    return True


@pytest.mark.parametrize("log_bytes", LOGS)
@pytest.mark.parametrize("seed", range(12))
def test_a_cut_at_a_sample_of_steps(seed: int, log_bytes: int) -> None:
    last = work(seed, None, log_bytes)[1].disk.step_count
    picked = sorted(derived_rng(seed, "cuts").sample(range(1, last + 1), min(6, last)))
    assert all(survive(seed, cut_at, log_bytes) for cut_at in picked)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("log_bytes", LOGS)
@pytest.mark.parametrize("seed", range(100, 160))
def test_a_cut_at_every_step(seed: int, log_bytes: int) -> None:
    last = work(seed, None, log_bytes)[1].disk.step_count
    assert all(survive(seed, cut_at, log_bytes) for cut_at in range(1, last + 1))


@pytest.mark.parametrize("log_bytes", LOGS)
def test_a_cut_while_a_store_is_made_leaves_no_store_or_an_empty_one(log_bytes: int) -> None:
    made_count = 0
    last = 22 if log_bytes else 10
    for cut_at in range(1, last):
        shop = SimShop(SimDisk(Rng(cut_at)), log_bytes=log_bytes)
        shop.disk.cut_at = cut_at
        try:
            shop.create()
            made_count += 1
        except PowerCut:
            shop.disk = shop.disk.after_power_cut()
            try:
                store = shop.open()
            except InvalidRequest:
                store = shop.create()
            check_same(store, Model())
    assert 1 <= made_count <= 5


@pytest.mark.parametrize("steps", range(1, 5))
def test_a_block_that_only_a_lost_commit_mark_set_free_is_not_written(steps: int) -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), b"1" * 1000))
    store.stage([write(chunk(0), identity(2), b"2" * 1000)])
    store.commit(chunk(0), identity(2))  # sets the block of version 1 free, when the mark is durable
    shop.disk.cut_at = shop.disk.step_count + steps
    try:
        store.stage([write(chunk(number), identity(1), b"4" * 1000) for number in range(1, 4)])
    except PowerCut:
        shop.disk = shop.disk.after_power_cut()
        store = shop.open()
    committed = store.versions(chunk(0)).committed
    assert committed is not None
    number = committed.identity.update_version
    assert content(store, chunk(0)) == b"%d" % number * 1000


def test_a_replaced_pending_version_stays_if_the_index_is_full() -> None:
    shop = SimShop()
    store, model = shop.create(), Model()
    item = write(chunk(0), identity(1), b"a" * 1000)
    store.stage([item])
    model.stage(item)
    store._core.index.is_full = True  # type: ignore[attr-defined]
    (outcome,) = store.stage([write(chunk(0), identity(1, 2), b"b" * 1000)])
    assert outcome.error is not None
    store._core.index.is_full = False  # type: ignore[attr-defined]
    other = write(chunk(1), identity(1, 3), b"c" * 1000)
    store.stage([other])
    model.stage(other)
    check_same(store, model)

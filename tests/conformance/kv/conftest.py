"""Runs every test of this folder once an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from fs3.kv.transaction import Kv, Transaction

from .engines import Engine, lmdb_engine, memory_engine

Opener = Callable[[], AbstractAsyncContextManager[Engine]]

OPENERS: dict[str, Opener] = {"memory": memory_engine, "lmdb": lmdb_engine}
PARAMS = [pytest.param(opener, id=name) for name, opener in OPENERS.items()]


@pytest.fixture(params=PARAMS)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    opener: Opener = request.param
    async with opener() as opened:
        yield opened


@pytest.fixture
async def kv(engine: Engine) -> Kv:
    return await engine.client()


@pytest.fixture
def begin(kv: Kv) -> Callable[[], Transaction]:
    """Starts an attempt."""
    return kv.transaction

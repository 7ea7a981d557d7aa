"""Runs every test of this folder once an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from fs3.kv.transaction import Kv, Transaction

from .engines import Engine, double_engine, fdb_engine, fdb_missing, lmdb_engine, memory_engine

Opener = Callable[[], AbstractAsyncContextManager[Engine]]

_MISSING = fdb_missing()
PARAMS = [
    pytest.param(memory_engine, id="memory"),
    pytest.param(lmdb_engine, id="lmdb"),
    pytest.param(double_engine, id="fdb_double"),
    pytest.param(
        fdb_engine, id="fdb", marks=[pytest.mark.fdb, pytest.mark.skipif(bool(_MISSING), reason=_MISSING)]
    ),
]


@pytest.fixture(params=PARAMS)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    opener: Opener = request.param
    async with opener() as opened:
        yield opened


@pytest.fixture
async def kv(engine: Engine) -> Kv:
    return await engine.client()


@pytest.fixture
async def clients(engine: Engine) -> list[Kv]:
    """Two clients of one store."""
    return [await engine.client(), await engine.client()]


@pytest.fixture
def begin(kv: Kv) -> Callable[[], Transaction]:
    """Starts an attempt."""
    return kv.transaction

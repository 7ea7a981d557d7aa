"""Random transactions of several clients at once, every answer compared with the model's."""

from __future__ import annotations

from typing import Any

import pytest

from fs3.errors import TransactionConflict
from fs3.kv.transaction import AtomicOp, Kv, Transaction
from fs3.rng import Rng, derived_rng

from .engines import Engine
from .model import ENDS, KEYS, Model, ModelTransaction, Write, keys_of

SLOTS = 3
STEPS = 40
Step = tuple[Any, ...]
WEIGHTS = {
    "get": 6,
    "range": 4,
    "set": 4,
    "clear": 1,
    "clear_range": 2,
    "atomic": 4,
    "read_conflict": 1,
    "write_conflict": 1,
    "commit": 7,
    "cancel": 1,
}


def program_of(seed: int) -> list[tuple[int, Step]]:
    """The steps of program ``seed``: (slot of the transaction, call)."""
    rng = derived_rng(seed, "program")
    names = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS)
    return [(rng.randrange(SLOTS), step_of(name, rng)) for name in names]


def step_of(name: str, rng: Rng) -> Step:
    """A call with drawn arguments."""
    key, value = rng.choice(KEYS), rng.randbytes(rng.choice([1, 1, 2]))
    begin, end = sorted(rng.choices(ENDS, k=2))
    arguments: dict[str, Step] = {
        "get": (key, rng.random() < 0.2),
        "range": ((begin, end), rng.choice([0, 0, 1, 2]), rng.random() < 0.4, rng.random() < 0.2),
        "set": (key, value),
        "clear": (key,),
        "clear_range": ((begin, end),),
        "atomic": (rng.choice(list(AtomicOp)), key, value),
        "read_conflict": ((begin, end),),
        "write_conflict": ((begin, end),),
    }
    return (name, *arguments.get(name, ()))


class Pair:
    """A transaction of the engine and its double in the model."""

    def __init__(self, txn: Transaction) -> None:
        self.real = txn
        self.model = ModelTransaction()

    def write(self, write: Write) -> None:
        if write.keys():  # clearing an empty range is no write
            self.model.writes.append(write)
        if write.kind == "set":
            self.real.set(write.begin, write.value)
        elif write.kind == "clear":
            self.real.clear(write.begin)
        elif write.kind == "clear_range":
            self.real.clear_range(write.begin, write.end)
        else:
            self.real.atomic(write.op, write.begin, write.value)


class Player:
    """Plays a program on both."""

    def __init__(self, clients: list[Kv]) -> None:
        self._clients = clients
        self._model = Model()
        self._open: dict[int, Pair] = {}

    def _pair(self, slot: int) -> Pair:
        if slot not in self._open:
            self._open[slot] = Pair(self._clients[slot % len(self._clients)].transaction())
        return self._open[slot]

    async def play(self, slot: int, step: tuple[Any, ...]) -> None:
        name, *rest = step
        pair = self._pair(slot)
        if name == "get":
            await self._get(pair, *rest)
        elif name == "range":
            await self._range(pair, *rest)
        elif name == "set":
            pair.write(Write("set", rest[0], value=rest[1]))
        elif name == "clear":
            pair.write(Write("clear", rest[0]))
        elif name == "clear_range":
            pair.write(Write("clear_range", rest[0][0], rest[0][1]))
        elif name == "atomic":
            pair.write(Write("atomic", rest[1], value=rest[2], op=rest[0]))
        elif name == "read_conflict":
            await self._read_conflict(pair, *rest[0])
        elif name == "write_conflict":
            pair.real.add_write_conflict_range(*rest[0])
            pair.model.write_conflicts |= keys_of(*rest[0])
        elif name == "commit":
            await self._commit(self._open.pop(slot))
        else:
            self._open.pop(slot).real.cancel()

    async def _get(self, pair: Pair, key: bytes, snapshot: bool) -> None:
        expected = self._model.read(pair.model).get(key)
        reads = pair.real.snapshot if snapshot else pair.real
        assert await reads.get(key) == expected
        if not snapshot and key not in pair.model.known():
            pair.model.must.add(key)
            pair.model.may.add(key)

    async def _range(
        self, pair: Pair, span: tuple[bytes, bytes], limit: int, reverse: bool, snapshot: bool
    ) -> None:
        begin, end = span
        if begin == end:
            assert await pair.real.range(begin, end) == []  # takes no snapshot
            return
        state = self._model.read(pair.model)
        expected = sorted(((key, state[key]) for key in keys_of(begin, end) & set(state)), reverse=reverse)
        if limit:
            expected = expected[:limit]
        reads = pair.real.snapshot if snapshot else pair.real
        assert await reads.range(begin, end, limit=limit, reverse=reverse) == expected
        if limit and len(expected) == limit:
            last = expected[-1][0]
            begin, end = (last, end) if reverse else (begin, last + b"\0")
        if not snapshot:
            looked_at = keys_of(begin, end)
            pair.model.may |= looked_at
            pair.model.must |= looked_at - pair.model.known()

    async def _read_conflict(self, pair: Pair, begin: bytes, end: bytes) -> None:
        self._model.open(pair.model)
        await pair.real.read_version()  # so that both judge from here on
        pair.real.add_read_conflict_range(begin, end)
        pair.model.must |= keys_of(begin, end)
        pair.model.may |= keys_of(begin, end)

    async def _commit(self, pair: Pair) -> None:
        if not pair.model.writes and not pair.model.write_conflicts:
            await pair.real.commit()
            return
        verdict = self._model.verdict(pair.model)
        try:
            await pair.real.commit()
        except TransactionConflict:
            assert verdict is not True, "refused although nothing that it read has changed"
        else:
            assert verdict is not False, "committed although something that it read has changed"
            self._model.commit(pair.model)
        finally:
            pair.real.cancel()

    async def finish(self) -> None:
        for pair in self._open.values():
            pair.real.cancel()
        check = self._clients[0].transaction()
        assert dict(await check.range(b"k", b"l")) == self._model.state
        check.cancel()


async def play(clients: list[Kv], seed: int) -> None:
    clean = clients[0].transaction()
    clean.clear_range(b"", b"\xff")
    await clean.commit()
    player = Player(clients)
    for number, (slot, step) in enumerate(program_of(seed)):
        try:
            await player.play(slot, step)
        except AssertionError as error:
            error.add_note(f"program {seed}, step {number}: slot {slot} {step}")
            raise
    await player.finish()


PROGRAMS = {"memory": 2000, "fdb_double": 400}
"""What a second or two allow; engines that sync play fewer."""


async def test_random_transactions(engine: Engine, clients: list[Kv]) -> None:
    for seed in range(PROGRAMS.get(engine.name, 100)):
        await play(clients, seed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_random_transactions_at_length(clients: list[Kv]) -> None:
    for seed in range(1000, 6000):
        await play(clients, seed)

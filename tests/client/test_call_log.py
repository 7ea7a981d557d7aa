"""The log of a client's calls says of each where it went, how long it took and why it failed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fs3.client.call_log import VARIABLE, LoggedCaller, LoggedThreadCaller, call_log, told
from fs3.clock import SystemClock
from fs3.errors import StaleRouting, Unavailable
from fs3.ids import ChainId, ChainVersion, ChunkId, ClientSessionId, InodeId
from fs3.log import capturing_logger
from fs3.rpc.thread_calls import ThreadCall
from fs3.wire.storage import READ, ReadItem, ReadRequest, ReadResponse

CHUNK = ChunkId(InodeId(7), 2)
ITEM = ReadItem(ChainId(3), ChainVersion(5), CHUNK, 0, 4096, 1)
REQUEST = ReadRequest(session=ClientSessionId(1), items=(ITEM, ITEM))


class Played:
    """A server that answers, refuses, or says nothing."""

    def __init__(self, outcome: Exception | ReadResponse | None) -> None:
        self._outcome = outcome

    async def call(self, address: str, method: Any, request: Any, **more: Any) -> Any:
        if self._outcome is None:
            await asyncio.Event().wait()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def call_all(self, calls: Any, timeout_s: float) -> None:
        calls[0].error, calls[0].took_s = None, 0.25


def test_each_call_is_a_line() -> None:
    events: list[dict[str, object]] = []

    async def one(outcome: Exception | ReadResponse | None, timeout_s: float) -> None:
        caller = LoggedCaller(Played(outcome), capturing_logger(events), SystemClock())
        async with asyncio.timeout(timeout_s):
            await caller.call("a:1", READ, REQUEST, timeout_s=1.0)

    asyncio.run(one(ReadResponse(first=0, results=()), 5.0))
    with pytest.raises(StaleRouting):
        asyncio.run(one(StaleRouting("chain 3 is at version 6"), 5.0))
    with pytest.raises(TimeoutError):
        asyncio.run(one(None, 0.01))
    assert [event.get("error") for event in events] == [
        None, "StaleRouting: chain 3 is at version 6", "given up"
    ]  # fmt: skip
    for event in events:
        assert (event["method"], event["server"], event["chain"], event["items"]) == ("read", "a:1", 3, 2)


def test_calls_of_threads_are_told_too() -> None:
    events: list[dict[str, object]] = []
    calls = [ThreadCall("a:1", READ, REQUEST), ThreadCall("b:1", READ, REQUEST)]
    calls[1].error = Unavailable("away")
    LoggedThreadCaller(Played(None), capturing_logger(events), SystemClock()).call_all(calls, 1.0)
    assert [(e["server"], e["took_ms"] == 250.0, e.get("error")) for e in events] == [
        ("a:1", True, None), ("b:1", False, "Unavailable: away")
    ]  # fmt: skip


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    clock, played = SystemClock(), Played(None)
    assert call_log({}, clock) is None
    assert told(played, played, played, None, clock) == (played, played, played)
    found = call_log({VARIABLE: str(tmp_path / "calls")}, clock)
    assert found is not None
    in_threads = told(played, played, played, found.log, clock)[1]
    in_threads.call_all([ThreadCall("a:1", READ, REQUEST)], 1.0)
    found.close()
    in_threads.call_all([ThreadCall("a:1", READ, REQUEST)], 1.0)  # late, and lost
    line = json.loads((tmp_path / "calls").read_text())
    assert line["event"] == "call" and line["chunk"] == str(CHUNK) and line["took_ms"] == 250.0

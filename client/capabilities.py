"""Capabilities of open files: a number each, presented to every server that is asked about the file.

A server knows a capability after PRESENT until it expires or the server restarts; it then answers
CapabilityExpired, and the client presents it again. Renewal is at half of the life, in batches, and gives the
number new bytes, which are presented before the next use (design 7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fs3.errors import CapabilityExpired
from fs3.identity.capability import CAPABILITY_MS
from fs3.ids import ClientSessionId
from fs3.stubs.meta import MetaStub
from fs3.wire.meta import RENEW_CAPABILITIES, RenewCapabilitiesRequest
from fs3.wire.storage import PRESENT, PresentRequest

from .settings import Components

RENEW_AGE_S = CAPABILITY_MS / 1000 / 2
RENEW_BATCH = 1000
NUMBER_MAX = (1 << 32) - 1
PRESENT_TIMEOUT_S = 2.0
RENEW_TIMEOUT_S = 5.0


class _Entry:
    __slots__ = ("data", "presented", "since_s")

    def __init__(self, data: bytes, since_s: float) -> None:
        self.data = data
        self.since_s = since_s
        self.presented: dict[str, None] = {}  # addresses that know these bytes


class Capabilities:
    """The table of one session."""

    def __init__(self, session: ClientSessionId, components: Components, meta: MetaStub) -> None:
        self._session = session
        self._caller = components.caller
        self._clock = components.clock
        self._meta = meta
        self._entries: dict[int, _Entry] = {}
        self._last_number = 0

    def add(self, data: bytes) -> int:
        """Keep the capability of a file that was opened; its number."""
        while True:
            self._last_number = self._last_number % NUMBER_MAX + 1
            if self._last_number not in self._entries:
                break
        self._entries[self._last_number] = _Entry(data, self._clock.boot_s())
        return self._last_number

    def replace(self, number: int, data: bytes) -> None:
        """The file was opened again: new bytes under its number."""
        self._entries[number] = _Entry(data, self._clock.boot_s())

    def drop(self, number: int) -> None:
        """The file was closed."""
        self._entries.pop(number, None)

    def forget(self, address: str, number: int) -> None:
        """A server says that it does not know (any more) what was presented."""
        entry = self._entries.get(number)
        if entry is not None:
            entry.presented.pop(address, None)

    def is_presented(self, address: str, number: int) -> bool:
        """Whether a server knows the capability, as far as this client can tell."""
        entry = self._entries.get(number)
        return entry is not None and address in entry.presented

    def to_present(self, address: str, numbers: Iterable[int]) -> list[PresentRequest]:
        """What a server must be told before it is asked under these numbers. CapabilityExpired when one could
        not be renewed."""
        return [
            PresentRequest(session=self._session, number=number, capability=entry.data)
            for number in numbers
            if address not in (entry := self._usable(number)).presented
        ]

    def was_presented(self, address: str, request: PresentRequest) -> None:
        """A server has taken it."""
        entry = self._entries.get(request.number)
        if entry is not None and entry.data == request.capability:
            entry.presented[address] = None

    def _usable(self, number: int) -> _Entry:
        entry = self._entries.get(number)
        if entry is None or not entry.data:
            raise CapabilityExpired(f"capability {number} could not be renewed")
        return entry

    async def present(self, address: str, numbers: Iterable[int], timeout_s: float) -> None:
        """Make sure that the server at ``address`` knows these capabilities. Raises as a call does;
        CapabilityExpired when one could not be renewed."""
        for request in self.to_present(address, numbers):
            await self._caller.call(
                address, PRESENT, request, timeout_s=max(0.001, min(timeout_s, PRESENT_TIMEOUT_S))
            )
            self.was_presented(address, request)

    async def renew(self) -> None:
        """Renew those that have lived half of their life. Raises as a call does; then it was for nothing."""
        now_s = self._clock.boot_s()
        due = [
            (number, entry)
            for number, entry in self._entries.items()
            if entry.data and now_s - entry.since_s >= RENEW_AGE_S
        ]
        for start in range(0, len(due), RENEW_BATCH):
            batch = due[start : start + RENEW_BATCH]
            request = RenewCapabilitiesRequest(
                session=self._session, capabilities=tuple(entry.data for _, entry in batch)
            )
            answer = await self._meta.call(RENEW_CAPABILITIES, request, timeout_s=RENEW_TIMEOUT_S)
            for (number, entry), data in zip(batch, answer.capabilities, strict=True):
                if self._entries.get(number) is entry:
                    self._entries[number] = _Entry(data, now_s)
            await asyncio.sleep(0)  # a client with very many files lets others run

"""The client session: opened at first use, renewed every few seconds, closed at the end (design 3.4).

Everything that a client holds names its session. When a session is lost (the client was cut off for longer
than the cluster waits), what was open under it is gone; the next operation on a path opens a new one.
"""

from __future__ import annotations

import asyncio

from fs3.clock import Clock
from fs3.errors import MaybeApplied, Retryable, SessionLost
from fs3.stubs.meta import MetaStub, Slots
from fs3.tasks import TaskScope
from fs3.wire.meta import (
    CLOSE_SESSION,
    OPEN_SESSION,
    RENEW_SESSION,
    CloseSessionRequest,
    OpenSessionRequest,
    OpenSessionResponse,
    RenewSessionRequest,
)

from .capabilities import Capabilities
from .channels import Channels
from .settings import ClientSettings, Components

CLOSE_TIMEOUT_S = 2.0
"""A cluster that is away must not hold up the end of a program: the session is settled as a lost one."""


class Session:
    """One session. ``is_lost``: over; requests under it are refused."""

    def __init__(self, opened: OpenSessionResponse, components: Components, meta: MetaStub) -> None:
        self.id = opened.session
        self.inline_limit_bytes = opened.inline_limit_bytes
        self.renew_every_s = opened.renew_every_s
        self.slots = Slots(opened.session, opened.slot_count)
        self.channels = Channels()
        self.capabilities = Capabilities(opened.session, components, meta)
        self.is_lost = False


class SessionKeeper:
    """Opens, renews and closes the session of one client process."""

    def __init__(
        self, components: Components, meta: MetaStub, settings: ClientSettings, scope: TaskScope
    ) -> None:
        self._components = components
        self._clock: Clock = components.clock
        self._meta = meta
        self._settings = settings
        self._scope = scope
        self._session: Session | None = None
        self._opening = asyncio.Lock()

    async def current(self) -> Session:
        """The live session, opened if there is none."""
        session = self._session
        if session is not None and not session.is_lost:
            return session
        async with self._opening:
            session = self._session
            if session is None or session.is_lost:
                session = self._session = await self._open()
            return session

    async def _open(self) -> Session:
        request = OpenSessionRequest(
            host=self._components.host,
            description=self._settings.description,
            request_nonce=self._components.make_nonce(),
        )
        opened = await self._meta.call(OPEN_SESSION, request, timeout_s=self._settings.meta_timeout_s)
        session = Session(opened, self._components, self._meta)
        self._scope.spawn(f"renew session {session.id:x}", self._renew(session))
        return session

    async def _renew(self, session: Session) -> None:
        """Renew until the session is over; capabilities as well, at half of their life."""
        request = RenewSessionRequest(session=session.id)
        while not session.is_lost:
            await asyncio.sleep(session.renew_every_s)
            try:
                await self._meta.call(RENEW_SESSION, request, timeout_s=session.renew_every_s)
                await session.capabilities.renew()
            except SessionLost:
                session.is_lost = True
            except (Retryable, MaybeApplied):
                continue  # no service answers: the cluster does not count this time either

    async def close(self) -> None:
        """End the session; best effort: the cluster settles what it does not hear of."""
        session, self._session = self._session, None
        if session is None or session.is_lost:
            return
        session.is_lost = True
        request = CloseSessionRequest(session=session.id)
        try:
            await self._meta.call(CLOSE_SESSION, request, timeout_s=CLOSE_TIMEOUT_S)
        except (Retryable, MaybeApplied, SessionLost):
            return

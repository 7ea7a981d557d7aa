"""Servers that hold a payload while they wait for each other in a ring."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from fs3.identity.key_file import system_nonce
from fs3.rpc.bulk_client import BulkClient, BulkClientSettings
from fs3.rpc.bulk_connection import BulkServerSettings
from fs3.rpc.bulk_server import BulkServer
from fs3.rpc.network import SystemNetwork
from fs3.rpc.service import Call, Routes

from .world import NODE, STORE, Ask, Tell, calling, serving

COUNT = 3
EACH = 12
PAYLOAD = bytes(100_000)


@pytest.mark.timeout(30)
async def test_a_ring_of_servers_with_two_buffers_each_never_stands_still() -> None:
    """Each request goes on to the next server, and from there to the one behind that: as three chains over
    three nodes. With one pool for all, the first requests fill every buffer and all wait for one."""
    where: list[str] = []
    async with AsyncExitStack() as stack:
        clients: list[BulkClient] = []

        def routes_of(number: int) -> Routes:
            def store(call: Call, ask: Ask) -> Tell:
                assert call.payload is not None
                if ask.number:
                    clients[number].call_blocking(
                        where[(number + 1) % COUNT],
                        STORE,
                        Ask(number=ask.number - 1),
                        timeout_s=20,
                        payload=(bytes(call.payload),),
                    )
                return Tell()

            routes = Routes()
            routes.add(STORE, store, in_thread=store, rank=lambda ask: ask.number)
            return routes

        settings = BulkServerSettings(payloads_max=2)
        for number in range(COUNT):
            server = serving(routes_of(number), bulk=BulkServer(settings))
            where.append((await stack.enter_async_context(server))[1])
            unbounded = BulkClientSettings(in_flight_max=256, in_flight_peer_max=256)
            clients.append(BulkClient(NODE, SystemNetwork(), make_nonce=system_nonce, settings=unbounded))
            stack.push_async_callback(clients[number].aclose)
        bulk = BulkClient(
            NODE,
            SystemNetwork(),
            make_nonce=system_nonce,
            settings=BulkClientSettings(in_flight_max=COUNT * EACH, in_flight_peer_max=EACH),
        )
        caller = await stack.enter_async_context(calling(bulk=bulk))
        await asyncio.gather(
            *(
                caller.call(
                    where[n % COUNT], STORE, Ask(number=2), timeout_s=25, payload=(PAYLOAD,), bulk=True
                )
                for n in range(COUNT * EACH)
            )
        )

"""From a cluster's name to a file system: the client's own composition of sockets, clocks and chance."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from fs3.clock import SystemClock
from fs3.errors import Busy, Fs3Error
from fs3.identity.handshake import UserCredentials
from fs3.identity.key_file import system_nonce
from fs3.log import silent_logger
from fs3.rng import system_rng
from fs3.rpc.bulk_client import BulkClient
from fs3.rpc.client import RpcClient
from fs3.rpc.network import SystemNetwork
from fs3.rpc.thread_calls import ThreadCaller
from fs3.stubs.mgmtd import MgmtdStub, RoutingCache
from fs3.tasks import TaskScope

from .call_log import call_log, told
from .core import ClientCore
from .failures import as_os_error
from .filesystem import AsyncFileSystem
from .profile import Profile, find_profile
from .settings import ClientSettings, Components

CONNECT_TIMEOUT_S = 10.0
DEFAULT = ClientSettings()


async def connect_async(
    where: str | None = None, *, token: str | None = None, settings: ClientSettings = DEFAULT
) -> AsyncFileSystem:
    """Connect to a cluster from within an event loop, which the file system belongs to.

    ``where``: ``fs3://host:port,…/``, a configured cluster's name, or its file; default: ``$FS3_CLUSTER``,
    else the cluster ``dev`` of this machine. A path in the URL is not used.

    OSError: no such cluster, no token, refused (EACCES), not reached within 10 s (TimeoutError).
    """
    return await connect_profile(find_profile(where, token, os.environ), settings)


async def connect_profile(profile: Profile, settings: ClientSettings) -> AsyncFileSystem:
    """Connect to the cluster of a profile."""
    loop = asyncio.get_running_loop()

    def failed(name: str, error: BaseException) -> None:
        loop.call_exception_handler({"message": f"fs3 client: {name} failed", "exception": error})

    clock, rng, network = SystemClock(), system_rng(), SystemNetwork()
    credentials = UserCredentials(profile.token)
    bulk = BulkClient(credentials, network, make_nonce=system_nonce)
    rpc = RpcClient(credentials, network, rng=rng, make_nonce=system_nonce, on_failure=failed, bulk=bulk)
    scope = TaskScope("fs3-client", failed)
    threads = ThreadCaller(credentials, network, make_nonce=system_nonce, now_s=clock.boot_s)
    calls = call_log(os.environ, clock)
    log = calls.log if calls is not None else None
    caller, *in_threads = told(rpc, bulk, threads, log, clock)
    routing = RoutingCache(MgmtdStub(caller, profile.seeds, clock, rng), rng, log or silent_logger())
    components = Components(caller, routing, clock, rng, system_nonce, socket.gethostname(), *in_threads)

    async def close() -> None:
        threads.close()
        await rpc.aclose()
        if calls is not None:
            calls.close()

    core = ClientCore(components, settings, scope, close)
    try:
        routing.start(scope)
        with contextlib.suppress(Busy):  # mgmtds choose a primary: it is waited for below
            await routing.refresh()
        await routing.wait_version(1, CONNECT_TIMEOUT_S)
    except BaseException as error:
        await core.close()
        if isinstance(error, Fs3Error):
            seeds = ", ".join(profile.seeds)
            raise as_os_error(error, f"fs3://{seeds}/ ({profile.source})") from error
        raise
    return AsyncFileSystem(core)

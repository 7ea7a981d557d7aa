"""Opens a store by its address.

=========================  ==================================================================
``mem://``                 a new, empty store in this process; gone with it
``lmdb:///DIR``            the embedded store in DIR, whose owner (``fs3 kv``) runs or will run
``fdb:///CLUSTERFILE``     a FoundationDB cluster
=========================  ==================================================================

Paths may also be written relative (``lmdb://DIR``) and percent-encoded.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from ..clock import Clock
from ..errors import InvalidRequest
from .faults import KvFaults
from .transaction import Kv

FORMS = "mem://, lmdb://DIR or fdb://CLUSTERFILE"


def open_kv(url: str, *, clock: Clock, faults: KvFaults | None = None) -> Kv:
    """The store at ``url``; ``faults`` is for ``mem://``.

    Raises InvalidRequest (the address is wrong), Unavailable (``fdb://``: something is not installed, or
    the cluster file is missing). A store that cannot be reached shows when it is used.
    """
    scheme, separator, rest = url.partition("://")
    path = Path(unquote(rest))
    if not separator or scheme not in ("mem", "lmdb", "fdb"):
        raise InvalidRequest(f"key-value store {url!r}: an address has the form {FORMS}")
    if scheme == "mem":
        if rest:
            raise InvalidRequest(f"key-value store {url!r}: mem:// takes no path")
        from .memory import MemoryKv, MemoryStore

        return MemoryKv(MemoryStore(clock), faults=faults)
    if not rest:
        raise InvalidRequest(f"key-value store {url!r}: {scheme}:// needs a path, as in {scheme}:///srv/fs3")
    if scheme == "lmdb":
        from .lmdb_client import LmdbKv, LmdbSettings

        return LmdbKv(LmdbSettings(path), clock=clock)
    from .fdb import open_fdb

    return open_fdb(path)

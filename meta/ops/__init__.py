"""The operations of the metadata service, one file each; ``OPERATIONS`` is what the server serves."""

from __future__ import annotations

from typing import Any

from ..driver import Operation
from . import (
    close,
    close_session,
    create,
    mkdirs,
    open_session,
    remove,
    rename,
    renew_capabilities,
    renew_session,
    spill,
    stat,
    statfs,
    truncate,
    write_inline,
)
from . import list as list_
from . import open as open_
from . import setattr as setattr_

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    open_session.OPERATION,
    renew_session.OPERATION,
    close_session.OPERATION,
    stat.OPERATION,
    list_.OPERATION,
    statfs.OPERATION,
    open_.OPERATION,
    create.OPERATION,
    close.CLOSE_OPERATION,
    close.SYNC_OPERATION,
    write_inline.OPERATION,
    spill.OPERATION,
    renew_capabilities.OPERATION,
    mkdirs.OPERATION,
    remove.OPERATION,
    rename.OPERATION,
    setattr_.OPERATION,
    truncate.OPERATION,
)

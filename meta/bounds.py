"""Bounds of the numbers in requests, checked before anything believes them. PURE.

The wire carries any 64-bit integer; keys and records hold what is unsigned, or what a clock can show. What
only one operation knows (lengths, limits, modes, layouts) it checks itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fs3.errors import InvalidRequest
from fs3.wire.meta import ActAs, Mutation, Path

ID_MAX = (1 << 32) - 2
"""Greatest uid or gid; 2**32 - 1 means "no one" to the kernel."""
GROUPS_MAX = 1024
TIME_NS_MAX = (1 << 63) - 1
NOW = -1
"""As a time to set: the service's own clock."""
U64_MAX = (1 << 64) - 1

Check = Callable[[Any], None]


def _id(value: int) -> None:
    if not 0 <= value <= U64_MAX:
        raise InvalidRequest(f"{value} is no inode and no session")


def _path(value: Path) -> None:
    _id(value.base)


def _mutation(value: Mutation) -> None:
    _id(value.session)


def _act_as(value: ActAs | None) -> None:
    if value is None:
        return
    if len(value.groups) > GROUPS_MAX:
        raise InvalidRequest(f"{len(value.groups)} groups; at most {GROUPS_MAX} are possible")
    for number in (value.uid, value.gid, *value.groups):
        _owner(number)


def _owner(value: int | None) -> None:
    if value is not None and not 0 <= value <= ID_MAX:
        raise InvalidRequest(f"uid or gid {value} is not in 0 … {ID_MAX}")


def _time(value: int | None) -> None:
    if value is not None and not NOW <= value <= TIME_NS_MAX:
        raise InvalidRequest(f"{value} ns is no time")


_CHECKS: dict[str, Check] = {
    "path": _path,
    "source": _path,
    "destination": _path,
    "mutation": _mutation,
    "inode": _id,
    "session": _id,
    "act_as": _act_as,
    "uid": _owner,
    "gid": _owner,
    "atime_ns": _time,
    "mtime_ns": _time,
}


def bounds_of(request: type[Any]) -> Check:
    """The check of a request type's fields; it raises InvalidRequest. Made once, where the handler is."""
    checks = [(name, _CHECKS[name]) for name in request.__struct_fields__ if name in _CHECKS]

    def check(value: Any) -> None:
        for name, one in checks:
            one(getattr(value, name))

    return check

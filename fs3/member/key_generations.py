"""Which tokens still count: the least valid key generation of each user, as routing says (design 7).

A server hands ``least`` to its identity, subscribes ``adopt`` to routing, and has ``on_change`` cut the
connections of those whose tokens were revoked.
"""

from __future__ import annotations

from collections.abc import Callable

from ..routing import RoutingInfo


class KeyGenerations:
    """The newest ones known here."""

    def __init__(self) -> None:
        self._least: dict[int, int] = {}
        self.on_change: Callable[[], None] = lambda: None

    def least(self, uid: int) -> int:
        """The least valid key generation of a user; 0: nothing was revoked."""
        return self._least.get(uid, 0)

    def adopt(self, routing: RoutingInfo) -> None:
        """Take a newer picture."""
        if routing.key_generations != self._least:
            self._least = routing.key_generations
            self.on_change()

"""What a service remembers of the renewals that it wrote, so that it need not write each one."""

from __future__ import annotations

from collections import OrderedDict

from fs3.errors import Unauthenticated
from fs3.ids import ClientSessionId

from .session import RENEWAL_WRITE_S

REMEMBERED_MAX = 100_000
"""Sessions whose last written renewal a service remembers; of others it writes every one."""


class Renewals:
    """When this service last wrote the renewal of a session, and for whom."""

    def __init__(self) -> None:
        self._written: OrderedDict[ClientSessionId, tuple[float, int]] = OrderedDict()

    def is_fresh(self, session: ClientSessionId, uid: int, now_s: float) -> bool:
        """Written less than ``RENEWAL_WRITE_S`` ago. Unauthenticated when it is another user's."""
        known = self._written.get(session)
        if known is None:
            return False
        written_s, owner = known
        if owner != uid:
            raise Unauthenticated(f"client session {session:x} belongs to another user")
        return now_s - written_s < RENEWAL_WRITE_S

    def note(self, session: ClientSessionId, uid: int, now_s: float) -> None:
        """It is written."""
        self._written[session] = (now_s, uid)
        self._written.move_to_end(session)
        while len(self._written) > REMEMBERED_MAX:
            self._written.popitem(last=False)

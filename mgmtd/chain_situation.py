"""What a chain's next record depends on, and what comes of it: the words of ``chain_machine``. PURE.

Source: design 2.2, 2.6.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from fs3.ids import ChainVersion, Generation, TargetId
from fs3.routing import ChainInfo, LocalState, Member

from .liveness import Verdict

NO_GENERATION = Generation(0)
NO_VERSION = ChainVersion(0)


class Rule(enum.Enum):
    """Why a record changes."""

    REPAIR = "repair"
    RESUME = "resume"
    LOST = "lost"
    LEAVE = "leave"
    RENEW = "renew"
    IN_FORCE = "in_force"
    JOIN = "join"
    FALL_BACK = "fall_back"
    YIELD = "yield"
    ENTER = "enter"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a member's target now."""

    generation: Generation = NO_GENERATION
    """Of its node, as persisted; 0: no such node."""
    verdict: Verdict = Verdict.DEAD
    """Of the node, in that generation."""
    local: LocalState | None = None
    """As reported in that generation; None: not reported to this primary yet."""
    uptodate_at: ChainVersion = NO_VERSION
    """The one version at which it says that it has everything; 0: it does not."""
    acknowledged: ChainVersion = NO_VERSION
    """Newest version that it acknowledged in that generation."""
    same_store: bool = True
    """It is the store that the chain had."""
    clean: bool = True
    """It was opened with all checks passed."""
    over_s: float = 0.0
    """When the primary's grants to the generation that the record names are over."""
    lent_until_s: float = 0.0
    """If it is to leave: until when those who stay may have lent to it. They wait for that in any case."""
    alone_acknowledged: bool = False
    """It acknowledged a version in which it alone served, and nobody else is in force since."""
    unwanted: bool = False
    """An operator wants it out."""
    cut_off: str = ""
    """Which link to another member is broken, if this is the end of it that is to go."""
    is_slow: bool = False
    """Its acknowledgements take far longer than its peers'."""
    is_stalled: bool = False
    """It is being copied to, and that has stood still for long."""
    barred: str = ""
    """Why it may not enter yet although it is well: a link of it that is being watched, for example."""

    @property
    def heard(self) -> bool:
        """Its node is alive now."""
        return self.verdict is Verdict.ALIVE

    def bars_use(self) -> str | None:
        """Why it can neither serve nor be copied to; None: it can."""
        if self.local is None:
            return "it has not reported yet"
        if self.local is LocalState.OFFLINE:
            return "it is offline"
        return None if self.clean else "its store did not open clean"

    def objection(self) -> str | None:
        """Why what it has does not count; None: it does."""
        if (why := self.bars_use()) is not None:
            return why
        return None if self.same_store else "its store is another one: what it had is gone"


UNKNOWN = Known()
"""Of a member that nothing is known of."""


@dataclass(frozen=True, slots=True)
class Situation:
    """A chain and all that its next record depends on."""

    info: ChainInfo
    known: Mapping[TargetId, Known]
    now_s: float
    resumable_since_s: float | None = None
    """Since when some candidate might resume, as an earlier step of this record said; None: nobody might."""
    repair: TargetId | None = None
    """The operator's choice of who serves, whatever is lost by it (``--accept-data-loss``)."""

    def of(self, member: Member) -> Known:
        """What is known of a member."""
        return self.known.get(member.target, UNKNOWN)

    def is_present(self, member: Member) -> bool:
        """Its node runs the generation that the record names."""
        return self.of(member).generation == member.generation

    def has_restarted(self, member: Member) -> bool:
        """Its node runs a later generation than the record names."""
        return self.of(member).generation > member.generation

    def is_well(self, member: Member) -> bool:
        """It is heard, in the generation of the record, and what it has counts."""
        known = self.of(member)
        sound = known.local is None or known.objection() is None
        return known.heard and self.is_present(member) and sound


@dataclass(slots=True)
class Step:
    """What to do about a chain now."""

    record: ChainInfo | None = None
    """To persist, then to publish; None: nothing changes."""
    rule: Rule | None = None
    """Why; None with no record."""
    new_stores: tuple[TargetId, ...] = ()
    """Targets whose present store is the chain's from this record on."""
    uncovered: tuple[Member, ...] = ()
    """Members that the primary's grants must not cover any more, since they are to leave."""
    again_s: float | None = None
    """When time alone changes the answer; None: it does not."""
    resumable_since_s: float | None = None
    """To be handed in again as long as the record is the same."""
    held: dict[TargetId, str] = field(default_factory=dict)
    """Members that are not as they should be, and why it stays so for now."""

    def look_again(self, at_s: float) -> None:
        """The answer may change then."""
        self.again_s = at_s if self.again_s is None else min(self.again_s, at_s)

"""What a mistake is: a line of the product that says something else, and who must notice it.

Judges of three kinds look at a mistake:

* *aimed*: a test that goes straight to it, through the product's own classes; it must fail;
* *walks*: random walks of the chain model or the lease model, which run the product's machines; one of the
  named number must break a rule;
* *seeds*: random seeds of the simulated world, the whole servers; ``seeds`` says how many are tried, and 0
  that the mistake is too rare for them.

Every mistake has an aimed test or walks: what only chance finds would be lost with the next change of what
is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one source file."""

    path: str
    """Relative to the root of the tree, as in ``storage/gate.py``."""
    old: str
    """Occurs exactly once in the file."""
    new: str

    @property
    def module(self) -> str:
        """The name under which the file is imported: components are packages of ``fs3``."""
        name = self.path.removesuffix(".py").replace("/", ".")
        return name if name.startswith("fs3.") else f"fs3.{name}"


@dataclass(frozen=True, slots=True)
class Walks:
    """Walks of a model, from seed 0 on."""

    model: str
    """``chain`` or ``lease``."""
    focus: str
    count: int
    """At most so many."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake."""

    name: str
    rule: str
    """What it breaks: a section of the design, or the page that says so."""
    edits: tuple[Edit, ...]
    """Nearly always one; more where a rule is kept at two places and each alone would do."""
    aimed: tuple[str, ...] = ()
    """Tests, by their names for pytest; at least one of them must fail."""
    walks: tuple[Walks, ...] = ()
    seeds: int = 0


class DoesNotApply(Exception):
    """The text that a mistake replaces is not there, or not once."""


def changed(source: str, edit: Edit) -> str:
    """The source with the mistake in it."""
    count = source.count(edit.old)
    if count != 1:
        raise DoesNotApply(f"{edit.path}: {count} times, not once: {edit.old!r}")
    return source.replace(edit.old, edit.new)

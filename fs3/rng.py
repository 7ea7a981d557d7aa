"""Chance as a component: every draw comes from a generator that was handed in.

A daemon makes one from the operating system's entropy; the simulated world derives all of them from its
one seed, by name, so that a new consumer does not shift the draws of the others.
"""

from __future__ import annotations

import hashlib
import random
import secrets

Rng = random.Random


def system_rng() -> Rng:
    """A generator seeded from the operating system. For jitter and choice; secrets come from ``secrets``."""
    return Rng(secrets.randbits(128))


def derived_rng(seed: int, name: str) -> Rng:
    """The generator of consumer ``name`` under a root seed."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return Rng(int.from_bytes(digest, "big"))
